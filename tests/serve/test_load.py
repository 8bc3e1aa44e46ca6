"""Load, fuzz and recovery tests of an endpoint."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest

from cifarml import Run
from cifarml.deploy.local.host import LocalHost
from cifarml.errors import DeployError
from cifarml.serve.endpoint_folder import EndpointFolder
from tests.endpoints import Caller, Steady, register_copies
from tests.goldens import Golden, colour_run, goldens, plain, requests
from tests.mutations import check, mutated_request, sample_images

NUM_REQUESTS = 12_000
NUM_CLIENTS = 8
NUM_ROUNDS = 4
MAX_GROWTH_BYTES = 8 << 20


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHost]:
    """Host with an endpoint that serves the model of the goldens."""
    host = LocalHost(tmp_path_factory.mktemp("load") / "endpoints")
    host.create_endpoint("live")
    run = colour_run(tmp_path_factory.mktemp("model") / "colours")
    host.create_deployment("live", "v3", register_copies(run, tmp_path_factory.mktemp("models"), 3)[2])
    host.set_traffic("live", {"v3": 100})
    yield host
    host.delete("live")


def kill_server(host: LocalHost) -> None:
    process = psutil.Process(server_pid(host))
    process.kill()
    psutil.wait_procs([process], timeout=10)


def server_pid(host: LocalHost) -> int:
    server = EndpointFolder(host.folder("live")).running_server()
    assert server is not None
    return server.pid


def processes(host: LocalHost) -> list[psutil.Process]:
    """Return the server process and its workers."""
    server = psutil.Process(server_pid(host))
    return [server, *server.children(recursive=True)]


@pytest.mark.parametrize("golden", goldens(), ids=lambda golden: golden.name)
def test_goldens(host: LocalHost, golden: Golden) -> None:
    """Responses equal those of score.py; a body that is too large is rejected before it is read."""
    if golden.name.startswith("too_large"):
        refused = Caller(host, "live").raw(
            b"POST /score HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\nauthorization: Bearer "
            + f"{host.read_key('live')}\r\ncontent-length: {len(golden.body)}\r\n\r\n".encode()
        )
        assert refused.startswith(b"HTTP/1.1 413 ")
        assert b'"too_large"' in refused
        return
    headers = {"content-type": golden.content_type} if golden.content_type else {}
    answer = Caller(host, "live").ask("POST", "/score", golden.body, headers)
    golden.check(answer.status, answer.body)


class Client:
    """Client that sends mutated requests over one keep-alive connection."""

    def __init__(self, caller: Caller, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        small = [request for request in requests().values() if len(request[1]) < 20_000]
        self.seeds = [*small, *((f"image/{kind}", file) for kind, file in sample_images().items())]
        self.caller = caller
        self.codes: Counter[str] = Counter()

    def run(self, num_requests: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.caller.port, timeout=60)
        for _ in range(num_requests):
            kind, body = mutated_request(self.rng, self.seeds)
            headers = {"authorization": f"Bearer {self.caller.key}"}
            if kind.isprintable() and kind.isascii() and kind:
                headers["content-type"] = kind
            connection.request("POST", "/score", body, headers)
            response = connection.getresponse()
            self.codes[check(response.status, response.read())] += 1
        connection.close()


def test_mutated_requests_over_http(host: LocalHost) -> None:
    """Responses follow the schema, none is a 5xx, no process is replaced, and memory does not leak.

    Memory may grow in one round if more requests coincide than before; a leak grows in every round.
    """
    caller = Caller(host, "live")
    clients = [Client(caller, seed) for seed in range(NUM_CLIENTS)]

    before = [each.pid for each in processes(host)]
    memory_bytes = []
    for _ in range(NUM_ROUNDS):
        with ThreadPoolExecutor(NUM_CLIENTS) as pool:
            list(pool.map(lambda client: client.run(NUM_REQUESTS // NUM_ROUNDS // NUM_CLIENTS), clients))
        memory_bytes.append(sum(each.memory_info().rss for each in processes(host)))
    codes = sum((client.codes for client in clients), Counter())
    assert sum(codes.values()) == NUM_REQUESTS
    assert codes["an image"] > NUM_REQUESTS / 50
    assert len(codes) > 8, codes
    assert [each.pid for each in processes(host)] == before
    assert min(after - before for before, after in pairwise(memory_bytes)) < MAX_GROWTH_BYTES, memory_bytes


def test_openapi_document(host: LocalHost) -> None:
    """Schemathesis sends valid and invalid requests; responses conform to the OpenAPI document."""
    caller = Caller(host, "live")
    checks = (
        "not_a_server_error,status_code_conformance,content_type_conformance,"
        "response_headers_conformance,response_schema_conformance,ignored_auth"
    )
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("st"), "run", f"http://127.0.0.1:{caller.port}/openapi.json"),
            *("--header", f"Authorization: Bearer {caller.key}", "--checks", checks),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", "100", "--seed", "1"),
            *("--suppress-health-check", "all", "--no-color"),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=host.folder("live").parent.parent,
    )
    assert done.returncode == 0, done.stdout.replace(caller.key, "KEY")[-6000:]


def test_restart_after_a_kill_under_load(host: LocalHost) -> None:
    """Address, key, deployments and traffic are restored; only requests in flight fail."""
    caller = Caller(host, "live")
    workers = processes(host)[1:]
    with Steady(caller, clients=8) as steady:
        steady.wait_for_answers(8)
        kill_server(host)
        endpoint = host.start("live")
        failed = len(steady.failures)
        steady.wait_for_answers(100)
        assert len(steady.failures) <= failed + 8, "only requests in flight"
    assert endpoint.scoring_uri.endswith(f":{caller.port}/score")
    assert host.get_endpoint("live").traffic == {"v3": 100}
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == [], "the workers exited with the server"


def test_restart_on_another_port(host: LocalHost) -> None:
    port = Caller(host, "live").port
    kill_server(host)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        host.start("live")
        assert Caller(host, "live").port != port
        assert Caller(host, "live").score(plain("ship")).json()["result"] == "ship"


def test_model_damaged_on_disk(host: LocalHost, tmp_path: Path) -> None:
    """It fails to start, with the reason in its log; the other deployment handles all requests."""
    other = register_copies(colour_run(tmp_path / "colours"), tmp_path, 4)[3]
    host.create_deployment("live", "other", other)
    host.set_traffic("live", {"v3": 50, "other": 50})
    (model,) = (host.folder("live") / "deployments" / "other").rglob("model.onnx")
    damaged = bytearray(model.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    model.chmod(0o600)
    model.write_bytes(damaged)
    kill_server(host)
    host.start("live")
    caller = Caller(host, "live")
    assert {caller.score(plain("frog")).json()["model"]["version"] for _ in range(10)} == {"3"}
    assert "SHA-256" in host.logs("live", "other")
    refused = caller.score(plain("frog"), azureml_model_deployment="other")
    assert refused.status == 503
    with pytest.raises(DeployError):
        host.set_traffic("live", {"other": 100})
    host.set_traffic("live", {"v3": 100})
    host.delete("live", "other")


def test_full_disk(host: LocalHost, trained: Run, tmp_path: Path) -> None:
    """Deploying on a full disk (simulated by a 64 kB file size limit) fails and changes nothing."""
    register_copies(trained, tmp_path, 1)
    code = f"""
