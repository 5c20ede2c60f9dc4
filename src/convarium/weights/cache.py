"""The cache of fetched files: where a file's place is, whether it is there, and whether its hash is the right one.

What the environment says:

=================================== ==================================================================================
``CONVARIUM_HOME``                  the cache; else ``$XDG_CACHE_HOME/convarium``, else ``~/.cache/convarium``
``TORCH_HOME``                      torch's cache; a file there whose hash fits is used (default ``~/.cache/torch``)
``HF_HUB_CACHE``, ``HF_HOME``       the hub's cache; the same (default ``~/.cache/huggingface/hub``)
=================================== ==================================================================================
"""

from __future__ import annotations

import hashlib
import os
import re
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from convarium.atomic import write_text
from convarium.errors import ConvariumError, UsageError

# name-0123abcd.pth, as torchvision names its files; eight digits that are a date are one
HASH_IN_NAME = re.compile(r"-(?!(?:19|20)\d\d[01]\d[0-3]\d\.)([0-9a-f]{8,64})\.(?:pth|pt|bin|safetensors|h5)$")
ALGORITHMS = ("sha256", "sha1", "md5")


def cache_folder() -> Path:
    """Where fetched files are kept."""
    if home := os.environ.get("CONVARIUM_HOME"):
        return Path(home).expanduser()
    return _user_caches() / "convarium"


def _user_caches() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


@dataclass(frozen=True)
class Hash:
    """The first digits, or all, of a file's hash."""

    algorithm: str
    digits: str

    def fits(self, path: Path) -> bool:
        return digest_of(path, self.algorithm).startswith(self.digits)


def expected_hash(url: str, checksum: str | None) -> Hash | None:
    """What ``checksum`` says, such as ``sha1:2768cdb3...``, or the digits in the name of the file at an address.

    Raises:
        UsageError: a checksum that cannot be one.
    """
    if checksum is None:
        named = HASH_IN_NAME.search(urllib.parse.urlsplit(url).path)
        return Hash("sha256", named[1]) if named else None
    algorithm, _, digits = checksum.partition(":")
    if algorithm not in ALGORITHMS or not re.fullmatch(r"[0-9a-fA-F]{8,64}", digits):
        raise UsageError(f"a checksum is sha256:, sha1: or md5: and eight hexadecimal digits or more; got {checksum!r}")
    return Hash(algorithm, digits.lower())


def digest_of(path: Path, algorithm: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def checked_name(name: str) -> Path:
    """A place below a folder, which a name cannot lead out of."""
    if Path(name).is_absolute() or ".." in Path(name).parts or not Path(name).parts:
        raise UsageError(f"a name in the cache leads nowhere else; got {name!r}")
    return Path(name)


def place_of(url: str) -> Path:
    """``host/path/file`` of an address."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname or not parts.path.strip("/"):
        raise UsageError(f"a file is fetched from an https:// or http:// address; got {url!r}")
    host = parts.hostname + (f"_{parts.port}" if parts.port else "")
    steps = [urllib.parse.unquote(step) for step in parts.path.split("/")]
    if parts.query:
        steps[-1] += f"_{parts.query}"
    return Path(host, *(re.sub(r"[^\w.+=-]", "_", step) for step in steps if step.strip(".")))


def in_cache(path: Path, expected: Hash | None) -> Path | None:
    """The cached file, when it is the one that is wanted; another one stands until this one takes its place."""
    fits = path.is_file() and (not expected or _stored_hash(path, expected.algorithm).startswith(expected.digits))
    return path if fits else None


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _stored_hash(path: Path, algorithm: str) -> str:
    """The hash that was taken as the file came, unless it changed since; then, or for another hash, of the file."""
    beside = _beside(path)
    if algorithm == "sha256" and beside.is_file() and beside.stat().st_mtime >= path.stat().st_mtime:
        return beside.read_text().split(" ")[0]
    return digest_of(path, algorithm)


def elsewhere(url: str, expected: Hash | None) -> Path | None:
    """The file in torch's or the hub's cache, when its hash fits, or, of the hub's, is what the hub calls it by."""
    basename = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rpartition("/")[2]
    torch_home = Path(os.environ.get("TORCH_HOME") or _user_caches() / "torch").expanduser()
    candidates = [torch_home / "hub" / "checkpoints" / basename]
    if hub := re.search(r"/([\w.-]+)/([\w.-]+)/resolve/([^/]+)/(.+)$", urllib.parse.urlsplit(url).path):
        owner, name, revision, filename = hub.groups()
        candidates.append(_in_hub_cache(f"models--{owner}--{name}", urllib.parse.unquote(revision), filename))
    for candidate in candidates:
        if not candidate.is_file():
            continue
        blob = candidate.resolve().name  # the hub's blobs are named by their sha256
        known = expected or (Hash("sha256", blob) if re.fullmatch(r"[0-9a-f]{64}", blob) else None)
        if known and known.fits(candidate):
            return candidate
    return None


def _in_hub_cache(repository: str, revision: str, filename: str) -> Path:
    home = Path(os.environ.get("HF_HOME") or _user_caches() / "huggingface").expanduser()
    folder = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser() / repository
    reference = folder / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    return folder / "snapshots" / commit / filename


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what keeps a file from being written into one line that says what to do."""
    try:
        yield
    except OSError as error:
        raise ConvariumError(
            f"cannot keep {path.name} in {path.parent} ({error.strerror or error}): set CONVARIUM_HOME to a folder of "
            "yours with space"
        ) from None


def keep(found: Path, path: Path, sha256: str) -> None:
    """Give a whole file its place in the cache, and write its sha256 beside it."""
    with writing(path):
        os.replace(found, path)
    write_text(_beside(path), f"{sha256}  {path.name}\n")
