"""Read the state of endpoints and deployments from Azure ML's client."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from cifarml.azure.errors import is_missing
from cifarml.azure.workspace import AzureWorkspace, state_name
from cifarml.deploy.base import Deployment, Endpoint, EndpointHost
from cifarml.errors import CloudDeployError, CloudError, DeployError
from cifarml.serve.endpoint_folder import check_deployment_name, check_endpoint_name

if TYPE_CHECKING:
    from azure.ai.ml.entities import OnlineDeployment, OnlineEndpoint

_STATES: Final = {
    "succeeded": "ready",
    "creating": "starting",
    "updating": "starting",
    "scaling": "starting",
    "failed": "failed",
    "deleting": "deleting",
}
_MIN_NAME: Final = 3
_BUSY: Final = {"creating", "updating", "deleting", "scaling"}
_SETTLE_TIMEOUT_S: Final = 1800.0
_FIRST_WAIT_S: Final = 0.1


class EndpointReader(EndpointHost):
    """Reads the endpoints of a workspace, and waits until nothing is being done to them.

    Args:
        workspace: The workspace.
        poll_s: Longest time between two requests for the state of an operation.
    """

    def __init__(self, workspace: AzureWorkspace, poll_s: float) -> None:
        self.workspace = workspace
        self._poll_s = poll_s

    def get_endpoint(self, name: str) -> Endpoint:
        """Return an endpoint; see :class:`~cifarml.deploy.base.EndpointHost`."""
        return self._endpoint(self._get(name))

    def _get(self, name: str) -> OnlineEndpoint:
        found = self._try_get(check_endpoint_name(name))
        if found is None:
            raise DeployError(
                f"there is no endpoint {name} in workspace {self.workspace.name}",
                hint="list them with: cifarml endpoint list; make one with: cifarml deploy",
            )
        return found

    def _try_get(self, name: str) -> OnlineEndpoint | None:
        with self._calling(f"look at endpoint {name}"):
            try:
                found: OnlineEndpoint = self.workspace.client.online_endpoints.get(name)
            except Exception as error:
                if is_missing(error):
                    return None
                raise
            return found

    def _wait_until_idle(self, name: str) -> OnlineEndpoint | None:
        """Wait until nothing changes an endpoint or its deployments; return it, or None if it is gone."""
        ends, wait_s = time.monotonic() + _SETTLE_TIMEOUT_S, _FIRST_WAIT_S
        while (found := self._try_get(name)) is not None:
            things: list[Any] = [found, *self._deployments(name)]
            states = {state_name(each.provisioning_state) for each in things}
            if not states & _BUSY:
                return found
            if time.monotonic() > ends:
                raise DeployError(f"endpoint {name} is still being changed", hint="try again later")
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, self._poll_s)
        return None

    def _endpoint(self, found: OnlineEndpoint) -> Endpoint:
        deployments = map(_parse_deployment, self._deployments(str(found.name)))
        state = state_name(found.provisioning_state)
        return Endpoint(
            str(found.name),
            str(found.scoring_uri or ""),
            "running" if state == "succeeded" else state,
            {str(name): int(share) for name, share in (found.traffic or {}).items() if share},
            tuple(sorted(deployments, key=lambda each: each.created_at)),
        )

    def _deployments(self, endpoint: str) -> list[OnlineDeployment]:
        with self._calling(f"list the deployments of {endpoint}"):
            try:
                return list(self.workspace.client.online_deployments.list(endpoint))
            except Exception as error:
                if is_missing(error):  # the endpoint has just gone
                    return []
                raise

    def _names(self, endpoint: str) -> set[str]:
        self._wait_until_idle(endpoint)
        return {str(each.name) for each in self._deployments(endpoint)}

    @contextmanager
    def _tolerate_if_done(self, is_done: Callable[[], bool]) -> Iterator[None]:
        """Ignore an error if the operation took effect; its response may have been lost."""
        try:
            yield
        except CloudDeployError:
            with suppress(CloudError):
                if is_done():
                    return
            raise

    @contextmanager
    def _calling(self, what: str) -> Iterator[None]:
        with self.workspace.calling(what, CloudDeployError):
            yield


def _parse_deployment(found: Any) -> Deployment:
    tags: dict[str, str] = dict(found.tags or {})
    state = state_name(found.provisioning_state)
    try:
        created_at = datetime.fromisoformat(tags.get("created_at", ""))
    except ValueError:
        created_at = datetime.fromtimestamp(0, UTC)
    return Deployment(
        str(found.name),
        tags.get("cifarml_model") or _model_of(str(found.model or "")),
        _STATES.get(state, state),
        created_at if created_at.tzinfo else created_at.replace(tzinfo=UTC),
        tags.get("run_sha256", ""),
        config_fingerprint=tags.get("config_fingerprint", ""),
        instance_type=str(found.instance_type or ""),
        instance_count=int(found.instance_count or 1),
    )


def check_name(deployment: str) -> str:
    """Return the name of a deployment if it is valid in Azure; raise a DeployError otherwise."""
    if len(check_deployment_name(deployment)) < _MIN_NAME:
        raise DeployError(f"a deployment's name in Azure has 3 to 32 characters. Received: {deployment!r}")
    return deployment


def _model_of(resource_id: str) -> str:
    found = re.search(r"/models/([^/]+)/versions/([^/]+)$", resource_id)
    return f"{found[1]}:{found[2]}" if found else resource_id
