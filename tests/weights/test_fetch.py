"""Fetching from a server of our own that drops connections, forgets, redirects, and answers what servers answer."""

import hashlib
import io
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from convarium.errors import ConvariumError, DataError, UsageError
from convarium.weights import fetch as fetching
from convarium.weights.archive import fetch_member
from convarium.weights.cards import find_card
from convarium.weights.fetch import cache_folder, fetch, hf_url
from convarium.weights.source import fetch_card

CONTENT = bytes(range(256)) * 4000  # a megabyte
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SHA256_SUM = f"sha256:{SHA256}"
PATH = "/models/net.pth"


class Server(ThreadingHTTPServer):
    """Serves ``content`` at every path; tests set what is wrong with it."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.tag = '"one"'
        self.answers: dict[str, Callable[[Handler], None]] = {}  # path -> what it does instead
        self.drops: list[int] = []  # after how many bytes each of the next answers breaks off
        self.knows_ranges = True
        self.requests: list[dict[str, str]] = []
        self.barrier: threading.Event | None = None  # answers wait for it

    def url(self, path: str = PATH) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.requests.append(dict(self.headers))
        if self.server.barrier:
            self.server.barrier.wait(10)
        self.server.answers.get(self.path, Handler.send_content)(self)

    def send_content(self):
        content, start, status = self.server.content, 0, 200
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and self.server.knows_ranges and self.headers.get("If-Range", self.server.tag) == self.server.tag:
            start, status = int(wanted[1]), 206
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) - start))
        if self.server.tag:
            self.send_header("ETag", self.server.tag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        end = start + self.server.drops.pop(0) if self.server.drops else len(content)
        self.wfile.write(content[start:end])
        self.close_connection = True

    def log_message(self, *_):
        pass


def status(code: int, body: bytes = b"", **headers: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.fixture
def server():
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """An empty cache and nothing of the user's own."""
    for name in list(os.environ):
        if name.startswith(("HF_", "TORCH_HOME", "CONVARIUM_", "XDG_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("CONVARIUM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(fetching, "WAIT_SECONDS", 0.0)


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def failing(error: type[Exception], match: str, *args, **kwargs) -> None:
    with pytest.raises(error, match=match) as raised:
        fetch(*args, **kwargs)
    assert "\n" not in str(raised.value)


def test_a_file_is_fetched_once_and_kept_under_its_address(server, tmp_path):
    path = fetch(server.url(), checksum=SHA256_SUM)
    assert path == tmp_path / "home" / f"127.0.0.1_{server.server_port}" / "models" / "net.pth"
    assert path.read_bytes() == CONTENT
    assert (
        fetch(server.url(), checksum=f"sha256:{SHA256.upper()}")
        == fetch(server.url(), checksum=f"sha256:{SHA256[:8]}")
        == path
    )
    assert len(server.requests) == 1
    assert files_of(tmp_path / "home") == ["net.pth", "net.pth.sha256"]
    checked = subprocess.run(["sha256sum", "-c", "net.pth.sha256"], cwd=path.parent, capture_output=True, text=True)
    assert checked.stdout == "net.pth: OK\n"


def test_a_name_of_ones_own(server, tmp_path):
    assert fetch(server.url(), name="owner--net/model.pth") == tmp_path / "home/owner--net/model.pth"
    for name in ("../x", "/x", "a/../../x", "."):
        failing(UsageError, "leads nowhere else", server.url(), name=name)


def test_the_digits_in_a_name_are_its_hash(server):
    assert fetch(server.url(f"/resnet18-{SHA256[:8]}.pth")).read_bytes() == CONTENT
    failing(DataError, f"sha256 {SHA256} and not f37072fd", server.url("/resnet18-f37072fd.pth"))
    fetch(server.url("/vggface-20180402.pt"))  # a date


def test_another_hash_is_an_error_with_both_and_leaves_nothing(server, tmp_path):
    failing(DataError, f"sha256 {SHA256} and not {'0' * 64}", server.url(), checksum=f"sha256:{'0' * 64}")
    assert files_of(tmp_path / "home") == []


def test_checksums_of_other_kinds(server, tmp_path):
    md5, sha1 = hashlib.md5(CONTENT).hexdigest(), hashlib.sha1(CONTENT).hexdigest()
    assert fetch(server.url("/a.h5"), checksum=f"md5:{md5}") == fetch(server.url("/a.h5"), checksum=f"sha1:{sha1}")
    failing(DataError, f"md5 {md5} and not {'1' * 32}", server.url("/b.h5"), checksum=f"md5:{'1' * 32}")
    for wrong in ("abc", "", "x" * 64):
        failing(UsageError, "a checksum is .*eight hexadecimal digits", server.url(), checksum=f"sha256:{wrong}")
    failing(UsageError, "a checksum is", server.url(), checksum="crc:12345678")


def test_a_cached_file_that_is_another_is_fetched_again(server):
    path = fetch(server.url(), checksum=SHA256_SUM)
    path.write_bytes(b"spoiled")
    os.utime(path, (path.stat().st_mtime + 10,) * 2)
    assert fetch(server.url(), checksum=SHA256_SUM).read_bytes() == CONTENT
    server.content = b"new" * 100
    assert (
        fetch(server.url(), checksum=f"sha256:{hashlib.sha256(server.content).hexdigest()}").read_bytes()
        == server.content
    )


# --- connections that end


def test_a_dropped_connection_is_gone_on_with_from_where_it_stopped(server):
    server.drops = [100_000, 1, 0, 300_000]
    assert fetch(server.url(), checksum=SHA256_SUM).read_bytes() == CONTENT
    ranges = [request.get("Range") for request in server.requests]
    assert ranges == [None, "bytes=100000-", "bytes=100001-", "bytes=100001-", "bytes=400001-"]
    assert all(request["If-Range"] == '"one"' for request in server.requests[1:])


def test_a_server_that_keeps_dropping_is_given_up_and_the_next_call_goes_on(server, tmp_path):
    server.drops = [500_000] + [0] * fetching.ATTEMPTS
    failing(ConvariumError, "500,000 bytes are kept, and the same command goes on", server.url(), checksum=SHA256_SUM)
    assert files_of(tmp_path / "home") == ["net.pth.part", "net.pth.part.version"]
    server.requests.clear()
    assert fetch(server.url(), checksum=SHA256_SUM).read_bytes() == CONTENT
    assert server.requests[0]["Range"] == "bytes=500000-"
    assert files_of(tmp_path / "home") == ["net.pth", "net.pth.sha256"]


def stop_at(server: Server, count: int) -> None:
    server.drops = [count] + [0] * fetching.ATTEMPTS
    with pytest.raises(ConvariumError):
        fetch(server.url(), checksum=SHA256_SUM)
    server.requests.clear()


def test_a_file_that_changed_meanwhile_is_fetched_from_the_start(server):
    server.content = b"old" * 10_000
    stop_at(server, 5000)
    server.content, server.tag = CONTENT, '"two"'
    assert fetch(server.url(), checksum=SHA256_SUM).read_bytes() == CONTENT


def test_a_server_without_ranges_sends_it_all_again(server):
    stop_at(server, 5000)
    server.knows_ranges = False
    assert fetch(server.url(), checksum=SHA256_SUM).read_bytes() == CONTENT


def test_without_a_version_nothing_is_gone_on_with(server):
    server.tag = ""
    stop_at(server, 5000)
    assert fetch(server.url(), checksum=SHA256_SUM).read_bytes() == CONTENT
    assert "Range" not in server.requests[0]


def test_a_part_that_is_whole_needs_no_more_bytes(server, tmp_path):
    stop_at(server, len(CONTENT) - 1)
    part = next((tmp_path / "home").rglob("*.part"))
    part.write_bytes(CONTENT)
    assert fetch(server.url(), checksum=SHA256_SUM).read_bytes() == CONTENT  # 416, with its length
    part.with_name("net.pth").unlink()
    part.write_bytes(CONTENT + b"more")
    part.with_name("net.pth.part.version").write_text('"one"')
    assert fetch(server.url(), checksum=SHA256_SUM).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server):
    said = [status(503), status(429)]
    server.answers[PATH] = lambda handler: (said.pop(0) if said else Handler.send_content)(handler)
    assert fetch(server.url(), checksum=SHA256_SUM).read_bytes() == CONTENT
    server.answers[PATH] = status(503)
    failing(ConvariumError, "127.0.0.1 answers 503", server.url(), name="again.pth")


# --- what servers answer


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (status(404), "answers 404 Not Found; the name is wrong or the file has moved"),
        (status(403), "answers 403 .* put your token into HF_TOKEN"),
        (status(418), "answers 418"),
        (status(200, b"\n<!doctype HTML><html>Sign in</html>"), "gave a web page instead of the file"),
        (status(302, Location="file:///etc/passwd"), "cannot be had"),
        (status(302, Location="ftp://127.0.0.1/x"), "is not https, and is not followed"),
    ],
)
def test_answers_that_are_no_file_leave_nothing(answer, match, server, tmp_path):
    server.answers[PATH] = answer
    failing(DataError, match, server.url(), checksum=SHA256_SUM)
    assert files_of(tmp_path / "home") == []


