"""Endpoint host protocol, and the endpoints and deployments that it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from cifarml.errors import DeployError, EndpointTimeoutError, ImageError
from cifarml.images import ImageLike
from cifarml.predict import Prediction
from cifarml.registry.base import RegisteredModel

DEFAULT_ENDPOINT: Final = "cifar10"
"""Default name of the endpoint."""


@dataclass(frozen=True)
class Deployment:
    """A model behind an endpoint.

    Args:
        name: Its name, which ends in the model's version.
        model: The model, ``name:version``.
        state: ``ready``, ``starting``, ``failed`` or ``stopped``.
        created_at: When it was created, with a time zone.
        run_sha256: Hash of its run, which identifies the content; empty if unknown.
        num_requests: Number of requests since it started, if the host counts them.
        num_errors: How many of them failed.
        memory_bytes: Its memory use, if the host measures it.
        config_fingerprint: Identifies its configuration apart from the model.
        instance_type: Size of its machines, if it has its own.
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
        """Its machines, to be shown; empty if it has none of its own."""
        return f"{self.instance_count} x {self.instance_type}" if self.instance_type else ""


@dataclass(frozen=True)
class Endpoint:
    """Address that serves predictions, and the deployments behind it.

    Args:
        name: Its name: 3 to 32 characters, lower-case letters, digits and hyphens, a letter first.
        scoring_uri: Where requests are posted.
        state: ``running`` or ``stopped``.
        traffic: Share of the requests of each deployment, in percent; they add up to 0 or 100.
        deployments: Its deployments, the oldest first.
    """

    name: str
    scoring_uri: str
    state: str
    traffic: Mapping[str, int]
    deployments: tuple[Deployment, ...]

    def find(self, deployment: str) -> Deployment:
        """Return the deployment of that name.

        Raises:
            DeployError: If there is none.
        """
        for each in self.deployments:
            if each.name == deployment:
                return each
        raise DeployError(
            f"endpoint {self.name} has no deployment {deployment!r}",
            hint=f"see which there are: cifarml endpoint show {self.name}",
        )


def read_answer(endpoint: str, deployment: str | None, status: int, answer: Any) -> Prediction:
    """Return the prediction in an endpoint's answer about one image, or raise the error that it contains.

    Raises:
        ImageError: If the endpoint can't read the image.
        EndpointTimeoutError: If the deployment did not answer in time.
        DeployError: If it failed, or the answer is invalid.
    """
    try:
        if status == 200:
            ranked = sorted(answer["probabilities"].items(), key=lambda item: -item[1])
            return Prediction(answer["result"], float(answer["probability"]), dict(ranked))
        message = f"endpoint {endpoint}: {answer['error']['message']} ({status})"
    except (LookupError, TypeError, AttributeError, ValueError):
        asked = f"deployment {deployment}" if deployment else "its deployment"
        raise DeployError(f"endpoint {endpoint}: invalid response of {asked} ({status})") from None
    if status in {400, 413, 415, 422}:
        raise ImageError(message)
    if status in {408, 504}:
        raise EndpointTimeoutError(message, hint=f"look at: cifarml endpoint logs {endpoint}")
    raise DeployError(message, hint=f"look at: cifarml endpoint show {endpoint}")


class EndpointHost(Protocol):
    """Hosts endpoints and their deployments, as Azure ML's managed online endpoints do.

    Implementations are subclasses; what not every host offers has a default here.
    """

    name_prefix: str
    """Prefix of the names of new deployments; the model's version follows."""

    @property
    def config_fingerprint(self) -> str:
        """Identifies how new deployments are configured, apart from the model."""

    def list_endpoints(self) -> list[Endpoint]:
        """Return all endpoints, sorted by name."""

    def get_endpoint(self, name: str) -> Endpoint:
        """Return an endpoint.

        Raises:
            DeployError: If there is none of that name.
        """

    def create_endpoint(self, name: str) -> Endpoint:
        """Create an endpoint without deployments, or return the existing one, running.

        Raises:
            DeployError: If the name is not allowed, or the endpoint can't be created.
        """

    def create_deployment(self, endpoint: str, deployment: str, model: RegisteredModel) -> None:
        """Start a model behind an endpoint, without any traffic; return when it is ready.

        Raises:
            DeployError: If it did not become ready; its logs can still be read, and it can be deleted.
            ModelFileError: If the model's files are damaged.
        """

    def invoke(self, endpoint: str, image: ImageLike, *, deployment: str | None = None) -> Prediction:
        """Query an endpoint with an image.

        Args:
            endpoint: The endpoint.
            image: A path, bytes, file object, ``PIL.Image.Image`` or uint8 array. The bytes of a file are
                sent as they are, images and arrays as PNG.
            deployment: The deployment that answers; chosen by traffic by default.

        Raises:
            ImageError: If the image can't be read, here or by the endpoint.
            EndpointTimeoutError: If there was no answer in time.
            DeployError: If there is no such endpoint or deployment, or it fails.
        """

    def read_key(self, endpoint: str, *, regenerate: bool = False) -> str:
        """Return the key that callers send; ``regenerate`` creates a new one, which voids the old one.

        Raises:
            DeployError: If there is no such endpoint.
        """

    def page_address(self, endpoint: str) -> str:  # noqa: ARG002
        """Return the address of the endpoint's web page, with the key; empty if it has no page."""
        return ""

    def costs(self, endpoint: Endpoint | None = None) -> str:  # noqa: ARG002
        """Return what an endpoint costs, or a new deployment would; empty if nothing."""
        return ""

    def set_traffic(self, endpoint: str, traffic: Mapping[str, int]) -> None:
        """Divide the requests among the deployments, all at once.

        Raises:
            DeployError: If shares don't add up to 0 or 100, or a deployment is missing or not ready.
        """

    def set_mirror(self, endpoint: str, mirror: Mapping[str, int]) -> None:
        """Send copies of a share of the requests to a deployment; nobody sees its answers.

        Args:
            endpoint: The endpoint.
            mirror: The deployment with its share, 1 to 50 percent; empty to end it.

        Raises:
            DeployError: If the host can't.
        """

    def logs(self, endpoint: str, deployment: str, *, tail: int = 50) -> str:
        """Return the last lines that a deployment has logged.

        Raises:
            DeployError: If there is none of that name.
        """

    def storage_logs(self, endpoint: str, deployment: str, *, tail: int = 50) -> str:  # noqa: ARG002
        """Return the last lines logged while a deployment's files were fetched; empty if none are fetched."""
        return ""

    def write_yaml(self, folder: Path, endpoint: str, deployment: str, model: RegisteredModel) -> list[Path]:
        """Write a deployment as files for the cloud's own command line, without creating anything.

        Raises:
            DeployError: If the host can't, or the folder can't be written.
        """

    def delete(self, endpoint: str, deployment: str | None = None) -> None:
        """Delete a deployment without traffic, or an endpoint with all that belongs to it.

        Raises:
            DeployError: If there is none of that name, or the deployment has traffic.
        """
