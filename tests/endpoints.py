"""Helpers for endpoint tests: registered models, faulty scoring scripts and clients."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import urllib3

from cifarml import LocalRegistry, Run
from cifarml.deploy.local.host import SCORE, LocalHost
from cifarml.registry.base import RegisteredModel
from cifarml.run import MANIFEST, write_json, write_manifest
from tests.image_files import image_bytes

FAULTS = {
    "crashes in init": "def init(): raise RuntimeError('no such model here')",
    "exits in init": "def init(): print('going', flush=True); import os; os._exit(9)",
    "no script": "this is no Python (",
    "no init": "answer = ours.answer",
    "crashes": "init = ours.init\ndef answer(requests): raise RuntimeError('oh no')",
    "answers wrong": """
import json
init = ours.init
def answer(requests):
    done = []
    for status, body in ours.answer(requests):
        document = json.loads(body)
        if status == 200:
            names = list(document["probabilities"])
            shares = list(document["probabilities"].values())
            document["probabilities"] = dict(zip(names, shares[1:] + shares[:1]))
        done.append((status, json.dumps(document).encode()))
    return done
""",
    "answers nonsense": "init = ours.init\ndef answer(requests): return [(200, b'[]')] * len(requests)",
    "answers too few": "init = ours.init\ndef answer(requests): return []",
    "hangs": """
import time
init = ours.init
count = 0
def answer(requests):
    global count
    count += 1
    if count > 5:
        time.sleep(3600)
    return ours.answer(requests)
""",
    "leaks": """
init = ours.init
leaked = []
def answer(requests):
    leaked.append(b"x" * 300_000)
    return ours.answer(requests)
""",
    "takes text for images": """
init = ours.init
def answer(requests):
    return [(200, b'{"result": "cat", "probability": 1.0, "probabilities": {"cat": 1.0}}')
            if status == 422 else (status, body) for status, body in ours.answer(requests)]
""",
    "slow": """
import time
init = ours.init
def answer(requests):
    time.sleep(0.2)
    return ours.answer(requests)
""",
    "waits": """
import pathlib
import time
init = ours.init
def answer(requests):
    while not pathlib.Path(__file__).with_name("go").exists():
        time.sleep(0.05)
    return ours.answer(requests)
""",
}
"""Faulty scoring scripts, by fault; ``ours`` is the real script."""

OURS = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("ours", {str(SCORE)!r})
ours = importlib.util.module_from_spec(spec)
import sys
sys.modules["ours"] = ours
spec.loader.exec_module(ours)
"""


def faulty(folder: Path, fault: str) -> Path:
    """Write a scoring script with the given fault."""
    path = folder / f"{fault.replace(' ', '_')}.py"
    path.write_text(OURS + FAULTS[fault])
    return path


def register_copies(run: Run, folder: Path, count: int) -> list[RegisteredModel]:
    """Register a run as versions 1 to ``count``, which differ in an additional file only."""
    registry = LocalRegistry(folder / "registry")
    models: list[RegisteredModel] = []
    for _ in range(count):
        copy = Path(shutil.copytree(run.path, folder / f"copy{len(models) + 1}"))
        (copy / MANIFEST).unlink()
        write_json(copy / "copy.json", str(copy))
        models.append(registry.register(write_manifest(copy, run.class_names, run.info)))
    return models


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json()["error"]["code"])


class Caller:
    """HTTP client of an endpoint."""

    def __init__(self, host: LocalHost, name: str) -> None:
        self.port = int(host.get_endpoint(name).scoring_uri.split(":")[2].split("/")[0])
        self.key = host.read_key(name)
        self.http = urllib3.PoolManager(maxsize=100, retries=False)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        key: str | None = "",
    ) -> Answer:
        shown = {} if key is None else {"authorization": f"Bearer {key or self.key}"}
        response = self.http.request(
            method,
            f"http://127.0.0.1:{self.port}{path}",
            body=body,
            headers=shown | dict(headers or {}),
            timeout=60,
            redirect=False,
        )
        return Answer(response.status, response.headers, response.data)

    def score(self, file: bytes | None = None, **headers: str) -> Answer:
        body = json.dumps({"imagebase64": base64.b64encode(file or image_bytes()).decode()}).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", "/score", body, {"content-type": "application/json"} | named)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def raw(self, sent: bytes) -> bytes:
        """Send raw bytes, and return everything received until the server closes the connection."""
        with self.connect() as connection:
            connection.sendall(sent)
            received = b""
            while block := connection.recv(65536):
                received += block
        return received


class Scored(Protocol):
    """Response to a request."""

    @property
    def status(self) -> int: ...

    @property
    def body(self) -> bytes: ...


class Scorer(Protocol):
    """Client that requests a prediction from an endpoint."""

    def score(self) -> Scored: ...


class Steady:
    """Background load on an endpoint while a block runs; records failed requests."""

    def __init__(self, caller: Scorer, clients: int = 1) -> None:
        self.caller = caller
        self.num_answers = 0
        self.failures: list[str] = []
        self._answered = threading.Condition()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_answers(self, number: int) -> None:
        """Wait until ``number`` more requests have been answered."""
        with self._answered:
            enough = self.num_answers + number
            assert self._answered.wait_for(lambda: self.num_answers >= enough, timeout=60), self.failures

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self.caller.score()
            except (urllib3.exceptions.HTTPError, OSError) as error:
                self.failures.append(repr(error))
            else:
                with self._answered:
                    self.num_answers += 1
                    self._answered.notify_all()
                if answer.status != 200:
                    self.failures.append(f"{answer.status} {answer.body!r}")
            time.sleep(0.03)