def test_a_redirection_is_followed_but_never_from_https_down(server):
    server.answers["/moved"] = status(302, Location=server.url())
    assert fetch(server.url("/moved"), checksum=SHA256_SUM).read_bytes() == CONTENT
    request = fetching.urllib.request.Request("https://example.org/net.pth")
    for target in ("http://example.org/net.pth", "file:///etc/passwd", "ftp://example.org/x"):
        with pytest.raises(DataError, match="is not https"):
            fetching._Redirects().redirect_request(request, None, 302, "", {}, target)


def test_the_token_goes_to_the_hub_alone(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(server.url(), checksum=SHA256_SUM)
    assert not any("secret" in value for request in server.requests for value in request.values())
    request = fetching.urllib.request.Request("https://huggingface.co/a/b/resolve/main/model.safetensors")
    fetching._authorise(request)
    assert request.get_header("Authorization") == "Bearer hf_secret"
    for target, sent in (("https://cdn.example.org/x", None), ("https://huggingface.co/x", "Bearer hf_secret")):
        followed = fetching._Redirects().redirect_request(request, None, 302, "", {}, target)
        assert followed.get_header("Authorization") == sent
    for url in ("http://huggingface.co/a", "https://huggingface.co.evil.org/a", "https://huggingface.co:99/a"):
        other = fetching.urllib.request.Request(url)
        fetching._authorise(other)
        assert not other.has_header("Authorization")


# --- the machine


def test_no_network_is_said_at_once(server, tmp_path):
    url = server.url()
    server.shutdown()
    server.server_close()
    failing(ConvariumError, "no connection to 127.0.0.1: .*refused", url)
    assert files_of(tmp_path / "home") == []


def test_no_space_is_said_before_anything_is_written(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 10_000)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda folder: usage)
    failing(ConvariumError, "no space for .*: 1 MB in .* where 0 MB are free", server.url(), checksum=SHA256_SUM)
    assert files_of(tmp_path / "home") == []


