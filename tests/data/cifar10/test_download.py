"""Downloads from a local HTTP server: resuming, verification, errors and concurrency."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from cifarml.data.cifar10.download import download_file
from cifarml.data.cifar10.official import download_official
from cifarml.errors import DownloadError
from cifarml.progress import Progress, ignore_progress
from cifarml.settings import Settings

CONTENT = np.random.default_rng(0).bytes(3_000_001)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclasses.dataclass
class Response:
    """Settings of a response by the server."""

    status: int | None = None
    content: bytes = CONTENT
    ranges: bool = True
    cut_after: int | None = None
    content_range: str | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    wait_after: tuple[int, threading.Event] | None = None


class Server(ThreadingHTTPServer):
    """Server that sends `responses` in order, repeating the last one, and records requests."""

    def __init__(self, responses: list[Response]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.responses = responses
        self.starts: list[int] = []
        self.num_sent = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/cifar-10-python.tar.gz"

    def next_response(self, start: int) -> Response:
        with self.lock:
            self.starts.append(start)
            return self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        response = self.server.next_response(int(requested[1]) if requested else 0)
        start = int(requested[1]) if requested and response.ranges else 0
        content = response.content[start:]
        status = response.status or (206 if requested and response.ranges else 200)
        self.close_connection = True
        self.send_response(status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        if status == 206:
            total = len(response.content)
            self.send_header("Content-Range", response.content_range or f"bytes {start}-{total - 1}/{total}")
        if status >= 400:
            content = b"<html>no</html>"
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        content = content[: response.cut_after]
        pause, event = response.wait_after or (len(content), None)
        try:
            for begin, end in ((0, pause), (pause, len(content))):
                for i in range(begin, end, 2**16):
                    block = content[i : min(i + 2**16, end)]
                    with self.server.lock:  # counted first: the client can be faster than this thread
                        self.server.num_sent += len(block)
                    self.wfile.write(block)
                if event and end == pause:
                    event.wait(60)
        except OSError:
            pass  # some tests end the client

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(*responses: Response) -> Iterator[Server]:
    server = Server(list(responses) or [Response()])
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetch(
    url: str,
    target: Path,
    on_progress: Callable[[Progress], None] = ignore_progress,
    content: bytes = CONTENT,
) -> Path:
    sha256 = hashlib.sha256(content).hexdigest()
    return download_file(url, target, sha256=sha256, size_bytes=len(content), on_progress=on_progress)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "cifar-10-python.tar.gz"


def partial_of(target: Path) -> Path:
    target.parent.mkdir(exist_ok=True)
    return target.with_name(target.name + ".partial")


def test_file_is_downloaded_once_with_progress(target: Path) -> None:
    steps: list[Progress] = []
    with serving() as server:
        assert fetch(server.url, target, steps.append) == target
        assert target.read_bytes() == CONTENT
        assert fetch(server.url, target) == target
        assert server.starts == [0]
    done = [step.done for step in steps]
    assert done == sorted(set(done))
    assert done[-1] == len(CONTENT)
    assert len(done) > 5
    assert {(step.total, step.unit) for step in steps} == {(len(CONTENT), "bytes")}
    assert not partial_of(target).exists()


@pytest.mark.parametrize("have", [1, 1000, 2**18, len(CONTENT) - 1])
def test_only_missing_bytes_are_requested(target: Path, have: int) -> None:
    partial_of(target).write_bytes(CONTENT[:have])
    steps: list[Progress] = []
    with serving() as server:
        fetch(server.url, target, steps.append)
        assert server.starts == [have]
        assert server.num_sent == len(CONTENT) - have
    assert target.read_bytes() == CONTENT
    assert steps[0].done > have


def test_complete_partial_file_needs_no_request(target: Path) -> None:
    partial_of(target).write_bytes(CONTENT)
    assert fetch("http://127.0.0.1:9/x", target).read_bytes() == CONTENT


@pytest.mark.parametrize("cut", [0, 1, 2, 100, 2**16, 2**18 - 1, 2**18, 2**18 + 1, 10**6, len(CONTENT) - 1])
@pytest.mark.parametrize("ranges", [True, False])
def test_download_resumes_after_disconnect(target: Path, cut: int, ranges: bool) -> None:
    with serving(Response(cut_after=cut), Response(ranges=ranges)) as server:
        if cut < 2**14:  # less than one block: no progress, so no retry
            with pytest.raises(DownloadError, match=r"can't fetch .*connection"):
                fetch(server.url, target)
            assert not target.exists()
        fetch(server.url, target)
        assert target.read_bytes() == CONTENT
        assert server.starts[0] == 0
        assert cut - 2**14 < server.starts[1] <= cut


def test_many_disconnects(target: Path) -> None:
    rng = np.random.default_rng(1)
    cuts = [Response(cut_after=int(cut)) for cut in rng.integers(2**14, 2**17, 60)]
    with serving(*cuts) as server:
        fetch(server.url, target)
        assert len(server.starts) > 20
        assert server.starts == sorted(set(server.starts))
        assert server.num_sent <= len(CONTENT) + 2**14 * len(server.starts), "resent at most a block each"
    assert target.read_bytes() == CONTENT


def test_disconnects_without_progress(target: Path) -> None:
    with (
        serving(Response(cut_after=1000, ranges=False)) as server,
        pytest.raises(DownloadError, match="can't fetch"),
    ):
        fetch(server.url, target)
    assert not target.exists()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_transient_errors_are_retried(target: Path, status: int) -> None:
    with serving(Response(status=status, headers={"Retry-After": "36000"}), Response()) as server:
        assert fetch(server.url, target).read_bytes() == CONTENT
        assert server.starts == [0, 0]


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 410, 416, 503])
@pytest.mark.parametrize("have", [0, 1000])
def test_http_errors(target: Path, status: int, have: int) -> None:
    partial_of(target).write_bytes(CONTENT[:have])
    with serving(Response(status=status, headers={"Location": "http://127.0.0.1:9/"})) as server:
        with pytest.raises(DownloadError, match="can't fetch") as caught:
            fetch(server.url, target)
        assert caught.value.hint
    assert status in {301, 416} or str(status) in caught.value.message
    assert not target.exists()
    with serving() as server:
        assert fetch(server.url, target).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "content",
    [
        bytes(len(CONTENT)),
        CONTENT[:-1] + b"!" if CONTENT[-1:] != b"!" else CONTENT[:-1] + b"?",
        CONTENT + b"x",
        CONTENT + CONTENT,
        CONTENT[:-1],
        CONTENT[:1],
        b"",
    ],
    ids=["zeros", "last byte changed", "one byte more", "twice", "one byte less", "one byte", "empty"],
)
@pytest.mark.parametrize("have", [0, 5000])
@pytest.mark.parametrize("ranges", [True, False])
def test_file_with_other_content_is_rejected(target: Path, content: bytes, have: int, ranges: bool) -> None:
    partial_of(target).write_bytes(CONTENT[:have])
    with serving(Response(content=content, ranges=ranges)) as server:
        with pytest.raises(DownloadError, match=r"SHA-256 mismatch|more than the expected|can't fetch"):
            fetch(server.url, target)
        assert not target.exists()
        assert server.num_sent <= 2 * len(CONTENT) + 2**20
    with serving() as server:
        with suppress(DownloadError):  # the wrong partial file may fail verification once
            fetch(server.url, target)
        fetch(server.url, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "content_range",
    ["bytes 0-99/100", "bytes 999-3000000/3000001", "bytes", "", "items 1000-2", "bytes */3000001"],
)
def test_wrong_content_range_is_not_appended(target: Path, content_range: str) -> None:
    partial_of(target).write_bytes(CONTENT[:1000])
    wrong = Response(content_range=content_range or " ")
    with serving(wrong, Response()) as server:
        try:
            fetch(server.url, target)
        except DownloadError:
            assert not target.exists()
            fetch(server.url, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("too_many", [1, 1_000_000])
def test_too_long_partial_file_is_discarded(target: Path, too_many: int) -> None:
    partial_of(target).write_bytes(bytes(len(CONTENT) + too_many))
    with serving() as server:
        assert fetch(server.url, target).read_bytes() == CONTENT
        assert server.starts == [0]


def test_damaged_partial_file_is_discarded(target: Path) -> None:
    partial_of(target).write_bytes(bytes(1000))
    with serving() as server:
        with pytest.raises(DownloadError, match="SHA-256 mismatch"):
            fetch(server.url, target)
        assert not list(target.parent.glob("*.gz*partial"))
        assert fetch(server.url, target).read_bytes() == CONTENT


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:PORT/x",
        "https://127.0.0.1:PORT/x",
        "http://no-such-host.invalid/x",
        "http://" + "a" * 64 + ".invalid/x",
        "http://127.0.0.1:99999/x",
        "http:///x",
        "http://[::1/x",
        "nonsense",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
    ],
)
def test_connection_errors(target: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="can't fetch") as caught:
        fetch(url.replace("PORT", str(free_port())), target)
    assert "download the file yourself" in str(caught.value.hint)
    assert not target.exists()


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x" * 10**5,
    ]
    + [
        b"HTTP/1.1 200 OK\r\n" + line + b"\r\n\r\n" + b"xyz"
        for line in (
            b"Content-Length: -5",
            b"Content-Length: x",
            b"Transfer-Encoding: chunked",
            b"Content-Encoding: gzip",
            b"Content-Length: 3\r\nContent-Length: 4",
        )
    ],
)
def test_invalid_http_responses(target: Path, response: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(2**16)
                    connection.sendall(response)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with pytest.raises(DownloadError, match="can't fetch"):
                fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/x", target)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert not target.exists()


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DownloadError, match="can't write"):
        fetch("http://127.0.0.1:9/x", tmp_path / "file" / "x.tar.gz")


CHILD = """
import sys
from pathlib import Path
from cifarml.data.cifar10.download import download_file
url, target, sha256, size = sys.argv[1:]
download_file(url, Path(target), sha256=sha256, size_bytes=int(size))
"""


def child(url: str, target: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", CHILD, url, str(target), SHA256, str(len(CONTENT))]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(6000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("timeout")


def test_download_resumes_after_kill(target: Path) -> None:
    proceed = threading.Event()
    with serving(Response(wait_after=(2_000_000, proceed)), Response()) as server:
        partial = partial_of(target)
        with child(server.url, target) as process:
            wait_until(lambda: partial.exists() and partial.stat().st_size > 0)
            assert not target.exists()
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
        proceed.set()
        have = partial.stat().st_size
        assert 0 < have <= 2_000_000
        assert fetch(server.url, target).read_bytes() == CONTENT
        assert server.starts == [0, have]


def test_concurrent_processes_share_one_download(target: Path) -> None:
    proceed = threading.Event()
    with serving(Response(wait_after=(1_000_000, proceed)), Response()) as server:
        with child(server.url, target) as first:
            wait_until(lambda: server.num_sent >= 900_000)
            with child(server.url, target) as second:
                with pytest.raises(subprocess.TimeoutExpired):
                    second.wait(2)  # it waits for the first
                proceed.set()
                assert [process.wait(60) for process in (first, second)] == [0, 0]
        assert server.num_sent == len(CONTENT)
        assert server.starts == [0]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT, bytes(170_498_071)], ids=["other size", "right size"])
def test_official_archive_is_verified(own_cache: Path, content: bytes) -> None:
    with serving(Response(content=content)) as server:
        settings = Settings.model_validate({"cache_dir": own_cache, "cifar10_url": server.url})
        with pytest.raises(DownloadError, match=r"SHA-256 mismatch|of 170,498,071 bytes"):
            download_official(settings)
    assert not (own_cache / "cifar-10-python.tar.gz").exists()


def test_cached_official_archive_is_used(settings: Settings) -> None:
    cached = settings.cache_dir / "cifar-10-python.tar.gz"
    cached.write_bytes(b"x")
    assert download_official(settings) == cached
