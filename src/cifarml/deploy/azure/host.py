"""Host of managed online endpoints in an Azure ML workspace."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cifarml.azure.image_digest import DIGEST_TAG, find_image_digest
from cifarml.azure.prices import find_price
from cifarml.azure.workspace import TAG, AzureWorkspace, state_name
from cifarml.deploy.azure.changes import EndpointChanges
from cifarml.deploy.azure.scoring_client import ScoringClient
from cifarml.deploy.azure.specs import (
    IMAGE,
    DeploymentOptions,
    build_deployment,
    build_endpoint,
    ensure_environment,
    fingerprint,
    write_yaml,
)
from cifarml.deploy.azure.state import check_name
from cifarml.deploy.base import DeploymentExistsError, Endpoint
from cifarml.errors import CloudDeployError, DeployError
from cifarml.images import ImageLike, encode_image
from cifarml.predict import Prediction
from cifarml.registry.azure.registry import AzureRegistry
from cifarml.registry.base import RegisteredModel
from cifarml.serve.endpoint_folder import check_endpoint_name, check_traffic

if TYPE_CHECKING:
    from azure.ai.ml.entities import OnlineDeployment, OnlineEndpoint

_KEY_TIMEOUT_S: Final = 60.0


class AzureHost(EndpointChanges):
    """Host of managed online endpoints in an Azure ML workspace.

    Args:
        workspace: The workspace; from the settings if omitted.
        options: Configuration of new endpoints and deployments.
        script: Custom scoring script for new deployments.
        poll_s: Maximum polling interval for running operations, in seconds.

    Example:
        ```python
        host = AzureHost()
        deploy_model(host, AzureRegistry().get("cifar10"))
        host.invoke("cifar10", "ship.png").label  # "ship"
        host.read_key("cifar10")
        host.delete("cifar10")
        ```
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
        """Hash of the configuration of new deployments, without the model."""
        return fingerprint(self.options, self._script)

    def create_endpoint(self, name: str) -> Endpoint:
        """Create an endpoint without deployments, or return the existing one.

        Args:
            name: 3 to 32 lower-case letters, digits and hyphens, beginning with a letter.

        Returns:
            The endpoint.

        Raises:
            DeployError: If the name is invalid or taken, or the endpoint can't be created.
        """
        check_endpoint_name(name)
        while (found := self._take_turn(name)) is None:
            self._create_endpoint(name)
        if TAG not in (found.tags or {}):
            raise DeployError(
                f"endpoint {name} in workspace {self.workspace.name} is not managed by cifarml",
                hint="choose another name: cifarml deploy --name NAME",
            )
        if state_name(found.provisioning_state) == "failed":  # it can still serve: keep all that it has
            self._update(name, f"repair endpoint {name}", lambda _: None)
        return self.get_endpoint(name)

    def _create_endpoint(self, name: str) -> None:
        """Create an endpoint; another process may do so at the same time."""
        new = build_endpoint(name, self.options)
        new.tags = self._renewed_tags(new)
        created = self._tolerate_if_done(lambda: self._is_created(name))
        with created, self._calling(f"create endpoint {name}"):
            poller = self.workspace.client.online_endpoints.begin_create_or_update(new)
            self.workspace.wait(poller, f"creating endpoint {name}")

    def create_deployment(self, endpoint: str, deployment: str, model: RegisteredModel) -> None:
        """Create a deployment without traffic, and wait until it is ready.

        Args:
            endpoint: Name of an existing endpoint.
            deployment: Name of the new deployment.
            model: The model to serve, registered in the same workspace.

        Raises:
            DeployError: If it does not become ready. It still exists: read its logs, then delete it.
            ModelFileError: If the model's files are damaged.
        """
        check_name(deployment)
        self._check_registered_here(model)
        ensure_environment(self.workspace, self._calling)
        tags = {
            "run_sha256": model.run_sha256,
            "config_fingerprint": self.config_fingerprint,
            "created_at": datetime.now(UTC).isoformat(),
            DIGEST_TAG: find_image_digest(IMAGE, self.workspace.report),
        }
        with tempfile.TemporaryDirectory(prefix="cifarml-") as folder:
            specification = build_deployment(
                *(endpoint, deployment, model, self.options),
                folder=Path(folder),
                tags=tags,
                script=self._script,
            )
            self._when_free(lambda: self._create_deployment(endpoint, deployment, specification))
        self._renew(endpoint)

    def _create_deployment(self, endpoint: str, deployment: str, specification: OnlineDeployment) -> None:
        found = self._endpoint(self._take_turn(endpoint) or self._get(endpoint))
        if deployment in {each.name for each in found.deployments}:
            raise DeploymentExistsError(f"deployment {deployment} already exists")
        created_at = str((specification.tags or {})["created_at"])
        created = self._tolerate_if_done(lambda: self._is_ready(endpoint, deployment, created_at))
        client = self.workspace.client.online_deployments
        try:
            with created, self._calling(f"create deployment {deployment}"):
                poller = client.begin_create_or_update(specification, skip_script_validation=True)
                self.workspace.wait(poller, f"creating deployment {deployment}")
        except CloudDeployError as error:
            raise self._with_reason(error, endpoint, deployment) from None

    def invoke(self, endpoint: str, image: ImageLike, *, deployment: str | None = None) -> Prediction:
        """Query an endpoint with an image.

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
        if deployment is not None:
            check_name(deployment)
        if endpoint not in self._clients:
            uri = str(self._get(endpoint).scoring_uri)
            self._clients[endpoint] = ScoringClient(endpoint, uri, partial(self.read_key, endpoint))
        return self._clients[endpoint].score(encode_image(image), deployment)

    def read_key(self, endpoint: str, *, regenerate: bool = False) -> str:
        """Return the endpoint's key, or a token if it uses Entra ID; clients send it as a bearer token.

        Args:
            endpoint: Name of the endpoint.
            regenerate: Create a new key, which invalidates the old one.

        Returns:
            The key or token.

        Raises:
            DeployError: If the endpoint does not exist, or has no key to regenerate.
        """
        found = self._get(endpoint)
        if str(found.auth_mode).lower() != "key":
            if regenerate:
                raise DeployError(f"endpoint {endpoint} uses Entra ID tokens, not keys")
            with self._calling("get a token"):
                return self.workspace.credential.get_token("https://ml.azure.com/.default").token
        key = self._read_key(endpoint)
        if not regenerate:
            return key
        self._clients.pop(endpoint, None)  # the client would send the old key
        self._when_free(lambda: self._regenerate_key(endpoint))
        ends = time.monotonic() + _KEY_TIMEOUT_S
        while (new := self._read_key(endpoint)) == key:
            if time.monotonic() > ends:
                raise DeployError(f"endpoint {endpoint} still has its old key", hint="try again in a minute")
            time.sleep(min(self._poll_s, 1.0))
        return new

    def _regenerate_key(self, endpoint: str) -> None:
        self._wait_until_idle(endpoint)
        with self._calling(f"regenerate the key of {endpoint}"):
            path = f"/onlineEndpoints/{endpoint}/regenerateKeys"
            self.workspace.request("POST", path, {"keyType": "Primary"})

    def costs(self, endpoint: Endpoint | None = None) -> str:
        """Describe the costs per hour, by the public price list.

        Args:
            endpoint: The endpoint; a new deployment if omitted.
        """
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

        def edit(found: OnlineEndpoint) -> None:
            now = self._endpoint(found)
            ready = {each.name: each.state == "ready" for each in now.deployments}
            check_traffic(traffic, ready, traffic if restore else now.traffic)
            found.traffic = {name: share for name, share in traffic.items() if share}
            # Azure does not mirror requests to a deployment that has traffic.
            found.mirror_traffic = {}

        self._update(endpoint, f"set the traffic of {endpoint}", edit)

    def set_mirror(self, endpoint: str, mirror: Mapping[str, int]) -> None:
        """Mirror a share of the requests to a deployment, whose responses are discarded.

        Args:
            endpoint: Name of the endpoint.
            mirror: The deployment with its share, 1 to 50 percent; empty to stop mirroring.

        Raises:
            DeployError: If the endpoint does not exist, or Azure refuses.
        """

        def edit(found: OnlineEndpoint) -> None:
            found.mirror_traffic = dict(mirror)

        self._update(endpoint, f"mirror requests of {endpoint}", edit)

    def write_yaml(self, folder: Path, endpoint: str, deployment: str, model: RegisteredModel) -> list[Path]:
        """Write a deployment as YAML files for `az ml`, without creating resources.

        Args:
            folder: The folder to create.
            endpoint: Name of the endpoint.
            deployment: Name of the deployment.
            model: The model to serve.

        Returns:
            The files, in the order of creation.

        Raises:
            CloudError: If the folder is not empty, or can't be written.
        """
        return write_yaml(folder, endpoint, deployment, model, self.options)

    def delete(self, endpoint: str, deployment: str | None = None) -> None:
        """Delete a deployment without traffic, or an endpoint with all its deployments.

        Args:
            endpoint: Name of the endpoint.
            deployment: Name of the deployment; the whole endpoint if omitted.

        Raises:
            DeployError: If it does not exist, or the deployment receives traffic.
        """
        if deployment is not None:
            self._when_free(lambda: self._delete_deployment(endpoint, deployment))
        else:
            self._when_free(lambda: self._delete_endpoint(endpoint))
            self._clients.pop(endpoint, None)

    def _check_registered_here(self, model: RegisteredModel) -> None:
        home = model.registry.workspace if isinstance(model.registry, AzureRegistry) else None
        if str(home) != str(self.workspace):
            raise DeployError(
                f"{model} is not registered in workspace {self.workspace.name}",
                hint="register its run there: cifarml models register RUN --target azure",
            )
