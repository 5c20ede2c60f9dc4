"""Public files, fetched once: resumed where they stopped, held to their hash, kept in a cache that all runs share.

What the environment says, beside where the cache is (:mod:`convarium.weights.cache`):

=================================== ==================================================================================
``HF_ENDPOINT``                     a mirror of the hub
``HF_TOKEN``                        sent to huggingface.co over https, and to nobody else
``CONVARIUM_OFFLINE``,              anything but empty, 0, no, off or false: nothing is fetched
``HF_HUB_OFFLINE``
``https_proxy``, ``no_proxy``, ...  as everywhere
=================================== ==================================================================================
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from convarium import __version__
from convarium.console import counting, stderr
from convarium.errors import ConvariumError, DataError, UsageError
from convarium.weights.cache import (
    Hash,
    cache_folder,
    checked_name,
    digest_of,
    elsewhere,
    expected_hash,
    in_cache,
    keep,
    place_of,
    writing,
)
from convarium.weights.files import looks_like_html

HUB = "https://huggingface.co"
ATTEMPTS = 5  # in a row that brought nothing
WAIT_SECONDS = 1.0  # after an attempt that got further; doubled for each in a row that did not
TIMEOUT_SECONDS = 30.0  # without a byte
BLOCK_BYTES = 2**20
MEGABYTE = 1_000_000
TRIED_AGAIN = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS, 500, 502, 503, 504}


def fetch(
    url: str,
    *,
    checksum: str | None = None,
    name: str | None = None,
    offline: bool | None = None,
) -> Path:
    """The file at an address, from the cache or fetched into it.

    A file is in the cache under its host and path, so that ``model.safetensors`` of two repositories are two files,
    with its sha256 beside it (``sha256sum -c`` reads that). A download that stops is kept as ``.part`` and gone on with
    by the next call; only a whole file with the right hash gets its name. Two processes that want a file fetch it once.

    Args:
        url: an https or http address.
        checksum: ``sha256:``, ``sha1:`` or ``md5:`` and the file's hash in hexadecimal, or its first eight digits or
            more; those in a name like ``resnet18-f37072fd.pth`` when not given.
        name: the file's place in the cache, where it is not to be the address.
        offline: fetch nothing; as the environment says when not given.

    Raises:
        UsageError: an address, name or hash that cannot be one.
        DataError: no such file (404), not for everyone (401, 403), a web page in its place, another hash.
        ConvariumError: offline, no connection, stopped half-way, no space or no permission; what to do is said.
    """
    expected = expected_hash(url, checksum)
    path = cache_folder() / (checked_name(name) if name else place_of(url))
    if found := in_cache(path, expected) or elsewhere(url, expected):
        return found
    if _is_offline() if offline is None else offline:
        raise ConvariumError(
            f"{path.name} is not in the cache, and nothing is fetched offline: put it at {path}, or unset "
            "CONVARIUM_OFFLINE and HF_HUB_OFFLINE"
        )
    with _part_of(path, expected) as part:
        if part is None:  # another process was faster
            return path
        _download(url, part)
        _accept(url, part, expected, path)
    return path


def hf_url(repository: str, filename: str, revision: str = "main") -> str:
    """The address of a file in a repository (``owner/name``) of the hub.

    Raises:
        UsageError: no such form of a repository's name.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or ".." in repository:
        raise UsageError(f"a hub repository is written owner/name; got {repository!r}")
    endpoint = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    branch, file = urllib.parse.quote(revision, safe=""), urllib.parse.quote(filename)
    return f"{endpoint}/{repository}/resolve/{branch}/{file}"


