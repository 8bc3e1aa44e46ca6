"""On-disk state of an endpoint, in a folder that only its owner can open.

```text
endpoints_dir/
  .locks/                        locks of processes that change an endpoint or start a server
  NAME/                          0700
    endpoint.json                port, traffic, deployments: restored after a crash or a restart
    key                          0600, sent by clients
    server.lock                  held by the server while it runs, which is safer than checking a pid
    server.json                  0600, pid, port and control key of the server that holds the lock
    server.log  access.log
    deployments/DEPLOYMENT/
      worker.log
      model/MODEL/VERSION/       a copy of the run, in the layout of Azure ML
```
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final

import psutil
from filelock import FileLock, Timeout
from pydantic import Field, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from cifarml.errors import DeployError
from cifarml.run import write_json

HOST: Final = "127.0.0.1"
"""Address on which all endpoints listen."""

LOCKS: Final = ".locks"
"""Folder of the locks, which are kept when an endpoint is deleted."""

READY: Final = "ready"
"""Printed by a server once it listens."""

_NAME: Final = re.compile(r"[a-z](?:[a-z0-9-]{1,30}[a-z0-9])")
_DEPLOYMENT_NAME: Final = "[a-z][a-z0-9-]{0,31}"
_LOCK_TIMEOUT_S: Final = 5.0
_MAX_TAIL_BYTES: Final = 1 << 20
_MAX_LOG_BYTES: Final = 8 << 20


@dataclasses.dataclass(frozen=True)
class DeploymentRecord:
    """Stored record of a deployment.

    Args:
        name: Name of the deployment.
        model: Name of the model.
        version: Version of the model.
        run_sha256: Hash of the run, which identifies the content.
        created_at: Creation time, ISO 8601 with a time zone.
        script: The scoring script.
        timeout_s: Timeout of a batch.
        max_memory_bytes: A worker process that uses more memory is replaced.
        failed: Whether it failed to start when it was created.
    """

    name: Annotated[str, Field(pattern=f"^{_DEPLOYMENT_NAME}$")]
    model: str
    version: str
    run_sha256: str
    created_at: str
    script: str
    timeout_s: PositiveFloat = 10.0
    max_memory_bytes: PositiveInt = 1 << 30
    failed: bool = False


@dataclasses.dataclass(frozen=True)
class EndpointRecord:
    """Stored record of an endpoint, validated by :data:`ENDPOINT_RECORD`.

    Args:
        port: Port on 127.0.0.1; 0 before it first listens.
        traffic: Share of the requests by deployment, in percent.
        deployments: The deployments, oldest first.
        patience_s: Timeout for the headers of a request; the whole request may take three times as long.
    """

    port: Annotated[int, Field(ge=0, lt=65536)] = 0
    traffic: dict[str, int] = dataclasses.field(default_factory=dict)
    deployments: tuple[DeploymentRecord, ...] = ()
    patience_s: PositiveFloat = 10.0

    def __post_init__(self) -> None:
        if not self.traffic.keys() <= {each.name for each in self.deployments}:
            raise ValueError("traffic is assigned to a deployment that does not exist")


@dataclasses.dataclass(frozen=True)
class ServerRecord:
    """A running server: its process, its port, and the key of its admin API."""

    pid: int
    port: int
    control_key: str = dataclasses.field(repr=False)


ENDPOINT_RECORD: Final = TypeAdapter(EndpointRecord)


class EndpointFolder:
    """Folder of one endpoint; the folder name is the endpoint's name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.server_log = path / "server.log"
        self.access_log = path / "access.log"
        self.lock = FileLock(path / "server.lock", mode=0o600)

    def make(self, record: EndpointRecord) -> None:
        """Create the folder, its key and its record, unless they exist."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.mkdir(exist_ok=True, mode=0o700)
        self.check_owner()
        if not (self.path / "key").exists():
            self.write_key(new_key())
        if not (self.path / "endpoint.json").exists():
            self.write(record)

    def exists(self) -> bool:
        """Return whether the endpoint exists."""
        return (self.path / "endpoint.json").is_file()

    def check_owner(self) -> None:
        """Reject a folder that another user could have modified.

        Raises:
            DeployError: If it belongs to another user or is writable by others.
        """
        if os.name != "posix":
            return
        for folder in (self.path.parent, self.path):
            about = folder.stat()
            if about.st_uid != os.getuid() or about.st_mode & 0o022:
                raise DeployError(
                    f"{folder} belongs to another user or is writable by others",
                    hint=f"set CIFARML_ENDPOINTS_DIR to a folder that you own, or run: chmod 700 {folder}",
                )

    def read(self) -> EndpointRecord:
        """Return the record.

        Raises:
            DeployError: If it cannot be read.
        """
        path = self.path / "endpoint.json"
        try:
            return ENDPOINT_RECORD.validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            reason = error if isinstance(error, OSError) else error.errors()[0]["msg"]
            raise DeployError(
                f"cannot read {path}: {reason}",
                hint=f"delete the endpoint and deploy again: cifarml endpoint delete {self.name}",
            ) from error

    def write(self, record: EndpointRecord) -> None:
        """Write the record atomically."""
        write_json(self.path / "endpoint.json", dataclasses.asdict(record))

    def read_key(self) -> str:
        """Return the key that clients send."""
        try:
            return (self.path / "key").read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise DeployError(
                f"cannot read the key of endpoint {self.name}",
                hint=f"create a new key: cifarml endpoint keys {self.name} --regenerate",
            ) from error

    def write_key(self, key: str) -> None:
        """Write the key that clients send."""
        _write_secret(self.path / "key", key + "\n")

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Hold the lock of the server in the block.

        Raises:
            DeployError: If another process serves the endpoint.
        """
        try:
            self.lock.acquire(timeout=_LOCK_TIMEOUT_S)
        except Timeout:
            raise DeployError(f"endpoint {self.name} is already served by another process") from None
        try:
            yield
        finally:
            self.lock.release()

    def running_server(self) -> ServerRecord | None:
        """Return the running server, or None. The lock decides: a server that crashed no longer holds it."""
        try:
            with self.lock.acquire(timeout=0):
                return None
        except Timeout:
            pass
        except OSError:  # the folder was deleted
            return None
        try:
            server = ServerRecord(**json.loads((self.path / "server.json").read_bytes()))
        except (OSError, ValueError, TypeError):  # it is still starting
            return None
        # If the server crashed, another process tried the lock at the same time.
        return server if psutil.pid_exists(server.pid) else None

    def write_server(self, server: ServerRecord) -> None:
        """Record the server that holds the lock."""
        _write_secret(self.path / "server.json", json.dumps(dataclasses.asdict(server)))

    def forget_server(self) -> None:
        """Delete the record of the server."""
        (self.path / "server.json").unlink(missing_ok=True)

    def deployment(self, name: str) -> Path:
        """Return the folder of a deployment."""
        return self.path / "deployments" / name

    def worker_log(self, name: str) -> Path:
        """Return the log file of a deployment."""
        return self.deployment(name) / "worker.log"

    def model_dir(self, record: DeploymentRecord) -> Path:
        """Return the folder with the deployment's copy of its run."""
        return self.deployment(record.name) / "model" / record.model / record.version


