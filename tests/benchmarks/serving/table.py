"""Load test of all servers in turn, in rounds: ``python -m tests.benchmarks serving``."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
from PIL import Image

from tests.benchmarks.serving.load import Load, put_under_load
from tests.environments import environment
from tests.inference_server import InferenceServer, free_port

HERE = Path(__file__).parent
END_WITH_PARENT = 'exec 3<&0; "$@" & p=$!; read -r _ <&3; kill -TERM $p; wait'
CLIENTS = 16
ROUNDS = 3
SECONDS = 5.0
Served = contextlib.AbstractContextManager[tuple[int, bytes]]


def serving(work: Path) -> None:
    """Latency with one client and throughput with 16, of cifarml, the article's script and peers."""
    from cifarml import TrainConfig, load_dataset, train_model
    from cifarml.deploy.azure.staging import stage_scoring

    run = train_model(TrainConfig(num_epochs=1), load_dataset("drawn:200"), work / "cifar10" / "1")
    stage_scoring(work / "code")
    file = io.BytesIO()
    Image.fromarray(load_dataset("drawn:200").images[0]).save(file, "PNG")
    image = file.getvalue()
    body = json.dumps({"imagebase64": base64.b64encode(image).decode()}).encode()
    servers: dict[str, Callable[[], Served]] = {
        "ours": lambda: _ours(work, body),
        "the article's script in azureml-inference-server-http": lambda: _article(work, body),
        "our script in azureml-inference-server-http": lambda: _inference_server(work, body),
        "LitServe": lambda: _litserve(work, body),
        "BentoML": lambda: _bentoml(work, body),
        "mlflow models serve": lambda: _mlflow(work, image),
    }
    alone: dict[str, list[Load]] = {name: [] for name in servers}
    many: dict[str, list[Load]] = {name: [] for name in servers}
    for _ in range(ROUNDS):
        for name, serve in servers.items():
            with serve() as (port, request):
                put_under_load(port, request, clients=4, seconds=1.0)  # warm
                alone[name].append(put_under_load(port, request, clients=1, seconds=SECONDS))
                many[name].append(put_under_load(port, request, clients=CLIENTS, seconds=SECONDS))
    print("\n| server | p50, one client | p99, one client | requests/s, 16 clients | errors |")
    print("|---|---|---|---|---|")
    for name in servers:
        p50, p99 = (statistics.median(load.percentile_ms(p) for load in alone[name]) for p in (50, 99))
        rates = [load.rate for load in many[name]]
        errors = sum(load.num_errors for load in (*alone[name], *many[name]))
        print(
            f"| {name} | {p50:.2f} ms | {p99:.2f} ms "
            f"| {statistics.median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f}) | {errors} |",
            flush=True,
        )
    article = "the article's script in azureml-inference-server-http"
    faster = [
        a.percentile_ms(50) / o.percentile_ms(50) for a, o in zip(alone[article], alone["ours"], strict=True)
    ]
    more = [o.rate / a.rate for a, o in zip(many[article], many["ours"], strict=True)]
    print(
        f"\nAgainst the article's in the same round: latency 1/{min(faster):.0f} to 1/{max(faster):.0f} "
        f"(bar 1/45), rate {min(more):.0f} to {max(more):.0f} times (bar 60)."
    )
    inside = _in_process_ms(run.path, body)
    over = statistics.median(load.percentile_ms(50) for load in alone["ours"]) - inside
    print(f"A prediction takes {inside:.2f} ms in process; HTTP adds {over:.2f} ms (bar 2).")
    _deploy(work, run.path)


def long_run(work: Path, seconds: float = 600.0) -> None:
    """Ten minutes at 80 % of the maximum throughput: errors, p99 against p50, memory."""
    from cifarml import TrainConfig, load_dataset, train_model

    train_model(TrainConfig(num_epochs=1), load_dataset("drawn:200"), work / "cifar10" / "1")
    file = io.BytesIO()
    Image.fromarray(load_dataset("drawn:200").images[0]).save(file, "PNG")
    body = json.dumps({"imagebase64": base64.b64encode(file.getvalue()).decode()}).encode()
    with _ours(work, body) as (port, request):
        put_under_load(port, request, clients=CLIENTS, seconds=SECONDS)
        highest = put_under_load(port, request, clients=CLIENTS, seconds=SECONDS).rate
        server = next(
            psutil.Process(each.pid)
            for each in psutil.net_connections("tcp")
            if each.laddr and each.laddr.port == port and each.status == psutil.CONN_LISTEN
        )
        processes = [server, *server.children(recursive=True)]
        put_under_load(port, request, clients=CLIENTS, seconds=seconds / 20, rate=0.8 * highest)
        before = sum(each.memory_info().rss for each in processes)
        load = put_under_load(port, request, clients=CLIENTS, seconds=seconds, rate=0.8 * highest)
        after = sum(each.memory_info().rss for each in processes)
    p50, p99 = load.percentile_ms(50), load.percentile_ms(99)
    print(
        f"\n{load.seconds / 60:.1f} minutes at {load.rate:,.0f} requests/s (80 % of {highest:,.0f}): "
        f"{load.num_errors} errors, p50 {p50:.2f} ms, p99 {p99:.2f} ms ({p99 / p50:.1f} times; bar 10), "
        f"memory {before / 1e6:.0f} MB, then {after / 1e6:.0f} MB ({after / before - 1:+.1%}; bar 5 %)."
    )


def _http(path: str, body: bytes, *more: str) -> bytes:
    head = (f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *more)
    return "\r\n".join((*head, f"Content-Length: {len(body)}", "", "")).encode() + body


