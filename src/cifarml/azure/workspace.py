"""Azure ML workspace: client, credential, error translation and long-running operations."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cifarml.azure._quirks import CLIENT_OUTPUT, create_client, import_client
from cifarml.azure.errors import is_missing, translate_error
from cifarml.config_files import WORKSPACE
from cifarml.errors import CifarMLError, CloudError, SettingsError
from cifarml.settings import Settings, load_settings

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import TokenCredential

_T = TypeVar("_T")

OnWait = Callable[[str], None]
"""Called with a progress line while an operation runs."""

TAG: Final = "cifarml"
"""Tag of every resource that cifarml creates; its value is the version of cifarml."""

_ARM: Final = "https://management.azure.com"
_API_VERSION: Final = "2024-04-01"
_REPORT_EVERY_S: Final = 30.0
_CONNECTION_TIMEOUT_S: Final = 20
_READ_TIMEOUT_S: Final = 60


class AzureWorkspace:
    """Azure ML workspace, identified by settings or Azure ML's `config.json`; contacted on first use.

    Args:
        settings: Subscription, resource group and workspace; default: from the environment.
        on_wait: Called with a progress line, every 30 seconds while an operation runs.

    Raises:
        SettingsError: If no workspace is set, or a part of its resource ID is not a valid name.

    Example:
        ```python
        from cifarml import AzureWorkspace

        workspace = AzureWorkspace()
        with workspace.calling("list the models"):
            versions = list(workspace.client.models.list("cifar10"))
        ```
    """

    def __init__(self, settings: Settings | None = None, *, on_wait: OnWait = lambda _: None) -> None:
        self.settings = settings or load_settings()
        missing = [name for name in WORKSPACE if not getattr(self.settings, name)]
        if missing:
            raise SettingsError(
                f"no Azure ML workspace is set: {', '.join(missing)} missing",
                hint="put the workspace's config.json here (in the studio: Download config file), or set "
                + ", ".join(f"AZURE_{name.upper()}" for name in missing),
            )
        self.subscription_id = _name(self.settings, "subscription_id")
        self.resource_group = _name(self.settings, "resource_group")
        self.name = _name(self.settings, "workspace_name")
        self._on_wait = on_wait

    def __str__(self) -> str:
        return (
            f"Azure, workspace {self.name}, resource group {self.resource_group}, "
            f"subscription {self.subscription_id}"
        )

    @property
    def resource_id(self) -> str:
        """Resource ID in Azure Resource Manager."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.name}"
        )

    @cached_property
    def credential(self) -> TokenCredential:
        """`DefaultAzureCredential`: environment variables, managed identity, `az login` and so on."""
        from azure.identity import DefaultAzureCredential

        logging.getLogger("azure.identity").setLevel(logging.CRITICAL)  # the CloudError contains it
        credential: TokenCredential = DefaultAzureCredential()
        return credential

    @cached_property
    def client(self) -> MLClient:
        """The `azure.ai.ml.MLClient` of the workspace; call it inside `calling`."""
        return create_client(self.credential, self.subscription_id, self.resource_group, self.name)

    @cached_property
    def info(self) -> Any:
        """The `azure.ai.ml.entities.Workspace`: location, storage account, MLflow tracking URI.

        Raises:
            CloudError: If the workspace does not exist, or the request fails.
        """
        with self.calling(f"get workspace {self.name}"):
            return self.client.workspaces.get(self.name)

    @property
    def location(self) -> str:
        """Azure region, such as `eastus`."""
        return str(self.info.location)

    @contextlib.contextmanager
    def calling(self, action: str, kind: type[CloudError] = CloudError) -> Iterator[None]:
        """Context manager for calls of the client: suppress its output, translate its exceptions.

        Args:
            action: Attempted action, for the message "can't ACTION: REASON".
            kind: Class of the error to raise.

        Raises:
            CloudError: An instance of `kind`, if the client raises.

        Example:
            ```python
            with workspace.calling("list the clusters"):
                clusters = list(workspace.client.compute.list())
            ```
        """
        import_client()
        try:
            with CLIENT_OUTPUT.dropped():
                yield
        except CifarMLError:
            raise
        except Exception as error:  # noqa: BLE001  # the client raises many types
            raise translate_error(error, action, self._names, kind) from None

    def find(self, action: str, get: Callable[[], _T], kind: type[CloudError] = CloudError) -> _T | None:
        """Get a resource with the client.

        Args:
            action: Attempted action, for the message "can't ACTION: REASON".
            get: Calls the client.
            kind: Class of the error to raise.

        Returns:
            The result of `get`, or None if the resource does not exist.

        Raises:
            CloudError: An instance of `kind`, if the client raises another error.

        Example:
            ```python
            cluster = workspace.find("get cluster gpu", lambda: workspace.client.compute.get("gpu"))
            ```
        """
        with self.calling(action, kind):
            try:
                return get()
            except Exception as error:
                if is_missing(error):
                    return None
                raise

    @property
    def _names(self) -> dict[str, str]:
        """Placeholders of the hints; reading them sends no request."""
        return {
            "location": str(getattr(self.__dict__.get("info"), "location", "REGION")),
            "subscription": self.subscription_id,
            "group": self.resource_group,
            "workspace": self.name,
            "scope": self.resource_id,
        }

    def report(self, line: str) -> None:
        """Call `on_wait` with a progress line; its output is visible inside `calling`, too.

        Args:
            line: Text for the user.
        """
        with CLIENT_OUTPUT.visible():
            self._on_wait(line)

    def wait(self, poller: Any, what: str) -> Any:
        """Wait for a long-running operation, with progress reports; call it inside `calling`.

        Args:
            poller: The `azure.core.polling.LROPoller` of the operation.
            what: Description of the operation, for the reports.

        Returns:
            The result of the operation.

        Raises:
            azure.core.exceptions.AzureError: If the operation fails.

        Example:
            ```python
            with workspace.calling("delete cluster gpu"):
                workspace.wait(workspace.client.compute.begin_delete("gpu"), "deleting cluster gpu")
            ```
        """
        waited_s = 0.0
        while not poller.done():
            poller.wait(_REPORT_EVERY_S)
            if not poller.done():
                waited_s += _REPORT_EVERY_S
                self.report(f"{what}: {waited_s / 60:.1f} minutes elapsed")
        return poller.result()

    def request(
        self,
        method: str,
        url: str,
        values: object = None,
        *,
        version: str = _API_VERSION,
        **options: Any,
    ) -> Any:
        """Send a request that the client has no method for; call it inside `calling`.

        Args:
            method: HTTP method.
            url: Path below the resource ID, such as `/onlineEndpoints/x/listKeys`, or the URL of another
                service that accepts the same tokens.
            values: JSON body of the request.
            version: `api-version` of the path.
            options: Options of azure-core's policies.

        Returns:
            The JSON body of the response; None if it is empty.

        Raises:
            azure.core.exceptions.AzureError: If the request fails.

        Example:
            ```python
            with workspace.calling("list the datastores"):
                datastores = workspace.request("GET", "/datastores")["value"]
            ```
        """
        from azure.core.rest import HttpRequest

        if url.startswith("/"):
            url = f"{_ARM}{self.resource_id}{url}?api-version={version}"
        response = self._pipeline.send_request(HttpRequest(method, url, json=values), **options)
        response.raise_for_status()
        return response.json() if response.content else None

    @cached_property
    def _pipeline(self) -> Any:
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy, UserAgentPolicy
        from azure.core.pipeline.transport import RequestsTransport

        policies = [
            UserAgentPolicy("cifarml"),
            RetryPolicy(),
            BearerTokenCredentialPolicy(self.credential, f"{_ARM}/.default"),
        ]
        transport = RequestsTransport(connection_timeout=_CONNECTION_TIMEOUT_S, read_timeout=_READ_TIMEOUT_S)
        return PipelineClient(_ARM, policies=policies, transport=transport)


def state_name(value: object) -> str:
    """Return a state in lower case; the client has both strings and enum members."""
    return str(getattr(value, "value", value)).lower()


def _name(settings: Settings, setting: str) -> str:
    """Return a part of the resource ID after validation, because it becomes part of URLs."""
    text = str(getattr(settings, setting))
    if not re.fullmatch(r"[A-Za-z0-9_.()-]{1,90}", text) or text.endswith("."):
        raise SettingsError(
            f"{setting} must contain only letters, digits, hyphens, dots and underscores. "
            f"Received: {text[:90]!r}",
            hint="copy it from the workspace's config.json",
        )
    return text
