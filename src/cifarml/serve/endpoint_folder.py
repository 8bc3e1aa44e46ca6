"""What an endpoint keeps on disk: a folder that only its owner can open.

```text
endpoints_dir/
  .lock                          held while an endpoint is made, started or deleted
  NAME/                          0700
    endpoint.json                port, traffic, deployments: what comes back after a crash or a restart
    key                          0600, what callers show
    server.lock                  held by the server as long as it lives: so nobody has to trust a pid
    server.json                  0600, pid, port and control key of the server that holds the lock
    server.log  access.log
    deployments/DEPLOYMENT/
      worker.log
      model/MODEL/VERSION/       a copy of the run, laid out as a managed endpoint lays it out
```
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from cifarml.errors import DeployError
from cifarml.run import write_json

HOST: Final = "127.0.0.1"
"""Where endpoints listen, always."""

READY: Final = "ready"
"""What a server says to who started it, once it listens."""

_NAME: Final = re.compile(r"[a-z](?:[a-z0-9-]{1,30}[a-z0-9])")
_DEPLOYMENT_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_MAX_STATE_BYTES: Final = 1 << 20
_MAX_TAIL_BYTES: Final = 1 << 20
_MAX_LOG_BYTES: Final = 8 << 20


@dataclasses.dataclass(frozen=True)
class DeploymentRecord:
    """A deployment as it is kept.

    Args:
        name: Its name.
        model: Name of the model.
        version: Version of the model.
        run_sha256: Hash of the run, by which the same content is known again.
        created_at: When it was made, ISO 8601 with a time zone.
        script: The scoring script.
        timeout_s: How long a request may take.
        max_memory_bytes: Its process is replaced by a fresh one where it takes more.
        failed: Whether it did not become ready when it was made.
    """

    name: str
    model: str
    version: str
    run_sha256: str
    created_at: str
    script: str
    timeout_s: float = 10.0
    max_memory_bytes: int = 1 << 30
    failed: bool = False


@dataclasses.dataclass(frozen=True)
class EndpointRecord:
    """An endpoint as it is kept.

    Args:
        port: Where it listens, on 127.0.0.1; 0 before it first did.
        traffic: Share of the requests by deployment, in percent.
        deployments: In order of age.
        patience_s: How long a caller may take to send the headers of a request; for all of it, three times.
    """

    port: int = 0
    traffic: dict[str, int] = dataclasses.field(default_factory=dict)
    deployments: tuple[DeploymentRecord, ...] = ()
    patience_s: float = 10.0

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EndpointRecord:
        """Read what was kept; raises ValueError, TypeError or KeyError where it is something else."""
        record = cls(
            port=int(values["port"]),
            traffic={str(name): int(share) for name, share in values["traffic"].items()},
            deployments=tuple(DeploymentRecord(**each) for each in values["deployments"]),
            patience_s=float(values["patience_s"]),
        )
        names = {each.name for each in record.deployments}
        for each in record.deployments:
            if not _DEPLOYMENT_NAME.fullmatch(each.name):
                raise ValueError("a deployment has a name that is not allowed")
            if not each.timeout_s > 0 or not each.max_memory_bytes > 0:
                raise ValueError("a deployment has a limit that can't be")
        if not 0 <= record.port < 65536 or not record.patience_s > 0 or not set(record.traffic) <= names:
            raise ValueError("port or traffic can't be")
        return record


@dataclasses.dataclass(frozen=True)
class ServerRecord:
    """The server that runs: its process, its port, and the key that changes it."""

    pid: int
    port: int
    control_key: str = dataclasses.field(repr=False)


class EndpointFolder:
    """The folder of one endpoint.

    Args:
        path: Where it lies; its name is the endpoint's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.server_log = path / "server.log"
        self.access_log = path / "access.log"
        self.lock = FileLock(path / "server.lock", mode=0o600)

    def make(self, record: EndpointRecord) -> None:
        """Make the folder, its key and its record; what is there stays."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.mkdir(exist_ok=True, mode=0o700)
        self.check_owner()
        if not (self.path / "key").exists():
            self.write_key(new_key())
        if not (self.path / "endpoint.json").exists():
            self.write(record)

    def exists(self) -> bool:
        """Tell whether there is such an endpoint."""
        return (self.path / "endpoint.json").is_file()

    def check_owner(self) -> None:
        """Refuse a folder that another user could have filled.

        Raises:
            DeployError: If it is another user's, or others may write into it.
        """
        if os.name != "posix":
            return
        for folder in (self.path.parent, self.path):
            about = folder.stat()
            if about.st_uid != os.getuid() or about.st_mode & 0o022:
                raise DeployError(
                    f"{folder} belongs to another user, or others may write into it",
                    hint="set CIFARML_ENDPOINTS_DIR to a folder of your own, or: chmod 700 on yours",
                )

    def read(self) -> EndpointRecord:
        """Return what is kept.

        Raises:
            DeployError: If it can't be read.
        """
        path = self.path / "endpoint.json"
        try:
            return EndpointRecord.from_json(_read_json(path))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise DeployError(
                f"{path} can't be used: {error or type(error).__name__}",
                hint=f"delete the endpoint and deploy again: cifarml endpoint delete {self.name}",
            ) from error

    def write(self, record: EndpointRecord) -> None:
        """Keep it: the whole new one, or what was there before."""
        write_json(self.path / "endpoint.json", dataclasses.asdict(record))

    def read_key(self) -> str:
        """Return the key that callers show."""
        try:
            return (self.path / "key").read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise DeployError(
                f"the key of endpoint {self.name} can't be read",
                hint=f"make a new one with: cifarml endpoint keys {self.name} --regenerate",
            ) from error

    def write_key(self, key: str) -> None:
        """Keep a key."""
        _write_secret(self.path / "key", key + "\n")

    def running_server(self) -> ServerRecord | None:
        """Return the server that runs, or None.

        The lock tells, not the pid: a server that died, also with the machine, holds no lock.
        """
        try:
            with self.lock.acquire(timeout=0):
                return None
        except Timeout:
            pass
        except OSError:  # the folder is gone
            return None
        try:
            return ServerRecord(**_read_json(self.path / "server.json"))
        except (OSError, ValueError, TypeError):  # it is only just starting
            return None

    def write_server(self, server: ServerRecord) -> None:
        """Say which server holds the lock."""
        _write_secret(self.path / "server.json", json.dumps(dataclasses.asdict(server)))

    def forget_server(self) -> None:
        """Say that none runs."""
        (self.path / "server.json").unlink(missing_ok=True)

    def deployment(self, name: str) -> Path:
        """Return the folder of a deployment."""
        return self.path / "deployments" / name

    def worker_log(self, name: str) -> Path:
        """Return the file that a deployment writes to."""
        return self.deployment(name) / "worker.log"

    def model_dir(self, record: DeploymentRecord) -> Path:
        """Return where a deployment's copy of its run lies."""
        return self.deployment(record.name) / "model" / record.model / record.version


