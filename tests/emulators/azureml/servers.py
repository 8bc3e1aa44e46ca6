"""Pool of inference servers, reused by deployments with the same content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import requests

from tests.inference_server import command, free_port, variables

MAX_RUNNING = 6

# Terminates the server when standard input is closed; exits with the server's exit code.
WATCHED = (
    'exec 3<&0; "$@" 3<&- & child=$!; (read -r _ <&3; kill -TERM $child) & reader=$!; '
    "wait $child; code=$?; kill $reader 2>/dev/null; exit $code"
)
_PRIVATE = ("AZURE", "MLFLOW", "HTTP_PROXY", "HTTPS_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


class CrashedError(Exception):
    """The container did not start; the message is its log."""


def hash_tree(path: Path) -> str:
    """Return the hash of a file, or of all names and contents in a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"{file.relative_to(path.parent).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def plain_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without proxies, addresses and credentials of the cloud."""
    return {name: value for name, value in environment.items() if not name.upper().startswith(_PRIVATE)}


class Server:
    """Process of the real inference server."""

    def __init__(
        self, folder: Path, script: str, model_dir: Path, extra: Mapping[str, str], timeout_s: float
    ) -> None:
        self.port = free_port()
        self.used = time.monotonic()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        code, home = folder / "code", folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        environment = plain_environment(variables(code, model_dir, home))
        environment |= {"AZUREML_MODEL_DIR": str(model_dir), **extra}
        self._process = subprocess.Popen(
            ["sh", "-c", WATCHED, "sh", *command(code, code / script, self.port)],
            cwd=code,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._wait(timeout_s)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def _wait(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        with requests.Session() as session:
            session.trust_env = False
            while time.monotonic() < deadline and self.is_running:
                try:
                    if session.get(f"http://127.0.0.1:{self.port}/", timeout=1).ok:
                        return
                except requests.RequestException:
                    time.sleep(0.05)
        raise CrashedError(self.log())

    def log(self) -> str:
        """Return the output of the server."""
        if self._log.closed:
            return self._last
        return os.pread(self._log.fileno(), 1 << 22, 0).decode(errors="replace")

    def close(self) -> None:
        if self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._last = self.log()
        self._log.close()


class Servers:
    """Pool of servers; the least recently used one that is idle is stopped to make room."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, Server] = {}
        self.num_started = 0
        self._lock = threading.Lock()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def get(
        self,
        code: Path,
        script: str,
        model: Path,
        named: tuple[str, str],
        extra: Mapping[str, str],
        timeout_s: float,
        in_use: set[int],
    ) -> Server:
        """Return a running server with this content.

        Args:
            code: The code folder.
            script: The scoring script, relative to it.
            model: The model's file or folder.
            named: The model's name and version, which name its folder.
            extra: Environment variables of the deployment.
            timeout_s: Timeout of the startup.
            in_use: IDs of servers that deployments use; they are not stopped.

        Raises:
            CrashedError: If it exits, or is not ready in time.
        """
        text = json.dumps([hash_tree(code), hash_tree(model), script, named, sorted(extra.items())])
        key = hashlib.sha256(text.encode()).hexdigest()[:20]
        with self._locks[key]:
            server = self.running.get(key)
            if server and server.is_running:
                server.used = time.monotonic()
                return server
            folder = self.folder / key
            shutil.rmtree(folder, ignore_errors=True)
            model_dir = folder / "azureml-models" / named[0] / named[1]
            shutil.copytree(code, folder / "code")
            if model.is_dir():
                shutil.copytree(model, model_dir / model.name)
            else:
                model_dir.mkdir(parents=True)
                shutil.copy(model, model_dir)
            self._make_room(in_use)
            self.num_started += 1
            server = Server(folder, script, model_dir, extra, timeout_s)
            self.running[key] = server
            return server

    def _make_room(self, in_use: set[int]) -> None:
        with self._lock:
            by_age = sorted(self.running.items(), key=lambda item: item[1].used)
            idle = [(key, server) for key, server in by_age if id(server) not in in_use]
            while len(self.running) >= MAX_RUNNING and idle:
                key, server = idle.pop(0)
                del self.running[key]
                server.close()

    def close(self) -> None:
        for server in self.running.values():
            server.close()
        self.running.clear()
