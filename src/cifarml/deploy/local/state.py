"""Read the state of local endpoints, and lock them for changes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from cifarml.deploy.base import Deployment, Endpoint, EndpointHost
from cifarml.deploy.local.server_client import ServerClient
from cifarml.errors import DeployError
from cifarml.locks import OnWait, ProcessLock
from cifarml.paths import expand_home
from cifarml.serve.endpoint_folder import (
    ENDPOINT_RECORD,
    HOST,
    LOCKS,
    EndpointFolder,
    EndpointRecord,
    ServerRecord,
    check_endpoint_name,
)
from cifarml.settings import load_settings


class LocalEndpoints(EndpointHost):
    """Reads the endpoints in a folder, and starts their servers.

    Args:
        endpoints_dir: Folder of the endpoints; by default the setting ``endpoints_dir``.
        on_wait: Called with a line of text while another process changes an endpoint.
    """

    def __init__(self, endpoints_dir: Path | None = None, on_wait: OnWait = lambda _: None) -> None:
        self._dir = expand_home(endpoints_dir or load_settings().endpoints_dir).absolute()
        self._on_wait = on_wait
        self._server = ServerClient()

    def folder(self, name: str) -> Path:
        """Return the folder of an endpoint.

        Raises:
            DeployError: If the endpoint does not exist.
        """
        return self._folder(name).path

    def list_endpoints(self) -> list[Endpoint]:
        """Return all endpoints, sorted by name; the state of an unreadable endpoint is `damaged`."""
        if not self._dir.is_dir():
            return []
        found = []
        for path in sorted(self._dir.iterdir()):
            if EndpointFolder(path).exists():
                try:
                    found.append(self.get_endpoint(path.name))
                except DeployError:
                    found.append(Endpoint(path.name, "", "damaged", {}, ()))
        return found

    def get_endpoint(self, name: str) -> Endpoint:
        """Return an endpoint, with its deployments and traffic.

        Args:
            name: Name of the endpoint.

        Raises:
            DeployError: If it does not exist or can't be read.
        """
        folder = self._folder(name)
        record, live = folder.read(), {}
        server = folder.running_server()
        if server is not None:
            about = self._server.control(folder, server, "GET", "endpoint")
            record, live = ENDPOINT_RECORD.validate_python(about["record"]), about["live"]
        return _endpoint(name, record, live, running=server is not None)

    def _folder(self, name: str) -> EndpointFolder:
        folder = EndpointFolder(self._dir / check_endpoint_name(name))
        if not folder.exists():
            raise DeployError(
                f"there is no endpoint {name} on this machine",
                hint="list them with: cifarml endpoint list; create one with: cifarml deploy",
            )
        return folder

    @contextmanager
    def changing(
        self,
        endpoint: str,
        operation: str,
        *,
        lasts_s: float | None = None,  # noqa: ARG002
        on_wait: OnWait | None = None,
    ) -> Iterator[None]:
        """Prevent other processes from changing an endpoint in the block; wait while one does.

        Args:
            endpoint: Name of the endpoint, which need not exist.
            operation: The operation, which other processes report while they wait.
            lasts_s: Not used: the lock is released when this process ends.
            on_wait: Called instead of the host's ``on_wait``.

        Raises:
            DeployError: If another process changes the endpoint for too long.
        """
        name = check_endpoint_name(endpoint)
        with self._locked(f"{name}.lock", f"endpoint {name}", operation, on_wait):
            yield

    @contextmanager
    def _changing_existing(self, name: str, operation: str) -> Iterator[EndpointFolder]:
        self._folder(name)  # raises before a lock file is created
        with self.changing(name, operation):
            yield self._folder(name)

    @contextmanager
    def _starting(self, operation: str) -> Iterator[None]:
        """Prevent other processes from starting or stopping servers."""
        with self._locked(".servers.lock", "the servers of the endpoints", operation):
            yield

    @contextmanager
    def _locked(self, file: str, what: str, operation: str, on_wait: OnWait | None = None) -> Iterator[None]:
        folder = self._dir / LOCKS
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (folder / file).open("ab"):  # raises if it isn't writable
                pass
        except OSError as error:
            raise DeployError(
                f"can't write to {self._dir}: {error.strerror}",
                hint="set CIFARML_ENDPOINTS_DIR to a writable folder",
            ) from error
        lock = ProcessLock(folder / file, what, on_wait=on_wait or self._on_wait, error=DeployError)
        with lock.held(operation):
            yield

    def _running(self, name: str) -> tuple[EndpointFolder, ServerRecord]:
        """Return the endpoint and its server, which is started if necessary."""
        folder = self._folder(name)
        server = folder.running_server()
        if server is None:
            with self._starting(f"start endpoint {name}"):
                server = self._server.start(self._folder(name))
        return folder, server

    def _delete_folder(self, folder: EndpointFolder) -> None:
        """Delete an endpoint's folder; renamed first, so that no process finds a part of it."""
        trash = self._dir / LOCKS / f"{folder.name}.deleted"
        try:
            shutil.rmtree(trash, ignore_errors=True)  # left by a killed process
            folder.path.rename(trash)
            shutil.rmtree(trash)
        except OSError as error:
            raise DeployError(f"can't delete {folder.path}: {error.strerror}") from error


def _endpoint(name: str, record: EndpointRecord, live: dict[str, Any], *, running: bool) -> Endpoint:
    deployments = tuple(
        Deployment(
            each.name,
            f"{each.model}:{each.version}",
            created_at=datetime.fromisoformat(each.created_at),
            run_sha256=each.run_sha256,
            config_fingerprint=each.script,
            **(live.get(each.name) or {"state": "failed" if each.failed else "stopped"}),
        )
        for each in record.deployments
    )
    uri = f"http://{HOST}:{record.port}/score"
    return Endpoint(name, uri, "running" if running else "stopped", record.traffic, deployments)
