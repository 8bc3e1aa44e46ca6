"""Tests of an endpoint's server over HTTP: routes, access control, limits and concurrency."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifarml import Run, decode_image
from cifarml.cifar10 import CLASS_NAMES
from cifarml.deploy.local.host import LocalHost
from tests.endpoints import Caller, faulty, register_copies
from tests.image_files import image_bytes

PUBLIC = ["/", "/health/live", "/health/ready", "/openapi.json", "/docs", "/samples", "/samples/ship.png"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, trained: Run) -> Iterator[LocalHost]:
    """Host with one endpoint: v1 receives 90 % of the traffic, v2 10 %."""
    host = LocalHost(tmp_path_factory.mktemp("server") / "endpoints", patience_s=1.5)
    host.create_endpoint("live")
    for model in register_copies(trained, tmp_path_factory.mktemp("models"), 2):
        host.create_deployment("live", f"v{model.version}", model)
    host.set_traffic("live", {"v1": 90, "v2": 10})
    yield host
    host.delete("live")


@pytest.fixture(scope="module")
def caller(host: LocalHost) -> Caller:
    return Caller(host, "live")


@pytest.fixture(scope="module")
def folder(host: LocalHost) -> Path:
    return host.folder("live")


def test_score(caller: Caller) -> None:
    answer = caller.score()
    assert answer.status == 200
    document = answer.json()
    assert document["result"] in CLASS_NAMES
    assert document["probability"] == max(document["probabilities"].values())
    assert document["model"]["name"] == "cifar10"
    assert answer.headers["azureml-model-deployment"] == f"v{document['model']['version']}"


def test_raw_image_gives_the_same_prediction(caller: Caller) -> None:
    named = {"azureml-model-deployment": "v1"}
    raw = caller.ask("POST", "/score", image_bytes(), {"content-type": "image/png"} | named)
    assert raw.json() == caller.score(image_bytes(), **named).json()


def test_key_is_required(caller: Caller, host: LocalHost) -> None:
    for method, path in (
        *(("POST", "/score"), ("POST", "/seen"), ("GET", "/metrics")),
        *(("GET", "/control/endpoint"), ("POST", "/control/key"), ("GET", "/none"), ("GET", "//score")),
    ):
        for key in (None, "wrong", caller.key + "x", caller.key[:-1], "ü"):
            refused = caller.ask(method, path, b"", key=key)
            assert refused.status == 401, (path, key)
            assert refused.code == "unauthorized"
            assert caller.key not in refused.body.decode()
    assert caller.ask("GET", "/control/endpoint").status == 401, "a client key is no admin key"
    for scheme in ("Basic ", "bearer", ""):
        assert (
            caller.ask("GET", "/metrics", headers={"authorization": scheme + caller.key}, key=None).status
            == 401
        )
    assert caller.ask("GET", "/metrics", headers={"authorization": f"bearer {caller.key}"}).status == 200


@pytest.mark.parametrize("path", PUBLIC)
def test_public_paths(caller: Caller, path: str) -> None:
    answer = caller.ask("GET", path, key=None)
    assert answer.status in {200, 307}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "server" not in answer.headers


@pytest.mark.parametrize(
    "name", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "", "localhost.", "[::1]"]
)
def test_unknown_host_is_rejected(caller: Caller, name: str) -> None:
    """DNS rebinding: a web page can resolve its own host name to 127.0.0.1."""
    refused = caller.ask("GET", "/health/live", headers={"host": name})
    assert (refused.status, refused.code) == (421, "wrong_host")
    assert caller.ask("GET", "/health/live", headers={"host": f"localhost:{caller.port}"}).status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://localhost"])
def test_cross_origin_request_is_rejected(caller: Caller, origin: str) -> None:
    refused = caller.score(origin=origin)
    assert (refused.status, refused.code) == (403, "wrong_origin")
    assert "access-control-allow-origin" not in refused.headers
    assert caller.score(origin=f"http://127.0.0.1:{caller.port}").status == 200


def test_request_to_a_named_deployment(caller: Caller) -> None:
    for name in ("v1", "v2"):
        assert caller.score(azureml_model_deployment=name).headers["azureml-model-deployment"] == name
    unknown = caller.score(azureml_model_deployment="v3")
    assert (unknown.status, unknown.code) == (404, "unknown_deployment")
    assert "'v3'" in unknown.json()["error"]["message"]


def test_traffic_shares_are_exact(caller: Caller) -> None:
    answered = [caller.score().headers["azureml-model-deployment"] for _ in range(100)]
    assert answered.count("v2") == 10


def test_body_too_large(caller: Caller) -> None:
    refused = caller.ask("POST", "/score", b"x" * ((16 << 20) + 1))
    assert (refused.status, refused.code) == (413, "too_large")
    head = f"POST /score HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {caller.key}\r\n"
    received = caller.raw(f"{head}content-length: 99999999999999999999999\r\n\r\n".encode())
    assert b"400" in received.split(b"\r\n")[0] or b"413" in received.split(b"\r\n")[0]
    with caller.connect() as connection:  # no Content-Length
        connection.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        try:
            for _ in range(17 * 16):
                connection.sendall(chunk)
            received = connection.recv(65536)
        except ConnectionError:
            received = b"HTTP/1.1 413 "
    assert received.startswith(b"HTTP/1.1 413 ")
    assert caller.score().status == 200


def test_headers_too_large(caller: Caller) -> None:
    for header in (b"x: " + b"y" * 40_000, b"\r\n".join(b"x%d: y" % i for i in range(8000))):
        received = caller.raw(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n" + header + b"\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 431 ")
        assert b"headers_too_large" in received
    with caller.connect() as connection, pytest.raises(ConnectionError):  # a header that never ends
        connection.sendall(b"GET / HTTP/1.1\r\nx: " + b"y" * 10_000_000)
    chunked = b"POST /score HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
    with caller.connect() as connection, pytest.raises(ConnectionError):  # trailers that never end
        connection.sendall(chunked + b"x: y\r\n" * 2_000_000)
    assert caller.raw(b"\x16\x03\x01 this is TLS\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_large_body_with_a_wrong_key(caller: Caller) -> None:
    """The client can send the whole body and then reads the error response."""
    refused = caller.ask("POST", "/score", b"x" * (12 << 20), key="wrong")
    assert (refused.status, refused.code) == (401, "unauthorized")


def test_too_many_connections(tmp_path: Path) -> None:
    host = LocalHost(tmp_path / "endpoints", patience_s=60)
    host.create_endpoint("full")
    try:
        caller = Caller(host, "full")
        assert caller.ask("GET", "/health/live", key=None).status == 200
        with contextlib.ExitStack() as stack:
            for _ in range(512):
                stack.enter_context(caller.connect())
            assert caller.raw(b"").startswith(b"HTTP/1.1 503 ")
            assert caller.ask("GET", "/health/live", key=None).status == 200, "over the open connection"
    finally:
        host.delete("full")


def test_request_ids(caller: Caller, folder: Path) -> None:
    assert caller.score(x_request_id="my-request.1").headers["x-request-id"] == "my-request.1"
    for wrong in ("", "a b", "x" * 65, '"', "ü"):
        made = caller.score(x_request_id=wrong).headers["x-request-id"]
        assert made != wrong
        assert len(made) == 16
    write_log(caller)
    lines = [json.loads(line) for line in (folder / "access.log").read_text().splitlines()]
    (line,) = (line for line in lines if line["request_id"] == "my-request.1")
    assert (line["status"], line["path"]) == (200, "/score")
    assert line["deployment"] in {"v1", "v2"}


def test_no_secret_or_image_is_logged(caller: Caller, host: LocalHost, folder: Path) -> None:
    marked = b"\x89PNG" + b"marked image" * 20
    caller.ask("POST", f"/score?key={caller.key}", marked)
    caller.ask("GET", f"/{caller.key}"[:10], key=None)
    caller.ask("POST", "/score", json.dumps({"imagebase64": base64.b64encode(marked).decode()}).encode())
    write_log(caller)
    assert not folder.stat().st_mode & 0o077, "only the owner can open it"
    assert not (folder / "key").stat().st_mode & 0o077
    shown = repr(host.get_endpoint("live")) + repr(host.list_endpoints())
    control_key = json.loads((folder / "server.json").read_text())["control_key"]
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert (caller.key.encode() in content) == (path.name == "key"), path
            assert (control_key.encode() in content) == (path.name == "server.json"), path
            assert b"marked image" not in content
            assert base64.b64encode(b"marked image" * 20)[8:60] not in content
    assert caller.key not in shown
    assert control_key not in shown
    pid = json.loads((folder / "server.json").read_text())["pid"]
    for about in ("cmdline", "environ"):
        content = Path(f"/proc/{pid}/{about}").read_bytes()
        assert caller.key.encode() not in content
        assert control_key.encode() not in content


def test_new_key_invalidates_the_old_one(host: LocalHost, caller: Caller) -> None:
    old = caller.key
    caller.key = host.read_key("live", regenerate=True)
    assert caller.score().status == 200
    assert caller.ask("GET", "/metrics", key=old).status == 401


def test_metrics(caller: Caller) -> None:
    label = caller.score(azureml_model_deployment="v2").json()["result"]
    caller.ask("POST", "/score", b"{", {"content-type": "application/json", "azureml-model-deployment": "v2"})
    answer = caller.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    figures = dict(
        line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#")
    )
    assert float(figures['cifarml_requests_total{deployment="v2",status="200"}']) >= 1
    assert float(figures['cifarml_requests_total{deployment="v2",status="400"}']) >= 1
    assert float(figures[f'cifarml_predictions_total{{deployment="v2",label="{label}"}}']) >= 1
    assert float(figures['cifarml_request_seconds_bucket{deployment="v2",le="+Inf"}']) >= 2
    assert figures['cifarml_model_info{deployment="v1",model="cifar10",version="1"}'] == "1.0"
    assert figures['cifarml_traffic_percent{deployment="v2"}'] == "10.0"


def test_seen(caller: Caller) -> None:
    file = image_bytes(3, "JPEG", (200, 100))
    seen = caller.ask("POST", "/seen", file)
    assert (seen.status, seen.headers["content-type"]) == (200, "image/png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(seen.body))), decode_image(file))
    refused = caller.ask("POST", "/seen", b"no image")
    assert (refused.status, refused.code) == (422, "not_an_image")


def test_samples(caller: Caller) -> None:
    assert caller.ask("GET", "/samples", key=None).json() == list(CLASS_NAMES)
    files = [caller.ask("GET", f"/samples/{name}.png", key=None) for name in CLASS_NAMES]
    assert all(file.headers["content-type"] == "image/png" for file in files)
    assert len({file.body for file in files}) == 10
    assert decode_image(files[0].body).shape == (32, 32, 3)
    assert caller.ask("GET", "/samples/unicorn.png").status == 404


def test_unknown_path_or_method(caller: Caller) -> None:
    for method, path, status, code in (
        ("GET", "/none", 404, "not_found"),
        ("GET", "/score", 405, "wrong_method"),
        ("DELETE", "/", 405, "wrong_method"),
        ("POST", "/metrics", 405, "wrong_method"),
    ):
        answer = caller.ask(method, path)
        assert (answer.status, answer.code) == (status, code)


def test_a_hundred_concurrent_clients(caller: Caller) -> None:
    with ThreadPoolExecutor(100) as pool:
        answers = list(
            pool.map(lambda number: (number % 7, caller.score(image_bytes(number % 7))), range(600))
        )
    assert {answer.status for _, answer in answers} == {200}
    by_image = {(number, json.dumps(answer.json()["probabilities"])) for number, answer in answers}
    assert len({number for number, _ in by_image}) == 7
    for number, shares in by_image:  # batching does not mix up responses
        alone = caller.score(image_bytes(number)).json()["probabilities"]
        assert json.loads(shares) == pytest.approx(alone, abs=1e-5)


def test_full_queue_returns_429(host: LocalHost, caller: Caller, trained: Run, tmp_path: Path) -> None:
    """Requests beyond the queue limit get 429 with Retry-After; queued ones succeed."""
    slow = LocalHost(host.folder("live").parent, script=faulty(tmp_path, "waits"))
    slow.create_deployment("live", "slow", register_copies(trained, tmp_path, 1)[0])
    go = tmp_path / "go"
    with ThreadPoolExecutor(400) as pool:
        futures = [pool.submit(caller.score, azureml_model_deployment="slow") for _ in range(400)]
        next(as_completed(futures))  # the script waits for go, so the first to complete was rejected
        go.touch()
        answers = [future.result() for future in futures]
    host.delete("live", "slow")
    refused = [answer for answer in answers if answer.status != 200]
    assert {(answer.status, answer.code) for answer in refused} == {(429, "busy")}
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert caller.score().status == 200


def test_slow_clients_are_disconnected(caller: Caller) -> None:
    """Many connections that send a byte now and then (slowloris) block no one else, and are closed."""
    connections = [caller.connect() for _ in range(60)]
    head = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n"
    body = f"POST /score HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {caller.key}\r\n".encode()
    closed: dict[int, bytes] = {}
    for number, connection in enumerate(connections):
        connection.settimeout(0.001)
        connection.sendall((b"", head, body + b"content-length: 1000\r\n\r\n")[number % 3])
    while len(closed) < len(connections):
        assert caller.score().status == 200
        for number, connection in enumerate(connections):
            try:
                connection.sendall(b"x")
                closed.setdefault(number, connection.recv(4096))
            except TimeoutError:
                pass
            except ConnectionError:
                closed.setdefault(number, b"")
    for connection in connections:
        connection.close()
    assert sum(b"408" in received for received in closed.values()) > 30


def write_log(caller: Caller) -> None:
    """Fill the buffer of the access log, so that all earlier lines are written."""
    for _ in range(201):
        caller.ask("GET", "/health/live", key=None)