def test_a_disk_that_fills_up_meanwhile_is_freed(tmp_path, server):
    code = (  # a limit on the size of files ends a write as a full disk does
        "import resource, signal; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000));"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"from convarium.weights.fetch import fetch; fetch({server.url()!r})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ConvariumError: cannot keep net.pth.part" in ended.stderr and "set CONVARIUM_HOME" in ended.stderr
    assert files_of(tmp_path / "home") == []


def test_a_cache_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONVARIUM_HOME", str(tmp_path / "file"))
    failing(ConvariumError, "cannot keep net.pth in .*: set CONVARIUM_HOME to a folder of yours", server.url())
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        monkeypatch.setenv("CONVARIUM_HOME", str(tmp_path / "closed"))
        failing(ConvariumError, "Permission denied", server.url())


@pytest.mark.parametrize("variable", ["CONVARIUM_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_fetched_and_the_cache_still_serves(variable, server, monkeypatch):
    monkeypatch.setenv(variable, "1")
    failing(ConvariumError, f"net.pth is not in the cache, .* unset .*{variable}", server.url())
    assert not server.requests
    path = fetch(server.url(), checksum=SHA256_SUM, offline=False)
    assert fetch(server.url(), checksum=SHA256_SUM) == path
    monkeypatch.setenv(variable, "0")
    fetch(server.url("/other.pth"))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a.org/b", "net.pth", "https://", "https://a.org/"])
def test_what_is_no_address(url):
    failing(UsageError, "https:// or http:// address", url)


# --- caches


def test_where_the_cache_is(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "home"
    monkeypatch.delenv("CONVARIUM_HOME")
    assert cache_folder() == tmp_path / "caches" / "convarium"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "convarium"


@pytest.mark.parametrize("variable", ["TORCH_HOME", None])
def test_a_file_of_torchs_cache_is_used_when_its_hash_fits(variable, server, tmp_path, monkeypatch):
    home = tmp_path / "torch_home" if variable else tmp_path / "caches" / "torch"
    if variable:
        monkeypatch.setenv(variable, str(home))
    there = home / "hub" / "checkpoints" / "net.pth"
    there.parent.mkdir(parents=True)
    there.write_bytes(CONTENT)
    assert fetch(server.url(), checksum=SHA256_SUM, offline=True) == there
    assert fetch(server.url()) != there  # nobody says what it should be
    failing(ConvariumError, "not in the cache", server.url(), checksum="sha256:00000000", offline=True, name="x.pth")


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", None])
def test_a_file_of_the_hubs_cache_is_used(variable, tmp_path, monkeypatch):
    home = {"HF_HUB_CACHE": tmp_path / "hub", "HF_HOME": tmp_path / "hf" / "hub"}.get(
        variable, tmp_path / "caches" / "huggingface" / "hub"
    )
    if variable:
        monkeypatch.setenv(variable, str(home if variable == "HF_HUB_CACHE" else home.parent))
    repository = home / "models--timm--resnet18.a1_in1k"
    for folder in ("blobs", "snapshots/abc", "refs"):
        (repository / folder).mkdir(parents=True)
    (repository / "blobs" / SHA256).write_bytes(CONTENT)
    (repository / "refs" / "main").write_text("abc")
    there = repository / "snapshots" / "abc" / "model.safetensors"
    there.symlink_to(f"../../blobs/{SHA256}")
    url = hf_url("timm/resnet18.a1_in1k", "model.safetensors")
    assert fetch(url, offline=True) == fetch(url, checksum=SHA256_SUM[:17], offline=True) == there
    assert fetch(hf_url("timm/resnet18.a1_in1k", "model.safetensors", "abc"), offline=True) == there
    (repository / "blobs" / SHA256).write_bytes(b"spoiled")
    failing(ConvariumError, "not in the cache", url, offline=True)


def test_addresses_of_the_hub(monkeypatch):
    assert hf_url("timm/vgg11.tv_in1k", "model.safetensors") == (
        "https://huggingface.co/timm/vgg11.tv_in1k/resolve/main/model.safetensors"
    )
    assert hf_url("a/b", "sub folder/x.bin", "refs/pr/1").endswith("/a/b/resolve/refs%2Fpr%2F1/sub%20folder/x.bin")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example.org/")
    assert hf_url("a/b", "c") == "https://mirror.example.org/a/b/resolve/main/c"
    for wrong in ("resnet50", "a/b/c", "../b", "a/..", "https://x"):
        with pytest.raises(UsageError, match="owner/name"):
            hf_url(wrong, "x")


# --- processes


def test_two_at_once_fetch_a_file_once(server, capsys):
    server.barrier = threading.Event()
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(server.url(), checksum=SHA256_SUM))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    threads[0].join(0.3)
    server.barrier.set()
    for thread in threads:
        thread.join()
    assert len({*found}) == 1 and len(found) == 3 and found[0].read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert "another process is fetching net.pth; waiting for it" in capsys.readouterr().err
    assert files_of(found[0].parent) == ["net.pth", "net.pth.sha256"]


def test_a_process_that_was_killed_leaves_what_the_next_goes_on_with(server, tmp_path):
    hold = threading.Event()

    def slowly(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.send_header("ETag", server.tag)
        handler.end_headers()
        handler.wfile.write(CONTENT[:200_000])
        hold.wait(20)

    server.answers[PATH] = slowly
    code = f"from convarium.weights.fetch import fetch; fetch({server.url()!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (parts := [*(tmp_path / "home").rglob("*.part")]) or parts[0].stat().st_size < 200_000:
        assert process.poll() is None
    process.kill()
    process.wait()
    hold.set()
    server.answers.clear()
    assert fetch(server.url(), checksum=SHA256_SUM).read_bytes() == CONTENT
    assert server.requests[-1]["Range"] == "bytes=200000-"


# --- archives of one file


def zipped(*members: tuple[str, bytes], packed: int = zipfile.ZIP_STORED) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", packed) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return whole.getvalue()


def test_a_file_comes_out_of_its_archive_once(server, tmp_path):
    sha1 = hashlib.sha1(CONTENT).hexdigest()
    server.content = zipped(("net.pth", CONTENT))
    path = fetch_member(server.url("/a/net.pth.zip"), "net.pth", f"sha1:{sha1}")
    assert path.read_bytes() == CONTENT and path.name == "net.pth" and path.is_relative_to(tmp_path / "home")
    assert files_of(tmp_path / "home") == ["net.pth", "net.pth.sha256"]  # the archive has gone
    checked = subprocess.run(["sha256sum", "-c", "net.pth.sha256"], cwd=path.parent, capture_output=True, text=True)
    assert checked.stdout == "net.pth: OK\n"
    assert fetch_member(server.url("/a/net.pth.zip"), "net.pth", f"sha1:{sha1}") == path
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            zipped(("net.pth", b"another")),
            "in net.pth.zip has the sha1 [0-9a-f]{40} and not [0-9a-f]{40}, and was removed",
        ),
        (zipped(("../net.pth", CONTENT)), "holds ../net.pth, not net.pth alone"),
        (zipped(("/net.pth", CONTENT)), "holds /net.pth, not net.pth alone"),
        (zipped(("net.pth", CONTENT), ("more", b"")), "holds net.pth, more, not net.pth alone"),
        (zipped(), "holds nothing, not net.pth alone"),
        (zipped(("net.pth", bytes(10**6)), packed=zipfile.ZIP_DEFLATED), "swells to 1,000,000 bytes"),
        (zipped(("net.pth", CONTENT))[:-900], "is no whole zip archive"),
        (zipped(("net.pth", CONTENT)).replace(CONTENT[:2000], bytes(2000)), "is no whole zip archive .*Bad CRC-32"),
        (CONTENT, "is no whole zip archive"),
    ],
)
def test_an_archive_of_anything_else_is_refused_and_nothing_is_left(content, reason, server, tmp_path):
    server.content = content
    checksum = f"sha1:{hashlib.sha1(CONTENT).hexdigest()}"
    with pytest.raises(DataError, match=reason) as error:
        fetch_member(server.url("/net.pth.zip"), "net.pth", checksum)
    assert "\n" not in str(error.value)
    assert files_of(tmp_path) == []
    server.content = zipped(("net.pth", CONTENT))
    server.tag = '"two"'
    assert fetch_member(server.url("/net.pth.zip"), "net.pth", checksum).read_bytes() == CONTENT


def test_an_encrypted_archive_is_refused(server):
    whole = bytearray(zipped(("net.pth", CONTENT)))
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        whole[whole.rindex(header) + flags] |= 1
    server.content = bytes(whole)
    with pytest.raises(DataError, match=r"net\.pth in .*net\.pth\.zip is encrypted"):
        fetch_member(server.url("/net.pth.zip"), "net.pth")


def test_a_card_of_an_archive_gives_a_source_whose_pickle_may_be_read(server):
    sha1 = hashlib.sha1(CONTENT).hexdigest()
    server.content = zipped(("net.pth", CONTENT))
    card = replace(find_card("alexnet_owt", "pytorchcv"), url=server.url("/net.pth.zip"), member="net.pth")
    source = fetch_card(replace(card, checksum=f"sha1:{sha1}"))
    assert source.path.read_bytes() == CONTENT and source.trusted
    assert not fetch_card(replace(card, checksum="")).trusted
