"""What a host of endpoints does, wherever it lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from cifarml.predict import Prediction
from cifarml.registry.base import RegisteredModel
from cifarml.run import Run

__all__ = ["DEFAULT_ENDPOINT", "Deployment", "Endpoint", "EndpointHost", "read_answer"]

DEFAULT_ENDPOINT: Final = "cifar10"
"""Name of the endpoint where none is given."""


@dataclass(frozen=True)
class Deployment:
    """A model that answers behind an endpoint.

    Args:
        name: Its name, which tells the model's version.
        model: The model, ``name:version``.
        state: ``ready``, ``starting``, ``failed`` or ``stopped``.
        created_at: When it was made, with a time zone.
        run_sha256: Hash of its run, by which the same content is known again; empty where not known.
        num_requests: How many it was asked since it started, where the host counts them.
        num_errors: How many of them it could not answer.
        memory_bytes: How much memory it takes, where the host measures it.
        made_with: What it is made of besides its model: equal ones run alike.
        instance_type: Size of its machines, where it has its own.
        instance_count: How many they are.
    """

    name: str
    model: str
    state: str
    created_at: datetime
    run_sha256: str = ""
    num_requests: int | None = None
    num_errors: int | None = None
    memory_bytes: int | None = None
    made_with: str = ""
    instance_type: str = ""
    instance_count: int = 0

    @property
    def machines(self) -> str:
        """Its machines, for people; empty where it has none of its own."""
        return f"{self.instance_count} x {self.instance_type}" if self.instance_type else ""


@dataclass(frozen=True)
class Endpoint:
    """An address that answers, and what answers there.

    Args:
        name: Its name: 3 to 32 characters, lower-case letters, digits and hyphens, a letter first.
        scoring_uri: Where requests are posted.
        state: ``running`` or ``stopped``.
        traffic: Per deployment, the share of requests that it gets, in percent; they add up to 0 or 100.
        deployments: What answers, in order of age.
    """

    name: str
    scoring_uri: str
    state: str
    traffic: Mapping[str, int]
    deployments: tuple[Deployment, ...]


def read_answer(answer: Any) -> Prediction:
    """Return what an endpoint says about one image.

    Args:
        answer: The JSON values of its answer.

    Raises:
        LookupError, TypeError, AttributeError, ValueError: If it is no such answer.
    """
    ranked = sorted(answer["probabilities"].items(), key=lambda item: -item[1])
    return Prediction(answer["result"], float(answer["probability"]), dict(ranked))


class EndpointHost(Protocol):
    """Keeps endpoints and their deployments, as Azure ML's managed online endpoints do."""

    stem: str
    """What the names of new deployments begin with; a model's version follows."""

    @property
    def made_with(self) -> str:
        """What new deployments are made of besides their model: equal ones run alike."""

    def list_endpoints(self) -> list[Endpoint]:
        """Return all endpoints, sorted by name."""

    def get_endpoint(self, name: str) -> Endpoint:
        """Return an endpoint.

        Raises:
            DeployError: If there is none of that name.
        """

    def create_endpoint(self, name: str) -> Endpoint:
        """Make an endpoint without deployments, or return the one that is there, running.

        Raises:
            DeployError: If the name is not allowed, or the endpoint can't be made.
        """

    def create_deployment(self, endpoint: str, deployment: str, model: RegisteredModel, run: Run) -> None:
        """Start a model behind an endpoint, without any traffic; returns once it is ready.

        Raises:
            DeployError: If it did not become ready; its logs can still be read, and it can be deleted.
        """

    def invoke(self, endpoint: str, image: bytes, *, deployment: str | None = None) -> Prediction:
        """Ask the endpoint about an image file; a deployment by name, or else as traffic says.

        Raises:
            ImageError: If the endpoint can't read the image.
            EndpointTimeoutError: If no answer came in time.
            DeployError: If there is no such endpoint or deployment, or it fails.
        """

    def read_key(self, endpoint: str, *, regenerate: bool = False) -> str:
        """Return the key that callers show; ``regenerate`` makes a new one, and the old one is void.

        Raises:
            DeployError: If there is no such endpoint.
        """

    def set_traffic(self, endpoint: str, traffic: Mapping[str, int]) -> None:
        """Divide the requests among the deployments, all at once.

        Raises:
            DeployError: If shares don't add up to 0 or 100, or a deployment is missing or not ready.
        """

    def set_mirror(self, endpoint: str, mirror: Mapping[str, int]) -> None:
        """Send copies of a share of the requests to a deployment; nobody sees its answers.

        Raises:
            DeployError: If the host can't.
        """

    def logs(self, endpoint: str, deployment: str, *, tail: int = 50) -> str:
        """Return the last lines that a deployment has written.

        Raises:
            DeployError: If there is none of that name.
        """

    def delete(self, endpoint: str, deployment: str | None = None) -> None:
        """Delete a deployment without traffic, or an endpoint with all that belongs to it.

        Raises:
            DeployError: If there is none of that name, or the deployment has traffic.
        """