@contextlib.contextmanager
def _ours(work: Path, body: bytes) -> Iterator[tuple[int, bytes]]:
    from cifarml import LocalHost, LocalRegistry, deploy_model

    host = LocalHost(work / "endpoints")
    model = LocalRegistry(work / "registry").register(work / "cifar10" / "1")
    endpoint = deploy_model(host, model, name="load")
    try:
        port = int(endpoint.scoring_uri.split(":")[2].split("/")[0])
        yield port, _http("/score", body, f"Authorization: Bearer {host.read_key('load')}")
    finally:
        host.delete("load")


@contextlib.contextmanager
def _inference_server(work: Path, body: bytes) -> Iterator[tuple[int, bytes]]:
    home = work / "home"
    home.mkdir(exist_ok=True)
    code = work / "code"
    server = InferenceServer(code, code / "cifarml" / "scoring" / "score.py", work / "cifar10" / "1", home)
    try:
        yield server.port, _http("/score", body)
    finally:
        server.close()


@contextlib.contextmanager
def _process(
    command: list[object], folder: Path, port: int, variables: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a server until the block ends; enter the block once it listens."""
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["sh", "-c", END_WITH_PARENT, "sh", *map(str, command)],
            cwd=folder,
            env=os.environ | dict(variables or {}),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 90
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{command[0]} does not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        time.sleep(2)  # some servers listen before they are ready
        yield
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def _scoring(work: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(work / "code"), "AZUREML_MODEL_DIR": str(work / "cifar10" / "1")}


@contextlib.contextmanager
def _article(work: Path, body: bytes) -> Iterator[tuple[int, bytes]]:
    folder = work / "article"
    folder.mkdir(exist_ok=True)
    shutil.copy(HERE / "article_score.py", folder / "score.py")
    port = free_port()
    programs = environment("article-server")
    variables = {
        "AZUREML_MODEL_DIR": str(work / "cifar10" / "1"),
        "AML_APP_ROOT": str(folder),
        "HOME": str(folder),
    }
    command: list[object] = [programs / "azmlinfsrv", "--entry_script", "score.py", "--port", port]
    with _process(command, folder, port, variables | {"TF_CPP_MIN_LOG_LEVEL": "3"}):
        yield port, _http("/score", body)


@contextlib.contextmanager
def _litserve(work: Path, body: bytes) -> Iterator[tuple[int, bytes]]:
    folder, port = work / "litserve", free_port()
    folder.mkdir(exist_ok=True)
    programs = environment("serving-peers")
    with _process([programs / "python", HERE / "peer_litserve.py", port], folder, port, _scoring(work)):
        yield port, _http("/score", body)


@contextlib.contextmanager
def _bentoml(work: Path, body: bytes) -> Iterator[tuple[int, bytes]]:
    folder, port = work / "bentoml", free_port()
    folder.mkdir(exist_ok=True)
    shutil.copy(HERE / "peer_bentoml.py", folder / "service.py")
    variables = _scoring(work) | {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(folder)}
    command: list[object] = [
        environment("serving-peers") / "bentoml",
        "serve",
        "service:Cifar10",
        "--port",
        port,
    ]
    with _process([*command, "--host", "127.0.0.1"], folder, port, variables):
        yield port, _http("/score", body)


@contextlib.contextmanager
def _mlflow(work: Path, image: bytes) -> Iterator[tuple[int, bytes]]:
    folder, port = work / "mlflow", free_port()
    folder.mkdir(exist_ok=True)
    programs = environment("serving-peers")
    variables = _scoring(work) | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }
    if not (folder / "model").is_dir():
        save = (
            f"import mlflow; mlflow.pyfunc.save_model('model', python_model={str(HERE / 'peer_mlflow.py')!r})"
        )
        subprocess.run(
            [programs / "python", "-c", save],
            cwd=folder,
            env=os.environ | variables,
            check=True,
            capture_output=True,
        )
    command: list[object] = [programs / "mlflow", "models", "serve", "-m", "model", "--env-manager", "local"]
    body = json.dumps({"dataframe_records": [{"imagebase64": base64.b64encode(image).decode()}]}).encode()
    with _process([*command, "--port", port, "--workers", 1], folder, port, variables):
        yield port, _http("/invocations", body)


def _in_process_ms(model: Path, body: bytes) -> float:
    code = f"""
import statistics, time
from cifarml.scoring import score
score.init()
body, times = {body!r}, []
for _ in range(2000):
    started = time.perf_counter()
    score.answer([("application/json", body)])
    times.append(time.perf_counter() - started)
print(statistics.median(times) * 1000)
"""
    variables = os.environ | {"AZUREML_MODEL_DIR": str(model)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def _deploy(work: Path, run: Path, times: int = 5) -> None:
    """Print the duration of ``cifarml deploy`` for a first deployment."""
    cli = Path(sys.executable).with_name("cifarml")
    variables = os.environ | {
        "CIFARML_REGISTRY_DIR": str(work / "registry"),
        "CIFARML_ENDPOINTS_DIR": str(work / "live"),
    }
    subprocess.run([cli, "models", "register", run], env=variables, check=True, capture_output=True)
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run([cli, "deploy"], env=variables, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
        subprocess.run([cli, "endpoint", "delete", "cifar10"], env=variables, check=True, capture_output=True)
    print(
        f"Duration of `cifarml deploy`, smoke test included: "
        f"{statistics.median(seconds):.1f} s ({min(seconds):.1f}-{max(seconds):.1f}; bar 5)."
    )
