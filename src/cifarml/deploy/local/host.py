"""Endpoints on this machine: each is a server process that outlives the command that created it."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from cifarml.deploy.base import Deployment, Endpoint, EndpointHost, read_answer
from cifarml.deploy.local.server_client import ServerClient
from cifarml.errors import DeployError, ModelFileError
from cifarml.images import ImageLike, encode_image
from cifarml.predict import Prediction
from cifarml.registry.base import RegisteredModel
from cifarml.run import MANIFEST, Run
from cifarml.serve.endpoint_folder import (
    ENDPOINT_RECORD,
    HOST,
    DeploymentRecord,
    EndpointFolder,
    EndpointRecord,
    ServerRecord,
    check_deployment_name,
    check_endpoint_name,
    new_key,
    tail_of,
)
from cifarml.settings import load_settings

SCORE: Final = Path(__file__).parents[2] / "scoring" / "score.py"
"""The scoring script, the same as in the cloud."""

_ANSWER_TIMEOUT_S: Final = 60.0


class LocalHost(EndpointHost):
    """Hosts endpoints on this machine, on 127.0.0.1, each with a key.

    Args:
        endpoints_dir: Where they are stored; by default the setting ``endpoints_dir``.
        script: The scoring script of new deployments.
        timeout_s: Request timeout of new deployments.
        max_memory_bytes: Memory limit of a deployment's process, above which it is replaced.
        patience_s: Timeout of new endpoints for the headers of a request.

    Example:
        >>> host = LocalHost()  # doctest: +SKIP
        >>> host.invoke("cifar10", "ship.png").label  # doctest: +SKIP
        'ship'
    """

    def __init__(
        self,
        endpoints_dir: Path | None = None,
        *,
        script: Path = SCORE,
        timeout_s: float = 10.0,
        max_memory_bytes: int = 1 << 30,
        patience_s: float = 10.0,
    ) -> None:
        self._dir = (endpoints_dir or load_settings().endpoints_dir).absolute()
        self._script = script.absolute()
        self._timeout_s = timeout_s
        self._max_memory_bytes = max_memory_bytes
        self._patience_s = patience_s
        self._server = ServerClient()

    name_prefix = "v"

    @property
    def config_fingerprint(self) -> str:
        """The scoring script of new deployments."""
        return str(self._script)

    def folder(self, name: str) -> Path:
        """Return where an endpoint is kept.

        Raises:
            DeployError: If there is none of that name.
        """
        return self._folder(name).path

    def list_endpoints(self) -> list[Endpoint]:
        """Return all endpoints, sorted by name; one whose files can't be read is ``damaged``."""
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
        """Return an endpoint; see :class:`~cifarml.deploy.base.EndpointHost`."""
        folder = self._folder(name)
        record, live = folder.read(), {}
        server = folder.running_server()
        if server is not None:
            about = self._server.control(folder, server, "GET", "endpoint")
            record, live = ENDPOINT_RECORD.validate_python(about["record"]), about["live"]
        return _endpoint(name, record, live, running=server is not None)

    def create_endpoint(self, name: str) -> Endpoint:
        """Create an endpoint; see :class:`~cifarml.deploy.base.EndpointHost`."""
        folder = EndpointFolder(self._dir / check_endpoint_name(name))
        with self._one_at_a_time():
            is_new = not folder.exists()
            try:
                folder.make(EndpointRecord(patience_s=self._patience_s))
                self._server.start(folder)
            except OSError as error:
                raise DeployError(f"can't make endpoint {name} in {self._dir}: {error.strerror}") from error
            except DeployError:
                if is_new:
                    shutil.rmtree(folder.path, ignore_errors=True)
                raise
        return self.get_endpoint(name)

    def create_deployment(self, endpoint: str, deployment: str, model: RegisteredModel) -> None:
        """Start a model behind an endpoint; see :class:`~cifarml.deploy.base.EndpointHost`.

        The model's files are copied, so that the deployment does not depend on the registry.
        """
        if any(Path(part).name != part for part in (model.name, model.version)):
            raise DeployError(f"{model} can't be a folder's name, so it can't be deployed")
        folder, server = self._running(endpoint)
        record = DeploymentRecord(
            check_deployment_name(deployment),
            model.name,
            model.version,
            model.run_sha256,
            datetime.now(UTC).isoformat(),
            str(self._script),
            self._timeout_s,
            self._max_memory_bytes,
        )
        if deployment in {each.name for each in folder.read().deployments}:
            raise DeployError(f"there is a deployment {deployment} already")
        try:
            shutil.rmtree(folder.deployment(deployment), ignore_errors=True)  # left by a kill
            copy_run(model.open_run(), folder.model_dir(record))
        except (OSError, ModelFileError) as error:
            shutil.rmtree(folder.deployment(deployment), ignore_errors=True)
            if isinstance(error, ModelFileError):
                raise
            raise DeployError(f"can't copy the model to {folder.path}: {error.strerror}") from error
        self._server.control(folder, server, "POST", "deployments", dataclasses.asdict(record))

    def invoke(self, endpoint: str, image: ImageLike, *, deployment: str | None = None) -> Prediction:
        """Query an endpoint; see :class:`~cifarml.deploy.base.EndpointHost`.

        An endpoint that is stopped, as after a restart of the machine, is started first.
        """
        file = encode_image(image)
        folder, server = self._running(endpoint)
        # Whatever its format is: the server detects it.
        headers = {"authorization": f"Bearer {folder.read_key()}", "content-type": "image/png"}
        if deployment is not None:
            headers["azureml-model-deployment"] = check_deployment_name(deployment)
        status, answer = self._server.request(
            folder, server, "POST", "/score", file, headers, _ANSWER_TIMEOUT_S
        )
        return read_answer(endpoint, deployment, status, answer)

    def read_key(self, endpoint: str, *, regenerate: bool = False) -> str:
        """Return the key that callers send; see :class:`~cifarml.deploy.base.EndpointHost`."""
        folder = self._folder(endpoint)
        if regenerate:
            with self._one_at_a_time():
                server = folder.running_server()
                if server is None:
                    folder.write_key(new_key())
                else:
                    self._server.control(folder, server, "POST", "key")
        return folder.read_key()

    def page_address(self, endpoint: str) -> str:
        """Return the address of the endpoint's web page; see :class:`~cifarml.deploy.base.EndpointHost`."""
        return build_page_address(self.get_endpoint(endpoint).scoring_uri, self.read_key(endpoint))

    def set_traffic(self, endpoint: str, traffic: Mapping[str, int]) -> None:
        """Divide the requests among the deployments; see :class:`~cifarml.deploy.base.EndpointHost`."""
        self._server.control(*self._running(endpoint), "PUT", "traffic", dict(traffic))

    def set_mirror(self, endpoint: str, mirror: Mapping[str, int]) -> None:  # noqa: ARG002
        """Raise an error: requests of endpoints on this machine are not mirrored."""
        raise DeployError("an endpoint on this machine can't mirror requests", hint="leave out --mirror")

    def logs(self, endpoint: str, deployment: str, *, tail: int = 50) -> str:
        """Return the last lines of a deployment's log; see :class:`~cifarml.deploy.base.EndpointHost`."""
        found = self.get_endpoint(endpoint).find(deployment)
        return tail_of(self._folder(endpoint).worker_log(found.name), tail)

    def write_yaml(self, folder: Path, endpoint: str, deployment: str, model: RegisteredModel) -> list[Path]:  # noqa: ARG002
        """Raise an error: only deployments in Azure can be written as YAML."""
        raise DeployError("only deployments in Azure can be written as YAML", hint="add --target azure")

    def delete(self, endpoint: str, deployment: str | None = None) -> None:
        """Delete a deployment or an endpoint; see :class:`~cifarml.deploy.base.EndpointHost`."""
        if deployment is not None:
            self._server.control(
                *self._running(endpoint), "DELETE", f"deployments/{check_deployment_name(deployment)}"
            )
            return
        folder = self._folder(endpoint)
        with self._one_at_a_time():
            self._server.stop(folder)
            try:
                shutil.rmtree(folder.path)
            except OSError as error:
                raise DeployError(f"can't delete {folder.path}: {error.strerror}") from error

    def start(self, name: str) -> Endpoint:
        """Start an endpoint that is stopped.

        Raises:
            DeployError: If there is none of that name, or it can't be started.
        """
        self._running(name)
        return self.get_endpoint(name)

    def stop(self, name: str) -> None:
        """Stop an endpoint, after what is in flight; it keeps all it has.

        Raises:
            DeployError: If there is none of that name.
        """
        folder = self._folder(name)
        with self._one_at_a_time():
            self._server.stop(folder)

    def _folder(self, name: str) -> EndpointFolder:
        folder = EndpointFolder(self._dir / check_endpoint_name(name))
        if not folder.exists():
            raise DeployError(
                f"there is no endpoint {name} on this machine",
                hint="list them with: cifarml endpoint list; make one with: cifarml deploy",
            )
        return folder

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Let no other command make, start or delete endpoints meanwhile."""
        try:
            self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = FileLock(self._dir / ".lock", mode=0o600)
            lock.acquire()
        except OSError as error:
            raise DeployError(
                f"can't write to {self._dir}: {error.strerror}",
                hint="set CIFARML_ENDPOINTS_DIR to a folder of your own",
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _running(self, name: str) -> tuple[EndpointFolder, ServerRecord]:
        """Return the endpoint and its server, started where there is none."""
        folder = self._folder(name)
        server = folder.running_server()
        if server is None:
            with self._one_at_a_time():
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


def build_page_address(scoring_uri: str, key: str) -> str:
    """Return the address of an endpoint's page; what follows # is never sent, so no log contains the key."""
    return f"{scoring_uri.removesuffix('score')}#key={key}"


def copy_run(run: Run, to: Path) -> None:
    """Copy a run into a new folder, checking the hash of each file.

    Raises:
        ModelFileError: If one is missing or changed.
    """
    to.mkdir(parents=True)
    for name in run.files:
        (to / name).write_bytes(run.read(name))
    shutil.copyfile(run.path / MANIFEST, to / MANIFEST)
