"""A hash inside an exported file, of all the rest of it: what was altered or cut afterwards is refused.

It protects from accidents, not from people: whoever can alter the file can seal it again.
"""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path

from convarium.errors import DataError

MARK = b"convarium-sha256:"
DIGITS = 64
KEY = b"seal"


def seal(path: Path) -> None:
    """Write the hash into a file, in place: an ONNX file's metadata, or an OpenVINO .xml's, which counts its .bin too.

    A file that holds one already, copied from the file it was made of, gets its own.

    Raises:
        DataError: an .xml that was not made of an exported file.
    """
    if not _has_mark(path):
        _add_blank(path)
    with open(path, "rb+") as file, mmap.mmap(file.fileno(), 0) as data:
        start = data.find(MARK) + len(MARK)
        data[start : start + DIGITS] = _digest(data, start, path)


def _has_mark(path: Path) -> bool:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(MARK) >= 0


def check_seal(path: Path) -> None:
    """Refuse a file that is not as it was sealed. One without a seal passes: other programs write none.

    Raises:
        DataError: it was altered.
    """
    if not path.is_file() or not path.stat().st_size:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(MARK) + len(MARK)
        if start < len(MARK):
            return
        if path.suffix == ".xml" and not path.with_suffix(".bin").is_file():
            raise DataError(f"{path} lacks its weights: {path.with_suffix('.bin').name} belongs beside it")
        is_whole = data[start : start + DIGITS] == _digest(data, start, path)
    if not is_whole:
        raise DataError(f"{path} was altered since it was written: export it again, or restore it")


def _digest(data: mmap.mmap, start: int, path: Path) -> bytes:
    """Of all but the digits at ``start``, and of the weights beside an .xml."""
    with memoryview(data) as view, view[:start] as before, view[start + DIGITS :] as after:
        digest = hashlib.sha256(before)
        digest.update(after)
    if path.suffix == ".xml":
        with open(path.with_suffix(".bin"), "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest().encode()


def _add_blank(path: Path) -> None:
    """Room for a seal in the file's metadata."""
    value = MARK + b"0" * DIGITS
    if path.suffix == ".xml":
        before, close, after = path.read_bytes().rpartition(b"</framework>")
        if not close:
            raise DataError(f"{path} has no metadata to put a seal into: it was not made of an exported file")
        path.write_bytes(before + b'<%b value="%b" />' % (KEY, value) + close + after)
        return
    # Protocol buffers join what is appended: one more entry of metadata_props (field 14), a key and a value.
    entry = b"\x0a%c%b\x12%c%b" % (len(KEY), KEY, len(value), value)
    with open(path, "ab") as file:
        file.write(b"\x72%c%b" % (len(entry), entry))