def check_endpoint_name(name: str) -> str:
    """Return an endpoint name if it is valid locally and in Azure; raise a DeployError otherwise."""
    if not _NAME.fullmatch(name):
        raise DeployError(
            "an endpoint name must have 3 to 32 lower-case letters, digits or hyphens, start with a letter "
            f"and not end with a hyphen. Received: {name[:64]!r}"
        )
    return name


def check_deployment_name(name: str) -> str:
    """Return a deployment name if it is valid; raise a DeployError otherwise."""
    if not re.fullmatch(_DEPLOYMENT_NAME, name):
        raise DeployError(
            "a deployment name must have 1 to 32 lower-case letters, digits or hyphens and start with a "
            f"letter. Received: {name[:64]!r}"
        )
    return name


def check_traffic(traffic: Mapping[str, int], ready: Mapping[str, bool], served: Mapping[str, int]) -> None:
    """Raise a DeployError if traffic shares are invalid.

    Args:
        traffic: Shares by deployment, in percent.
        ready: Whether each existing deployment is ready.
        served: Present shares; a deployment that is not ready may keep them, but gets no more.
    """
    shares = list(traffic.values())
    if any(not 0 <= share <= 100 for share in shares) or sum(shares) not in {0, 100}:
        raise DeployError(f"traffic shares must be 0 to 100 % and add up to 0 or 100. Received: {traffic}")
    for name, share in traffic.items():
        if name not in ready:
            existing = ", ".join(ready) or "none"
            raise DeployError(f"deployment {name!r} does not exist. Existing deployments: {existing}")
        if share > served.get(name, 0) and not ready[name]:
            raise DeployError(f"deployment {name} is not ready and cannot receive traffic")


def new_key() -> str:
    """Generate a random key of 43 characters."""
    return secrets.token_urlsafe(32)


def tail_of(path: Path, lines: int) -> str:
    """Return the last lines of a text file; empty if the file does not exist."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _MAX_TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:]) if lines > 0 else ""


def rotate_log(log: Path) -> None:
    """Rename a large log file, replacing the previously renamed one."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > _MAX_LOG_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))


def _write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read, atomically."""
    partial = path.with_name(f".{path.name}.partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
