"""Endpoints of an Azure ML workspace: state, logs and running operations."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from cifarml.azure.compute import add_sizes
from cifarml.azure.errors import diagnose_log, is_missing
from cifarml.azure.workspace import TAG, AzureWorkspace, state_name
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
_LOG_LINES: Final = 200


class EndpointReader(EndpointHost):
    """Reads the endpoints of a workspace, and waits for running operations on them.

    Args:
        workspace: The workspace.
        poll_s: Maximum polling interval for the state of an operation, in seconds.
    """

    def __init__(self, workspace: AzureWorkspace, poll_s: float) -> None:
        self.workspace = workspace
        self._poll_s = poll_s

    def list_endpoints(self) -> list[Endpoint]:
        """Return the endpoints managed by cifarml, sorted by name.

        Raises:
            CloudDeployError: If the workspace can't be read.
        """
        with self._calling("list the endpoints"):
            found = [e for e in self.workspace.client.online_endpoints.list() if TAG in (e.tags or {})]
        return [self._endpoint(each) for each in sorted(found, key=lambda each: str(each.name))]

    def get_endpoint(self, name: str) -> Endpoint:
        """Return an endpoint, with its deployments and traffic.

        Args:
            name: Name of the endpoint.

        Raises:
            DeployError: If it does not exist or can't be read.
        """
        return self._endpoint(self._get(name))

    def logs(self, endpoint: str, deployment: str, *, tail: int = 50) -> str:
        """Return the last lines of a deployment's container log.

        Args:
            endpoint: Name of the endpoint.
            deployment: Name of the deployment.
            tail: Number of lines.

        Raises:
            DeployError: If the endpoint or deployment does not exist.
        """
        return self._logs(endpoint, deployment, tail)

    def storage_logs(self, endpoint: str, deployment: str, *, tail: int = 50) -> str:
        """Return the last lines of the log of a deployment's storage initializer.

        Args:
            endpoint: Name of the endpoint.
            deployment: Name of the deployment.
            tail: Number of lines.

        Raises:
            DeployError: If the endpoint or deployment does not exist.
        """
        return self._logs(endpoint, deployment, tail, "storage-initializer")

    def _get(self, name: str) -> OnlineEndpoint:
        found = self._try_get(check_endpoint_name(name))
        if found is None:
            raise DeployError(
                f"there is no endpoint {name} in workspace {self.workspace.name}",
                hint="list them with: cifarml endpoint list; create one with: cifarml deploy",
            )
        return found

    def _try_get(self, name: str) -> OnlineEndpoint | None:
        with self._calling(f"read endpoint {name}"):
            try:
                found: OnlineEndpoint = self.workspace.client.online_endpoints.get(name)
            except Exception as error:
                if is_missing(error):
                    return None
                raise
            return found

    def _wait_until_idle(
        self, name: str, on_busy: Callable[[OnlineEndpoint, str], None] = lambda *_: None
    ) -> OnlineEndpoint | None:
        """Wait until no operation runs on an endpoint; return it, or None if it no longer exists.

        ``on_busy`` is called with the endpoint and a description of the operation.
        """
        ends, wait_s = time.monotonic() + _SETTLE_TIMEOUT_S, _FIRST_WAIT_S
        while (found := self._try_get(name)) is not None:
            things: list[Any] = [found, *self._deployments(name)]
            states = [(each.name, state_name(each.provisioning_state)) for each in reversed(things)]
            busy = [f"{thing} is {state}" for thing, state in states if state in _BUSY]
            if not busy:
                return found
            on_busy(found, busy[0])
            if time.monotonic() > ends:
                raise DeployError(f"endpoint {name} is still being updated", hint="try again later")
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
                if is_missing(error):  # the endpoint was deleted in the meantime
                    return []
                raise

    def _names(self, endpoint: str) -> set[str]:
        self._wait_until_idle(endpoint)
        return {str(each.name) for each in self._deployments(endpoint)}

    def _is_created(self, name: str) -> bool:
        found = self._wait_until_idle(name)
        return found is not None and state_name(found.provisioning_state) == "succeeded"

    def _is_ready(self, endpoint: str, deployment: str, created_at: str) -> bool:
        found = self._endpoint(self._wait_until_idle(endpoint) or self._get(endpoint))
        return any(
            each.name == deployment and each.state == "ready" and each.created_at.isoformat() == created_at
            for each in found.deployments
        )

    def _logs(self, endpoint: str, deployment: str, tail: int, container: str | None = None) -> str:
        self.get_endpoint(endpoint).find(deployment)
        with self._calling(f"read the log of {deployment}"):
            text = self.workspace.client.online_deployments.get_logs(
                name=deployment, endpoint_name=endpoint, lines=tail, container_type=container
            )
        return "\n".join(str(text).rstrip("\n").splitlines()[-tail:])

    def _with_reason(self, error: CloudDeployError, endpoint: str, deployment: str) -> CloudDeployError:
        """Add to an error the sizes that fit the quota, or the cause found in the container's log."""
        if error.code not in {"ResourceNotReady", ""}:  # other errors have their own hints
            add_sizes(self.workspace, error)
            return error
        try:
            log = self.logs(endpoint, deployment, tail=_LOG_LINES)
            log = log or self.storage_logs(endpoint, deployment, tail=_LOG_LINES)
        except DeployError:
            return error
        if reason := diagnose_log(log):
            error.message += f": {reason}"
            error.args = (error.message,)
        error.hint = f"see its log: cifarml endpoint logs {endpoint} --deployment {deployment}"
        return error

    def _read_key(self, endpoint: str) -> str:
        with self._calling(f"read the key of {endpoint}"):
            return str(self.workspace.client.online_endpoints.get_keys(endpoint).primary_key)

    @contextmanager
    def _tolerate_if_done(self, is_done: Callable[[], bool]) -> Iterator[None]:
        """Ignore an error if the operation took effect, since only its response may have been lost."""
        try:
            yield
        except CloudDeployError:
            with suppress(CloudError):
                if is_done():
                    return
            raise

    @contextmanager
    def _calling(self, action: str) -> Iterator[None]:
        with self.workspace.calling(action, CloudDeployError):
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
    """Return a deployment name, or raise a DeployError if Azure does not allow it."""
    if len(check_deployment_name(deployment)) < _MIN_NAME:
        raise DeployError(
            f"a deployment name in Azure must have 3 to 32 characters. Received: {deployment!r}"
        )
    return deployment


def _model_of(resource_id: str) -> str:
    found = re.search(r"/models/([^/]+)/versions/([^/]+)$", resource_id)
    return f"{found[1]}:{found[2]}" if found else resource_id
