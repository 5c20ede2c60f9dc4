"""A weight file of any dialect, recognised by its content and read without running anything of it."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from convarium.errors import DataError
from convarium.tensors import load_tensors, refuse_pickle

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["safetensors", "torch", "keras", "caffe"]

SAFETENSORS_LENGTH_LIMIT = 2**48  # the eight bytes before the brace are a length: the highest two are zero
HDF5_START = b"\x89HDF\r\n\x1a\n"
TABLE_END = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # LevelDB's, in which TensorFlow keeps a checkpoint's index
TORCH7_STARTS = (b"\x03\0\0\0\x01\0\0\0", b"\x04\0\0\0\x01\0\0\0\x03\0\0\0V 1", b"3\n1\n", b"4\n1\n3\nV 1\n")
LARGEST_EXPANSION = 16  # unpacked bytes per byte of the file; weights hardly pack at all


@dataclass(frozen=True)
class WeightFile:
    """Tensors under the file's own names, in the file's own layouts, and what else the file says.

    Attributes:
        path: the file.
        kind: ``safetensors``, ``torch``, ``keras`` or ``caffe``.
        tensors: name to tensor, in the file's order of layers where it has one.
        metadata: of safetensors, what was stored; of torch, ``unwrapped``, ``prefix`` and ``left_out``; of Keras,
            ``layout`` and ``keras_version``; of Caffe, ``name``, ``layers`` (name to type) and ``order`` (all names).
    """

    path: Path
    kind: Kind
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def read_tensors(path: str | Path, *, trusted: bool = False) -> WeightFile:
    """Every tensor of a weight file; nothing is transposed, renamed or run.

    A pickle (``.pth``, ``.pt``, ``.bin``) is read only when it is trusted, in a process of its own, as tensors only.

    Args:
        path: a safetensors, torch, Keras (``.h5``, ``.weights.h5``, ``.keras``) or Caffe (``.caffemodel``) file.
        trusted: the file's hash is a card's, or the user said so.

    Raises:
        DataError: no such file, none of these, a damaged one, one that holds code, or a pickle that is not trusted.
        UsageError: the package that reads this kind is missing.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == "safetensors":
        tensors, metadata = load_tensors(path)
        return WeightFile(path, kind, tensors, dict(metadata))
    if kind == "keras":
        from convarium.weights.keras_file import read_keras

        return WeightFile(path, kind, *read_keras(path))
    if kind == "caffe":
        from convarium.weights.caffe_file import read_caffe

        return WeightFile(path, kind, *read_caffe(path))
    if not trusted:
        raise refuse_pickle(path)
    from convarium.weights.torch_file import read_torch

    return WeightFile(path, kind, *read_torch(path))


def kind_of(path: Path) -> Kind:
    """Which dialect a file is, from its content.

    Raises:
        DataError: no such file, or something else; says what it seems to be, and what to do.
    """
    if not path.is_file():
        raise DataError(f"no weight file at {path}")
    with open(path, "rb") as file:
        start = file.read(512)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < SAFETENSORS_LENGTH_LIMIT:
        return "safetensors"
    if start[:4] == b"PK\x03\x04":
        return _kind_of_zip(path)
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "torch"
    if start.startswith(HDF5_START):
        return "keras"
    if reason := _known_but_not_read(path, start):
        raise DataError(f"{path} {reason}")
    from convarium.weights.caffe_file import is_caffe

    if is_caffe(path):
        return "caffe"
    raise DataError(
        f"{path} is no weight file that is known here (safetensors, torch, Keras h5 or .keras, Caffe), or a damaged "
        "one: download it again, or save it as .safetensors"
    )


def _known_but_not_read(path: Path, start: bytes) -> str | None:
    if not start:
        return "is empty: download it again"
    if looks_like_html(start):
        return "is a web page, not weights: download the file itself"
    if path.suffix == ".t7" or start.startswith(TORCH7_STARTS):
        return "is of torch7 (Lua), which is not read here: save its tensors as .safetensors from there"
    if ".data-0" in path.name or _end_of(path, len(TABLE_END)) == TABLE_END:
        return (
            "is a part of a TensorFlow checkpoint, which is not read here: open the checkpoint with "
            "tf.train.load_checkpoint and save its arrays as .safetensors"
        )
    if start[:2] == b"\x1f\x8b" or start[257:262] == b"ustar":
        return "is an archive (tar, gzip): unpack it and give the weight file inside"
    return None


def looks_like_html(start: bytes) -> bool:
    """Whether a file begins as a web page does."""
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html", b"<?xml"))


def _end_of(path: Path, count: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - count))
        return file.read()


def _kind_of_zip(path: Path) -> Kind:
    """Torch and Keras both write zip archives; nothing in one may lead out of it or swell as it is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError):
        raise DataError(f"{path} is a part of a zip archive or a damaged one: download it again") from None
    names = [member.filename for member in members]
    for name in names:
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
            raise DataError(f"{path} holds a file that would land outside of it ({name!r}), and is refused")
    unpacked = sum(member.file_size for member in members)
    if unpacked > LARGEST_EXPANSION * path.stat().st_size:
        raise DataError(f"{path} swells to {unpacked:,} bytes when it is unpacked, which weights do not: refused")
    if "model.weights.h5" in names:
        return "keras"
    tops = {name.partition("/")[0] for name in names if name.endswith("/data.pkl")}
    if any(name.endswith("/constants.pkl") for name in names):
        raise DataError(
            f"{path} is a TorchScript archive, which is a program: save its state_dict() where it came from, "
            "as .safetensors"
        )
    if tops:
        return "torch"
    raise DataError(f"{path} is a zip archive of {', '.join(names[:3])}: unpack it and give the weight file inside")