def check_endpoint_name(name: str) -> str:
    """Return an endpoint's name.

    Raises:
        DeployError: If it is none: 3 to 32 characters, as Azure wants them.
    """
    if not _NAME.fullmatch(name):
        raise DeployError(
            "an endpoint's name has 3 to 32 characters: lower-case letters, digits and hyphens, a letter "
            f"first, no hyphen last. Received: {name[:64]!r}"
        )
    return name


def check_deployment_name(name: str) -> str:
    """Return a deployment's name.

    Raises:
        DeployError: If it is none.
    """
    if not _DEPLOYMENT_NAME.fullmatch(name):
        raise DeployError(
            "a deployment's name has 1 to 32 characters: lower-case letters, digits and hyphens, a letter "
            f"first. Received: {name[:64]!r}"
        )
    return name


def check_traffic(traffic: dict[str, int], ready: dict[str, bool]) -> None:
    """Check that traffic can be divided so.

    Args:
        traffic: Shares by deployment, in percent.
        ready: The deployments there are, and whether each can answer.

    Raises:
        DeployError: If shares don't add up to 0 or 100, or a deployment is missing or not ready.
    """
    shares = list(traffic.values())
    if any(not 0 <= share <= 100 for share in shares) or sum(shares) not in {0, 100}:
        raise DeployError(f"shares must be 0 to 100 percent and add up to 0 or 100. Received: {traffic}")
    for name, share in traffic.items():
        if name not in ready:
            raise DeployError(f"there is no deployment {name!r}; there are: {', '.join(ready) or 'none'}")
        if share and not ready[name]:
            raise DeployError(f"deployment {name} is not ready, so it gets no traffic")


def new_key() -> str:
    """Return a new key, 43 characters."""
    return secrets.token_urlsafe(32)


def tail_of(path: Path, lines: int) -> str:
    """Return the last lines of a text file; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _MAX_TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:]) if lines > 0 else ""


def rotate_log(log: Path) -> None:
    """Rename a long log, replacing the one renamed before."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > _MAX_LOG_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))


def _read_json(path: Path) -> Any:
    with path.open("rb") as file:
        return json.loads(file.read(_MAX_STATE_BYTES))


def _write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
