"""Host of local endpoints, whose server processes outlive the command that started them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cifarml.deploy.base import DeploymentExistsError, Endpoint, parse_response
from cifarml.deploy.local.state import LocalEndpoints
from cifarml.errors import DeployError, ModelFileError
from cifarml.images import ImageLike, encode_image
from cifarml.locks import OnWait
from cifarml.predict import Prediction
from cifarml.registry.base import RegisteredModel
from cifarml.run import MANIFEST, Run
from cifarml.serve.endpoint_folder import (
    DeploymentRecord,
    EndpointFolder,
    EndpointRecord,
    check_deployment_name,
    check_endpoint_name,
    new_key,
    tail_of,
)

SCORE: Final = Path(__file__).parents[2] / "scoring" / "score.py"
"""Default scoring script, the same as in the cloud."""

_RESPONSE_TIMEOUT_S: Final = 60.0


class LocalHost(LocalEndpoints):
    """Host of endpoints on this machine, which listen on 127.0.0.1 and require a key.

    Args:
        endpoints_dir: Folder of the endpoints; by default the setting `endpoints_dir`.
        script: Scoring script of new deployments.
        timeout_s: Request timeout of new deployments, in seconds.
        max_memory_bytes: Memory limit of a worker process, which is replaced when it exceeds it.
        patience_s: Timeout of new endpoints for the headers of a request, in seconds.
        on_wait: Called with a line of text while another process changes an endpoint.

    Example:
        ```python
        host = LocalHost()
        deploy_model(host, LocalRegistry().get("cifar10"))
        host.invoke("cifar10", "ship.png").label  # "ship"
        host.read_key("cifar10")
        host.delete("cifar10")
        ```
    """

    def __init__(
        self,
        endpoints_dir: Path | None = None,
        *,
        script: Path = SCORE,
        timeout_s: float = 10.0,
        max_memory_bytes: int = 1 << 30,
        patience_s: float = 10.0,
        on_wait: OnWait = lambda _: None,
    ) -> None:
        super().__init__(endpoints_dir, on_wait)
        self._script = script.absolute()
        self._timeout_s = timeout_s
        self._max_memory_bytes = max_memory_bytes
        self._patience_s = patience_s

    name_prefix = "v"

    @property
    def config_fingerprint(self) -> str:
        """Path of the scoring script of new deployments."""
        return str(self._script)

    def create_endpoint(self, name: str) -> Endpoint:
        """Create an endpoint without deployments; start and return it if it exists.

        Args:
            name: 3 to 32 lower-case letters, digits and hyphens, beginning with a letter.

        Returns:
            The running endpoint.

        Raises:
            DeployError: If the name is invalid, or the endpoint can't be created or started.
        """
        folder = EndpointFolder(self._dir / check_endpoint_name(name))
        with self.changing(name, "create endpoint"), self._starting(f"start endpoint {name}"):
            is_new = not folder.exists()
            try:
                folder.make(EndpointRecord(patience_s=self._patience_s))
                self._server.start(folder)
            except OSError as error:
                raise DeployError(f"can't create endpoint {name} in {self._dir}: {error.strerror}") from error
            except DeployError:
                if is_new:
                    shutil.rmtree(folder.path, ignore_errors=True)
                raise
            return self.get_endpoint(name)

    def create_deployment(self, endpoint: str, deployment: str, model: RegisteredModel) -> None:
        """Create a deployment without traffic, and wait until it is ready.

        The model's files are copied, so the deployment does not depend on the registry.

        Args:
            endpoint: Name of an existing endpoint.
            deployment: Name of the new deployment.
            model: The registered model to serve.

        Raises:
            DeployError: If it does not become ready. It still exists: read its logs, then delete it.
            ModelFileError: If the model's files are damaged.
        """
        if any(Path(part).name != part for part in (model.name, model.version)):
            raise DeployError(f"can't deploy {model} because its name is not a valid folder name")
        with self._changing_existing(endpoint, f"create deployment {deployment}"):
            self._create_deployment(endpoint, check_deployment_name(deployment), model)

    def _create_deployment(self, endpoint: str, deployment: str, model: RegisteredModel) -> None:
        folder, server = self._running(endpoint)
        record = DeploymentRecord(
            deployment,
            model.name,
            model.version,
            model.run_sha256,
            datetime.now(UTC).isoformat(),
            str(self._script),
            self._timeout_s,
            self._max_memory_bytes,
        )
        if deployment in {each.name for each in folder.read().deployments}:
            raise DeploymentExistsError(f"deployment {deployment} already exists")
        try:
            shutil.rmtree(folder.deployment(deployment), ignore_errors=True)  # left by a killed process
            copy_run(model.open_run(), folder.model_dir(record))
        except (OSError, ModelFileError) as error:
            shutil.rmtree(folder.deployment(deployment), ignore_errors=True)
            if isinstance(error, ModelFileError):
                raise
            raise DeployError(f"can't copy the model to {folder.path}: {error.strerror}") from error
        self._server.control(folder, server, "POST", "deployments", dataclasses.asdict(record))

    def invoke(self, endpoint: str, image: ImageLike, *, deployment: str | None = None) -> Prediction:
        """Query an endpoint with an image; a stopped endpoint is started first.

        Args:
            endpoint: Name of the endpoint.
            image: A path, bytes, file object, `PIL.Image.Image` or uint8 array.
            deployment: The deployment to query; by default chosen according to the traffic shares.

        Returns:
            The prediction.

        Raises:
            ImageError: If the image is invalid.
            EndpointTimeoutError: If there is no response in time.
            DeployError: If the endpoint or deployment does not exist, or fails.
        """
        file = encode_image(image)
        folder, server = self._running(endpoint)
        # For any image format: the server detects it.
        headers = {"content-type": "image/png"}
        if deployment is not None:
            headers["azureml-model-deployment"] = check_deployment_name(deployment)
        key = ""
        while key != (key := folder.read_key()):  # again if the key was regenerated in the meantime
            headers["authorization"] = f"Bearer {key}"
            status, answer = self._server.request(
                folder, server, "POST", "/score", file, headers, _RESPONSE_TIMEOUT_S
            )
            if status != 401:
                break
        return parse_response(endpoint, deployment, status, answer)

    def read_key(self, endpoint: str, *, regenerate: bool = False) -> str:
        """Return the endpoint's key, which clients send as a bearer token.

        Args:
            endpoint: Name of the endpoint.
            regenerate: Create a new key, which invalidates the old one.

        Returns:
            The key.

        Raises:
            DeployError: If the endpoint does not exist.
        """
        folder = self._folder(endpoint)
        if regenerate:  # also during a rollout, which uses the new key from then on
            with self._starting(f"regenerate the key of {endpoint}"):
                server = folder.running_server()
                if server is None:
                    folder.write_key(new_key())
                else:
                    self._server.control(folder, server, "POST", "key")
        return folder.read_key()

    def page_address(self, endpoint: str) -> str:
        """Return the URL of an endpoint's web page, including its key.

        Args:
            endpoint: Name of the endpoint.

        Raises:
            DeployError: If the endpoint does not exist.
        """
        return build_page_address(self.get_endpoint(endpoint).scoring_uri, self.read_key(endpoint))

    def set_traffic(self, endpoint: str, traffic: Mapping[str, int], *, restore: bool = False) -> None:
        """Set the traffic shares of all deployments atomically.

        Args:
            endpoint: Name of the endpoint.
            traffic: Share of each deployment, in percent.
            restore: Restore earlier shares, even of a deployment that is no longer ready.

        Raises:
            DeployError: If the shares don't add up to 0 or 100, a deployment is missing, or one that would
                receive more is not ready.
        """
        with self._changing_existing(endpoint, "set the traffic"):
            path = "traffic?restore=1" if restore else "traffic"
            self._server.control(*self._running(endpoint), "PUT", path, dict(traffic))

    def set_mirror(self, endpoint: str, mirror: Mapping[str, int]) -> None:  # noqa: ARG002
        """Raise a `DeployError`: local endpoints do not support mirroring."""
        raise DeployError("mirroring requires an endpoint in Azure", hint="remove --mirror")

    def logs(self, endpoint: str, deployment: str, *, tail: int = 50) -> str:
        """Return the last lines of a deployment's log.

        Args:
            endpoint: Name of the endpoint.
            deployment: Name of the deployment.
            tail: Number of lines.

        Raises:
            DeployError: If the endpoint or deployment does not exist.
        """
        found = self.get_endpoint(endpoint).find(deployment)
        return tail_of(self._folder(endpoint).worker_log(found.name), tail)

    def write_yaml(self, folder: Path, endpoint: str, deployment: str, model: RegisteredModel) -> list[Path]:  # noqa: ARG002
        """Raise a `DeployError`: only deployments in Azure can be written as YAML."""
        raise DeployError("only deployments in Azure can be written as YAML", hint="add --target azure")

    def delete(self, endpoint: str, deployment: str | None = None) -> None:
        """Delete a deployment without traffic, or an endpoint with all its deployments.

        Args:
            endpoint: Name of the endpoint.
            deployment: Name of the deployment; the whole endpoint if omitted.

        Raises:
            DeployError: If it does not exist, or the deployment receives traffic.
        """
        with self._changing_existing(endpoint, f"delete {deployment or 'endpoint'}") as folder:
            if deployment is not None:
                path = f"deployments/{check_deployment_name(deployment)}"
                self._server.control(*self._running(endpoint), "DELETE", path)
                return
            with self._starting(f"delete endpoint {endpoint}"):
                self._server.stop(folder)
                self._delete_folder(folder)

    def start(self, name: str) -> Endpoint:
        """Start a stopped endpoint.

        Args:
            name: Name of the endpoint.

        Returns:
            The running endpoint.

        Raises:
            DeployError: If it does not exist or can't be started.
        """
        with self._changing_existing(name, "start endpoint"):
            self._running(name)
            return self.get_endpoint(name)

    def stop(self, name: str) -> None:
        """Stop an endpoint after the requests in flight; its deployments and traffic shares are kept.

        Args:
            name: Name of the endpoint.

        Raises:
            DeployError: If it does not exist.
        """
        with (
            self._changing_existing(name, "stop endpoint") as folder,
            self._starting(f"stop endpoint {name}"),
        ):
            self._server.stop(folder)


def build_page_address(scoring_uri: str, key: str) -> str:
    """Return the URL of an endpoint's page; the key is in its fragment, which is never sent or logged."""
    return f"{scoring_uri.removesuffix('score')}#key={key}"


def copy_run(run: Run, to: Path) -> None:
    """Copy a run into a new folder, verifying the hash of each file.

    Raises:
        ModelFileError: If a file is missing or changed.
    """
    to.mkdir(parents=True)
    for name in run.files:
        (to / name).write_bytes(run.read(name))
    shutil.copyfile(run.path / MANIFEST, to / MANIFEST)
