"""Endpoint host protocol and its data types: endpoints and deployments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from cifarml.errors import DeployError, EndpointTimeoutError, ImageError
from cifarml.images import ImageLike
from cifarml.locks import OnWait
from cifarml.predict import Prediction
from cifarml.registry.base import RegisteredModel

DEFAULT_ENDPOINT: Final = "cifar10"
"""Default endpoint name."""


class DeploymentExistsError(DeployError):
    """Name of a new deployment that is already used, possibly by another process."""


@dataclass(frozen=True)
class Deployment:
    """Model served by an endpoint.

    Args:
        name: Name of the deployment, which contains the model's version.
        model: The model, ``name:version``.
        state: ``ready``, ``starting``, ``failed`` or ``stopped``.
        created_at: Creation time, with a time zone.
        run_sha256: Hash of the run's content; empty if unknown.
        num_requests: Number of requests since its start, if the host counts them.
        num_errors: Number of failed requests.
        memory_bytes: Memory use, if the host measures it.
        config_fingerprint: Hash of the configuration, without the model.
        instance_type: VM size, if the deployment has its own machines.
        instance_count: Number of machines.
    """

    name: str
    model: str
    state: str
    created_at: datetime
    run_sha256: str = ""
    num_requests: int | None = None
    num_errors: int | None = None
    memory_bytes: int | None = None
    config_fingerprint: str = ""
    instance_type: str = ""
    instance_count: int = 0

    @property
    def machines(self) -> str:
        """Count and size of the machines: ``1 x Standard_F2s_v2``; empty if it has none of its own."""
        return f"{self.instance_count} x {self.instance_type}" if self.instance_type else ""


@dataclass(frozen=True)
class Endpoint:
    """HTTP endpoint for predictions, with the deployments behind it.

    Args:
        name: 3 to 32 lower-case letters, digits and hyphens, beginning with a letter.
        scoring_uri: URL for prediction requests.
        state: ``running`` or ``stopped``.
        traffic: Traffic share of each deployment, in percent; the shares add up to 0 or 100.
        deployments: The deployments, the oldest first.
    """

    name: str
    scoring_uri: str
    state: str
    traffic: Mapping[str, int]
    deployments: tuple[Deployment, ...]

    def find(self, deployment: str) -> Deployment:
        """Return a deployment by name.

        Raises:
            DeployError: If it does not exist.
        """
        for each in self.deployments:
            if each.name == deployment:
                return each
        raise DeployError(
            f"endpoint {self.name} has no deployment {deployment!r}",
            hint=f"list them with: cifarml endpoint show {self.name}",
        )


def parse_response(endpoint: str, deployment: str | None, status: int, answer: Any) -> Prediction:
    """Parse the response to a request with one image: return the prediction or raise the error.

    Raises:
        ImageError: If the endpoint can't read the image.
        EndpointTimeoutError: If the deployment did not respond in time.
        DeployError: If it failed, or the response is invalid.
    """
    try:
        if status == 200:
            ranked = sorted(answer["probabilities"].items(), key=lambda item: -item[1])
            return Prediction(answer["result"], float(answer["probability"]), dict(ranked))
        message = f"endpoint {endpoint}: {answer['error']['message']} ({status})"
    except (LookupError, TypeError, AttributeError, ValueError):
        source = f" from deployment {deployment}" if deployment else ""
        raise DeployError(f"endpoint {endpoint}: invalid response{source} ({status})") from None
    if status in {400, 413, 415, 422}:
        raise ImageError(message)
    if status in {408, 504}:
        raise EndpointTimeoutError(message, hint=f"see: cifarml endpoint logs {endpoint}")
    raise DeployError(message, hint=f"see: cifarml endpoint show {endpoint}")


class EndpointHost(Protocol):
    """Host of endpoints and their deployments, modelled on Azure ML's managed online endpoints.

    Implementations are subclasses; features that not every host has are implemented here as no-ops.
    """

    name_prefix: str
    """Prefix of new deployment names, followed by the model's version."""

    @property
    def config_fingerprint(self) -> str:
        """Hash of the configuration of new deployments, without the model."""

    @contextmanager
    def changing(
        self,
        endpoint: str,  # noqa: ARG002
        operation: str,  # noqa: ARG002
        *,
        lasts_s: float | None = None,  # noqa: ARG002
        on_wait: OnWait | None = None,  # noqa: ARG002
    ) -> Iterator[None]:
        """Prevent other processes from changing an endpoint in the block; wait while one does.

        The methods that change an endpoint wait on their own; this is for several changes that belong
        together. It can be nested.

        Args:
            endpoint: Name of the endpoint, which need not exist.
            operation: The operation, which other processes report while they wait.
            lasts_s: Time in which the block makes no change, in seconds; None if the block consists of a
                single change.
            on_wait: Called with a line of text while another process changes the endpoint.

        Raises:
            DeployError: If another process changes the endpoint for too long.
        """
        yield

    def list_endpoints(self) -> list[Endpoint]:
        """Return all endpoints, sorted by name."""

    def get_endpoint(self, name: str) -> Endpoint:
        """Return an endpoint by name.

        Raises:
            DeployError: If it does not exist.
        """

    def create_endpoint(self, name: str) -> Endpoint:
        """Create an endpoint without deployments; start and return it if it exists.

        Raises:
            DeployError: If the name is invalid, or the endpoint can't be created.
        """

    def create_deployment(self, endpoint: str, deployment: str, model: RegisteredModel) -> None:
        """Create a deployment without traffic, and wait until it is ready.

        Raises:
            DeploymentExistsError: If the name is taken; nothing was changed.
            DeployError: If it does not become ready. It still exists: read its logs, then delete it.
            ModelFileError: If the model's files are damaged.
        """

    def invoke(self, endpoint: str, image: ImageLike, *, deployment: str | None = None) -> Prediction:
        """Query an endpoint with an image.

        Args:
            endpoint: The endpoint.
            image: A path, bytes, file object, ``PIL.Image.Image`` or uint8 array. Files are sent unchanged,
                images and arrays as PNG.
            deployment: The deployment to query; by default chosen according to the traffic shares.

        Raises:
            ImageError: If the image is invalid.
            EndpointTimeoutError: If there is no response in time.
            DeployError: If the endpoint or deployment does not exist, or fails.
        """

    def read_key(self, endpoint: str, *, regenerate: bool = False) -> str:
        """Return the endpoint's key; ``regenerate`` creates a new one and invalidates the old one.

        Raises:
            DeployError: If the endpoint does not exist.
        """

    def page_address(self, endpoint: str) -> str:  # noqa: ARG002
        """Return the URL of the endpoint's web page, including the key; empty if it has no page."""
        return ""

    def costs(self, endpoint: Endpoint | None = None) -> str:  # noqa: ARG002
        """Describe the costs of an endpoint, or by default of a new deployment; empty if it is free."""
        return ""

    def set_traffic(self, endpoint: str, traffic: Mapping[str, int], *, restore: bool = False) -> None:
        """Set the traffic shares of all deployments atomically.

        Args:
            endpoint: The endpoint.
            traffic: Share of each deployment, in percent.
            restore: Restore earlier shares, even of a deployment that is no longer ready.

        Raises:
            DeployError: If the shares don't add up to 0 or 100, a deployment is missing, or one that would
                receive more is not ready.
        """

    def set_mirror(self, endpoint: str, mirror: Mapping[str, int]) -> None:
        """Mirror a share of the requests to a deployment, whose responses are discarded.

        Args:
            endpoint: The endpoint.
            mirror: The deployment with its share, 1 to 50 percent; empty to stop mirroring.

        Raises:
            DeployError: If the host does not support it.
        """

    def logs(self, endpoint: str, deployment: str, *, tail: int = 50) -> str:
        """Return the last ``tail`` lines of a deployment's log.

        Raises:
            DeployError: If the deployment does not exist.
        """

    def storage_logs(self, endpoint: str, deployment: str, *, tail: int = 50) -> str:  # noqa: ARG002
        """Return the last lines of the storage initializer's log; empty if the host has none."""
        return ""

    def write_yaml(self, folder: Path, endpoint: str, deployment: str, model: RegisteredModel) -> list[Path]:
        """Write a deployment as YAML files for the cloud provider's command line, without creating resources.

        Raises:
            DeployError: If the host does not support it, or the folder can't be written.
        """

    def delete(self, endpoint: str, deployment: str | None = None) -> None:
        """Delete a deployment without traffic, or an endpoint with all its deployments.

        Raises:
            DeployError: If it does not exist, or the deployment receives traffic.
        """