import resource
from pathlib import Path
from cifarml import LocalHost, LocalRegistry, deploy_model
from cifarml.errors import DeployError
model = LocalRegistry({str(tmp_path / "registry")!r}).get()
resource.setrlimit(resource.RLIMIT_FSIZE, (64_000, 64_000))
host = LocalHost(Path({str(host.folder("live").parent)!r}))
try:
    deploy_model(host, model, name="live")
except DeployError as error:
    print(error.message)
"""
    before = sorted(path.name for path in (host.folder("live") / "deployments").iterdir())
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert "File too large" in done.stdout, done.stderr
    assert sorted(path.name for path in (host.folder("live") / "deployments").iterdir()) == before
    assert [each.name for each in host.get_endpoint("live").deployments] == ["v3"]
    assert Caller(host, "live").score(plain("dog")).json()["result"] == "dog"


def test_clock_set_back(host: LocalHost, tmp_path: Path) -> None:
    """An endpoint works even if its files have modification times in the future."""
    for path in host.folder("live").rglob("*"):
        os.utime(path, (time.time() + 86_400,) * 2, follow_symlinks=False)
    assert host.get_endpoint("live").traffic == {"v3": 100}
    assert host.start("live").deployments[0].state == "ready"
    assert Caller(host, "live").score(plain("cat")).json()["result"] == "cat"
