"""Read the state of local endpoints, and lock them for changes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from cifarml.deploy.base import Deployment, Endpoint, EndpointHost
from cifarml.deploy.local.server_client import ServerClient
from cifarml.errors import DeployError
from cifarml.locks import acquire
from cifarml.paths import expand_home
from cifarml.serve.endpoint_folder import (
    ENDPOINT_RECORD,
    HOST,
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
    """

    def __init__(self, endpoints_dir: Path | None = None) -> None:
        self._dir = expand_home(endpoints_dir or load_settings().endpoints_dir).absolute()
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

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Prevent other processes from creating, starting or deleting endpoints."""
        try:
            self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = FileLock(self._dir / ".lock", mode=0o600)
            acquire(lock, "the endpoints of this machine")
        except OSError as error:
            raise DeployError(
                f"can't write to {self._dir}: {error.strerror}",
                hint="set CIFARML_ENDPOINTS_DIR to a writable folder",
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _running(self, name: str) -> tuple[EndpointFolder, ServerRecord]:
        """Return the endpoint and its server, which is started if necessary."""
        folder = self._folder(name)
        server = folder.running_server()
        if server is None:
            with self._locked():
                server = self._server.start(folder)
        return folder, server


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
