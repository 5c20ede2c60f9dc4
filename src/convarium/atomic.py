"""Files that are either the old ones or the new ones, never half of each: write beside, fsync, rename."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from convarium.errors import ConvariumError


def make_folder(path: Path) -> None:
    """Make ``path`` unless it is there.

    Raises:
        ConvariumError: it cannot be made.
    """
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise ConvariumError(f"cannot make the folder {path}: {error.strerror}") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``; when the block ends well, its file is synced and takes that place.

    Raises:
        ConvariumError: the file cannot be written (full disk, read-only folder); what stood at ``path`` still stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise ConvariumError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # a folder that cannot be written holds no such file either
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` with ``data``, whole or not at all; what is no file (``/dev/stdout``) is written into."""
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(data)
        return
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` with ``text`` in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
