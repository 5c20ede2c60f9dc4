"""A zip archive of one file, as pytorchcv publishes its weights: fetched, and that file unpacked into the cache."""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import IO

from convarium.errors import DataError
from convarium.weights.cache import (
    Hash,
    cache_folder,
    checked_name,
    digest_of,
    expected_hash,
    in_cache,
    keep,
    place_of,
    writing,
)
from convarium.weights.fetch import fetch
from convarium.weights.files import LARGEST_EXPANSION

BLOCK_BYTES = 2**20
ENCRYPTED = 1  # the lowest of a member's flags


def fetch_member(url: str, member: str, checksum: str | None = None) -> Path:
    """The one file in a zip archive at an address, from the cache or fetched and unpacked into it.

    The archive goes once its file is unpacked.

    Args:
        url: of the archive.
        member: the name that the file in it must have; it stands under that name in the cache.
        checksum: of that file, as :func:`convarium.weights.fetch.fetch` takes one.

    Raises:
        DataError: not an archive of that file alone, a file that swells, is damaged, or has another hash.
        ConvariumError, UsageError: as :func:`convarium.weights.fetch.fetch`.
    """
    path = (cache_folder() / place_of(url)).with_name(checked_name(member).name)
    expected = expected_hash(member, checksum)
    if found := in_cache(path, expected):
        return found
    archive = fetch(url)
    try:
        _unpack(archive, path, expected)
    finally:  # what cannot be unpacked is no use either
        for each in (archive, archive.with_name(f"{archive.name}.sha256")):
            each.unlink(missing_ok=True)
    return path


def _unpack(archive: Path, path: Path, expected: Hash | None) -> None:
    """Write the archive's file to ``path``, which nothing in the archive can choose."""
    found = path.with_name(f"{path.name}.{os.getpid()}")  # two processes that unpack it do not meet
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(_only_member(opened, archive, path.name)) as packed:
            _copy(packed, found)
        if expected and not expected.fits(found):
            raise DataError(
                f"{path.name} in {archive.name} has the {expected.algorithm} {digest_of(found, expected.algorithm)} "
                f"and not {expected.digits}, and was removed: it is another file, or was damaged on the way"
            )
        keep(found, path, digest_of(found, "sha256"))
    except (zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError) as error:
        raise DataError(f"{archive} is no whole zip archive ({error}), and was removed: fetch it again") from None
    finally:
        found.unlink(missing_ok=True)


def _copy(packed: IO[bytes], path: Path) -> None:
    with writing(path), open(path, "wb") as file:
        shutil.copyfileobj(packed, file, BLOCK_BYTES)
        file.flush()
        os.fsync(file.fileno())


def _only_member(opened: zipfile.ZipFile, archive: Path, name: str) -> zipfile.ZipInfo:
    members = opened.infolist()
    names = [member.filename for member in members]
    if names != [name]:
        raise DataError(f"{archive} holds {', '.join(names[:3]) or 'nothing'}, not {name} alone, and was removed")
    if members[0].flag_bits & ENCRYPTED:
        raise DataError(f"{name} in {archive} is encrypted, and was removed")
    if members[0].file_size > LARGEST_EXPANSION * archive.stat().st_size:
        raise DataError(f"{name} in {archive} swells to {members[0].file_size:,} bytes, which weights do not: removed")
    return members[0]