def _is_offline() -> bool:
    said = (os.environ.get(name, "") for name in ("CONVARIUM_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.lower() not in ("", "0", "no", "off", "false") for value in said)


@contextmanager
def _part_of(path: Path, expected: Hash | None) -> Iterator[BinaryIO | None]:
    """``path``'s ``.part``, ours alone, to go on with; None when another process has just fetched the file."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    while True:
        with writing(path):
            file = open(part, "ab+")  # noqa: SIM115
        with file:
            _lock(file, path.name)
            if in_cache(path, expected):
                _tidy(file)
                yield None
                return
            if not _same_file(file, part):
                continue
            try:
                yield file
            finally:
                _tidy(file)
            return


def _tidy(part: BinaryIO) -> None:
    """Leave no empty part behind, and what describes a part only beside one."""
    path = Path(part.name)
    if not part.closed and _same_file(part, path) and not _size(part):
        path.unlink()
    if not path.exists():
        _validator_of(part).unlink(missing_ok=True)


def _same_file(file: BinaryIO, path: Path) -> bool:
    """Whether ``path`` is still the open file: whoever held it before may have given it its name or removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(file: BinaryIO, name: str) -> None:
    """Wait until no other process holds the file; its end or its crash lets it go. Windows has no such lock here."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stderr().print(f"another process is fetching {name}; waiting for it")
        fcntl.flock(file, fcntl.LOCK_EX)


class _Lost(Exception):
    """The connection ended, or none came about (``met`` is false); another attempt may help."""

    def __init__(self, reason: str, *, met: bool = True):
        super().__init__(reason)
        self.met = met


def _download(url: str, part: BinaryIO) -> None:
    """Bring ``part`` to the whole file, in as many attempts as get further."""
    failures = 0
    while True:
        before = _size(part)
        try:
            return _go_on(url, part)
        except _Lost as lost:
            held = _size(part)
            failures = 0 if held > before else failures + 1
            if failures == ATTEMPTS or not (held or lost.met):
                kept = f"; {held:,} bytes are kept, and the same command goes on from there"
                by_hand = f"; without a network, put the file at {Path(part.name).with_suffix('')}"
                raise ConvariumError(f"cannot fetch {url} ({lost}){kept if held else by_hand}") from None
            time.sleep(WAIT_SECONDS * 2**failures)


def _go_on(url: str, part: BinaryIO) -> None:
    """One request for what is missing of ``part``; for all of it when nothing tells that the file is still the same."""
    validator = _validator_of(part)
    known = validator.read_text() if validator.is_file() else ""
    held = _size(part) if known else 0
    response = _open(url, {"Range": f"bytes={held}-", "If-Range": known} if held else {})
    with response:
        if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if response.headers.get("Content-Range") == f"bytes */{held}":
                return  # all of it was there
            part.truncate(0)
            raise _Lost("the file is another than the one that was begun")
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            held = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {held}-"):
            part.truncate(0)
            raise _Lost("the server sent another part than was asked for")
        part.truncate(held)
        tag = response.headers.get("ETag", "")
        weak = not tag or tag.startswith("W/")
        with writing(Path(part.name)):
            validator.write_text(response.headers.get("Last-Modified", "") if weak else tag)
        _copy(url, response, part, held)


def _copy(url: str, response: http.client.HTTPResponse, part: BinaryIO, held: int) -> None:
    """Add what a server sends to ``part``, which holds ``held`` bytes already."""
    path = Path(part.name)
    missing = int(response.headers.get("Content-Length") or 0)
    free = shutil.disk_usage(path.parent).free
    if missing > free:
        raise ConvariumError(
            f"no space for {url}: {missing / MEGABYTE:,.0f} MB in {path.parent}, where {free / MEGABYTE:,.0f} MB are "
            "free: make room, or set CONVARIUM_HOME to another folder"
        )
    came = 0
    with _ticking(path.stem, held + missing if missing else 0) as tick:
        while block := _receive(response):
            if not held + came and looks_like_html(block):
                raise DataError(f"{url} gave a web page instead of the file: is the address right, or a login wanted?")
            try:
                with writing(path):
                    part.write(block)
                    part.flush()
            except ConvariumError:
                part.truncate(0)  # it would only fill the disk
                raise
            came += len(block)
            tick(held + came)
    if came < missing:
        raise _Lost(f"the connection ended {missing - came:,} bytes too early")


def _receive(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _Lost(f"the connection ended: {error}") from None


@contextmanager
def _ticking(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar in megabytes, where the size is known."""
    if not total:
        yield lambda done: None
        return
    with counting(f"fetching {name}, MB", max(1, total // MEGABYTE)) as tick:
        yield lambda done: tick(done // MEGABYTE)


def _open(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """The server's answer: the file, a part of it, or that the part asked for is not there (416)."""
    host = urllib.parse.urlsplit(url).hostname
    request = urllib.request.Request(
        url, headers={"User-Agent": f"convarium/{__version__}", "Accept-Encoding": "identity", **headers}
    )
    _authorise(request)
    try:
        return urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and "Range" in headers:
            return error  # type: ignore[return-value]  # it has all that a response has
        with error:
            if error.code in TRIED_AGAIN:
                raise _Lost(f"{host} answers {error.code} {error.reason}") from None
            raise DataError(
                f"{url} cannot be had: {host} answers {error.code} {error.reason}{_advice(error)}"
            ) from None
    except urllib.error.URLError as error:
        met = isinstance(error.reason, ConnectionResetError | TimeoutError)
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise _Lost(f"no connection to {host}: {reason}", met=met) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Lost(f"the connection to {host} ended: {error}") from None


def _advice(error: urllib.error.HTTPError) -> str:
    if error.code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return "; the name is wrong or the file has moved"
    if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return "; where a login is wanted, put your token into HF_TOKEN"
    return ""


def _authorise(request: urllib.request.Request) -> None:
    """The user's token for the hub, in a header that no redirection carries elsewhere."""
    token = os.environ.get("HF_TOKEN")
    if token and request.type == "https" and request.host == urllib.parse.urlsplit(HUB).netloc:
        request.add_unredirected_header("Authorization", f"Bearer {token}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """To https, or from http to http; never from https down, nor to a file or ftp."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme != "https" and (scheme != "http" or req.type != "http"):
            raise DataError(f"{req.full_url} leads on to {newurl}, which is not https, and is not followed")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None:
            _authorise(request)
        return request


def _size(part: BinaryIO) -> int:
    return os.fstat(part.fileno()).st_size


def _validator_of(part: BinaryIO) -> Path:
    """Beside a part: what the server calls the version of the file that it belongs to."""
    return Path(part.name + ".version")


def _accept(url: str, part: BinaryIO, expected: Hash | None, path: Path) -> None:
    """Give a whole file with the right hash its name, and keep its sha256 beside it.

    Raises:
        DataError: another hash; the file is removed.
    """
    found = Path(part.name)
    sha256 = digest_of(found, "sha256")
    if expected:
        digest = sha256 if expected.algorithm == "sha256" else digest_of(found, expected.algorithm)
        if not digest.startswith(expected.digits):
            part.truncate(0)
            raise DataError(
                f"{url} has the {expected.algorithm} {digest} and not {expected.digits}, and was removed: the file at "
                "that address is another one, or was damaged on the way"
            )
    os.fsync(part.fileno())
    if os.name == "nt":  # where an open file keeps its name
        part.close()
    keep(found, path, sha256)
