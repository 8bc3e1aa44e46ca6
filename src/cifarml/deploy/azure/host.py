"""Endpoints in Azure: managed online endpoints of an Azure ML workspace."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cifarml.azure.compute import add_sizes
from cifarml.azure.errors import diagnose_log, is_missing
from cifarml.azure.image_digest import DIGEST_TAG, find_image_digest
from cifarml.azure.prices import find_price
from cifarml.azure.workspace import TAG, AzureWorkspace, state_name
from cifarml.deploy.azure.scoring_client import ScoringClient
from cifarml.deploy.azure.specs import (
    IMAGE,
    DeploymentOptions,
    build_deployment,
    build_endpoint,
    build_environment,
    fingerprint,
    write_yaml,
)
from cifarml.deploy.azure.state import EndpointReader, check_name
from cifarml.deploy.base import Endpoint
from cifarml.errors import CloudDeployError, DeployError
from cifarml.images import ImageLike, encode_image
from cifarml.predict import Prediction
from cifarml.registry.azure.registry import AzureRegistry
from cifarml.registry.base import RegisteredModel
from cifarml.serve.endpoint_folder import check_endpoint_name, check_traffic

if TYPE_CHECKING:
    from azure.ai.ml.entities import OnlineEndpoint

_KEY_TIMEOUT_S: Final = 60.0
_LOG_LINES: Final = 200


class AzureHost(EndpointReader):
    """Keeps endpoints in an Azure ML workspace.

    Args:
        workspace: Where; from settings when left out.
        options: How new endpoints and deployments run.
        script: Another scoring script for new deployments than ours.
        poll_s: How long is waited, at most, before it is asked again whether an operation is over.

    Example:
        >>> host = AzureHost()  # doctest: +SKIP
        >>> host.invoke("cifar10", "ship.png").label  # doctest: +SKIP
        'ship'
    """

    def __init__(
        self,
        workspace: AzureWorkspace | None = None,
        options: DeploymentOptions | None = None,
        *,
        script: Path | None = None,
        poll_s: float = 5.0,
    ) -> None:
        super().__init__(workspace or AzureWorkspace(), poll_s)
        self.options = options or DeploymentOptions()
        self._script = script
        self._clients: dict[str, ScoringClient] = {}

    name_prefix = "version-"  # Azure requires names of at least three characters

    @cached_property
    def config_fingerprint(self) -> str:
        """Hash of how new deployments are configured."""
        return fingerprint(self.options, self._script)

    def list_endpoints(self) -> list[Endpoint]:
        """Return the endpoints that we made, sorted by name."""
        with self._calling("list the endpoints"):
            found = [e for e in self.workspace.client.online_endpoints.list() if TAG in (e.tags or {})]
        return [self._endpoint(each) for each in sorted(found, key=lambda each: str(each.name))]

    def create_endpoint(self, name: str) -> Endpoint:
        """Create an endpoint; see :class:`~cifarml.deploy.base.EndpointHost`."""
        check_endpoint_name(name)
        there = self._wait_until_idle(name)
        if there is not None and TAG not in (there.tags or {}):
            raise DeployError(
                f"the workspace has an endpoint {name} that cifarml did not make, and won't change",
                hint="take another name: cifarml deploy --name NAME",
            )
        if there is None or state_name(there.provisioning_state) == "failed":
            with self._tolerate_if_done(lambda: self._is_made(name)), self._calling(f"make endpoint {name}"):
                client = self.workspace.client
                poller = client.online_endpoints.begin_create_or_update(build_endpoint(name, self.options))
                self.workspace.wait(poller, f"endpoint {name} is being made")
        return self.get_endpoint(name)

    def create_deployment(self, endpoint: str, deployment: str, model: RegisteredModel) -> None:
        """Start a model behind an endpoint; see :class:`~cifarml.deploy.base.EndpointHost`."""
        check_name(deployment)
        self._check_registered_here(model)
        there = self._endpoint(self._wait_until_idle(endpoint) or self._get(endpoint))
        if deployment in {each.name for each in there.deployments}:
            raise DeployError(f"there is a deployment {deployment} already")
        self._ensure_environment()
        tags = {
            "run_sha256": model.run_sha256,
            "config_fingerprint": self.config_fingerprint,
            "created_at": datetime.now(UTC).isoformat(),
            DIGEST_TAG: find_image_digest(IMAGE, self.workspace.report),
        }
        with tempfile.TemporaryDirectory(prefix="cifarml-") as folder:
            made = build_deployment(
                *(endpoint, deployment, model, self.options),
                folder=Path(folder),
                tags=tags,
                script=self._script,
            )
            made_anyway = self._tolerate_if_done(
                lambda: self._is_ready(endpoint, deployment, tags["created_at"])
            )
            client = self.workspace.client.online_deployments
            try:
                with made_anyway, self._calling(f"start deployment {deployment}"):
                    poller = client.begin_create_or_update(made, skip_script_validation=True)
                    self.workspace.wait(poller, f"deployment {deployment} is being made")
            except CloudDeployError as error:
                raise self._with_reason(error, endpoint, deployment) from None

    def invoke(self, endpoint: str, image: ImageLike, *, deployment: str | None = None) -> Prediction:
        """Query an endpoint; see :class:`~cifarml.deploy.base.EndpointHost`."""
        if deployment is not None:
            check_name(deployment)
        if endpoint not in self._clients:
            uri = str(self._get(endpoint).scoring_uri)
            self._clients[endpoint] = ScoringClient(endpoint, uri, partial(self.read_key, endpoint))
        return self._clients[endpoint].score(encode_image(image), deployment)

    def read_key(self, endpoint: str, *, regenerate: bool = False) -> str:
        """Return the key that callers send, or a token if the endpoint uses Entra ID."""
        found = self._get(endpoint)
        if str(found.auth_mode).lower() != "key":
            if regenerate:
                raise DeployError(f"endpoint {endpoint} has no key: callers show a token of Entra ID")
            with self._calling("get a token"):
                return self.workspace.credential.get_token("https://ml.azure.com/.default").token
        key = self._read_key(endpoint)
        if not regenerate:
            return key
        self._clients.pop(endpoint, None)
        with self._calling(f"make a new key for {endpoint}"):  # the client would send the old one
            path = f"/onlineEndpoints/{endpoint}/regenerateKeys"
            self.workspace.request("POST", path, {"keyType": "Primary"})
        ends = time.monotonic() + _KEY_TIMEOUT_S
        while (new := self._read_key(endpoint)) == key:
            if time.monotonic() > ends:
                raise DeployError(f"endpoint {endpoint} still has its old key", hint="try again in a minute")
            time.sleep(min(self._poll_s, 1.0))
        return new

    def costs(self, endpoint: Endpoint | None = None) -> str:
        """Return the costs by the public price list; see :class:`~cifarml.deploy.base.EndpointHost`."""
        if endpoint is None:
            count, size = self.options.instance_count, self.options.instance_type
            return f"{count} x {size}: {find_price(size, self.workspace.location).format(count)}"
        total, currency = 0.0, "USD"
        for each in endpoint.deployments:
            price = find_price(each.instance_type, self.workspace.location)
            if price.per_hour is None:
                return price.format()
            total, currency = total + each.instance_count * price.per_hour, price.currency
        return f"{total:.3f} {currency} an hour, by the public price list"

    def set_traffic(self, endpoint: str, traffic: Mapping[str, int]) -> None:
        """Divide the requests among the deployments; see :class:`~cifarml.deploy.base.EndpointHost`."""
        found = self._wait_until_idle(endpoint) or self._get(endpoint)
        ready = {each.name: each.state == "ready" for each in self._endpoint(found).deployments}
        check_traffic(dict(traffic), ready)
        found.traffic = {name: share for name, share in traffic.items() if share}
        # A mirror gets nothing while it has traffic of its own.
        found.mirror_traffic = {}
        self._update(found, f"change the traffic of {endpoint}")

    def set_mirror(self, endpoint: str, mirror: Mapping[str, int]) -> None:
        """Mirror requests to a deployment; see :class:`~cifarml.deploy.base.EndpointHost`."""
        found = self._wait_until_idle(endpoint) or self._get(endpoint)
        found.mirror_traffic = dict(mirror)
        self._update(found, f"mirror requests of {endpoint}")

    def logs(self, endpoint: str, deployment: str, *, tail: int = 50) -> str:
        """Return the last lines of the container's log; see :class:`~cifarml.deploy.base.EndpointHost`."""
        return self._logs(endpoint, deployment, tail)

    def storage_logs(self, endpoint: str, deployment: str, *, tail: int = 50) -> str:
        """Return the last lines that a deployment's storage initializer has logged."""
        return self._logs(endpoint, deployment, tail, "storage-initializer")

    def write_yaml(self, folder: Path, endpoint: str, deployment: str, model: RegisteredModel) -> list[Path]:
        """Write a deployment as files for ``az ml``; see :class:`~cifarml.deploy.base.EndpointHost`."""
        return write_yaml(folder, endpoint, deployment, model, self.options)

    def delete(self, endpoint: str, deployment: str | None = None) -> None:
        """Delete a deployment or an endpoint; see :class:`~cifarml.deploy.base.EndpointHost`."""
        found = self._wait_until_idle(endpoint) or self._get(endpoint)
        client = self.workspace.client
        if deployment is None:
            gone = self._tolerate_if_done(lambda: self._wait_until_idle(endpoint) is None)
            with gone, self._calling(f"delete endpoint {endpoint}"):
                poller = client.online_endpoints.begin_delete(endpoint)
                self.workspace.wait(poller, f"endpoint {endpoint} is being deleted")
            self._clients.pop(endpoint, None)
            return
        self.get_endpoint(endpoint).find(deployment)
        if (found.traffic or {}).get(deployment):
            raise DeployError(
                f"deployment {deployment} of {endpoint} has traffic, and is not deleted",
                hint=f"give it to others first: cifarml endpoint traffic OTHER=100 --name {endpoint}",
            )
        if (found.mirror_traffic or {}).get(deployment):
            self.set_mirror(endpoint, {})
        gone = self._tolerate_if_done(lambda: deployment not in self._names(endpoint))
        with gone, self._calling(f"delete deployment {deployment}"):
            poller = client.online_deployments.begin_delete(deployment, endpoint)
            self.workspace.wait(poller, f"deployment {deployment} is being deleted")

    def _check_registered_here(self, model: RegisteredModel) -> None:
        home = model.registry.workspace if isinstance(model.registry, AzureRegistry) else None
        if str(home) != str(self.workspace):
            raise DeployError(
                f"{model} is not registered in workspace {self.workspace.name}",
                hint="register its run there: cifarml models register RUN --target azure",
            )

    def _is_made(self, name: str) -> bool:
        found = self._wait_until_idle(name)
        return found is not None and state_name(found.provisioning_state) == "succeeded"

    def _is_ready(self, endpoint: str, deployment: str, created_at: str) -> bool:
        there = self._endpoint(self._wait_until_idle(endpoint) or self._get(endpoint))
        return any(
            each.name == deployment and each.state == "ready" and each.created_at.isoformat() == created_at
            for each in there.deployments
        )

    def _ensure_environment(self) -> None:
        wanted = build_environment()
        with self._calling(f"register environment {wanted.name}"):
            environments = self.workspace.client.environments
            try:
                environments.get(wanted.name, version=wanted.version)
            except Exception as error:
                if not is_missing(error):
                    raise
                environments.create_or_update(wanted)

    def _update(self, endpoint: OnlineEndpoint, what: str) -> None:
        name, traffic = str(endpoint.name), dict(endpoint.traffic or {})
        mirror = dict(endpoint.mirror_traffic or {})

        def is_done() -> bool:
            now = self._wait_until_idle(name)
            return now is not None and (now.traffic or {}, now.mirror_traffic or {}) == (traffic, mirror)

        with self._tolerate_if_done(is_done), self._calling(what):
            poller = self.workspace.client.online_endpoints.begin_create_or_update(endpoint)
            self.workspace.wait(poller, f"endpoint {endpoint.name} is being changed")

    def _logs(self, endpoint: str, deployment: str, tail: int, container: str | None = None) -> str:
        self.get_endpoint(endpoint).find(deployment)
        with self._calling(f"read the log of {deployment}"):
            text = self.workspace.client.online_deployments.get_logs(
                name=deployment, endpoint_name=endpoint, lines=tail, container_type=container
            )
        return "\n".join(str(text).rstrip("\n").splitlines()[-tail:])

    def _with_reason(self, error: CloudDeployError, endpoint: str, deployment: str) -> CloudDeployError:
        """Add to an error which sizes fit the quota, or what the container's log usually means."""
        if error.code not in {"ResourceNotReady", ""}:  # permissions and so on have hints of their own
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
        error.hint = f"its log: cifarml endpoint logs {endpoint} --deployment {deployment}"
        return error

    def _read_key(self, endpoint: str) -> str:
        with self._calling(f"read the key of {endpoint}"):
            return str(self.workspace.client.online_endpoints.get_keys(endpoint).primary_key)
