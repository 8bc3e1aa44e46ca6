"""An Azure ML workspace, and the client that talks to it."""

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
"""Called now and then with what is being waited for."""

TAG: Final = "cifarml"
"""Tag of everything that cifarml creates; its value is the version of cifarml."""

_ARM: Final = "https://management.azure.com"
_API_VERSION: Final = "2024-04-01"
_TELL_EVERY_S: Final = 30.0
_CONNECTION_TIMEOUT_S: Final = 20
_READ_TIMEOUT_S: Final = 60


class AzureWorkspace:
    """An Azure ML workspace, named by settings or Azure ML's config.json; it is contacted on first use.

    Args:
        settings: Which workspace; from the environment if omitted.
        on_wait: Called every half minute with what is being waited for.

    Raises:
        SettingsError: If no workspace is set, or a part of its resource id is not a valid name.

    Example:
        >>> AzureWorkspace().client.models.list("cifar10")  # doctest: +SKIP
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
        """The resource id in Azure Resource Manager."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.name}"
        )

    @cached_property
    def credential(self) -> TokenCredential:
        """Environment, managed identity or az login, in the order of `DefaultAzureCredential`."""
        from azure.identity import DefaultAzureCredential

        logging.getLogger("azure.identity").setLevel(logging.CRITICAL)  # it is in our own error
        credential: TokenCredential = DefaultAzureCredential()
        return credential

    @cached_property
    def client(self) -> MLClient:
        """The Azure ML client; call it inside :meth:`calling`."""
        return create_client(self.credential, self.subscription_id, self.resource_group, self.name)

    @cached_property
    def info(self) -> Any:
        """The workspace as the service describes it: location, storage account, tracking URI."""
        with self.calling(f"look at workspace {self.name}"):
            return self.client.workspaces.get(self.name)

    @property
    def location(self) -> str:
        """The region, such as ``eastus``."""
        return str(self.info.location)

    @contextlib.contextmanager
    def calling(self, action: str, kind: type[CloudError] = CloudError) -> Iterator[None]:
        """Call the client in the block: what it prints is dropped, what it raises becomes a `CloudError`.

        Args:
            action: What is tried, as in "can't ...".
            kind: What is raised.

        Raises:
            CloudError: Of that kind.
        """
        import_client()
        try:
            with CLIENT_OUTPUT.dropped():
                yield
        except CifarMLError:
            raise
        except Exception as error:  # noqa: BLE001  # the client raises all sorts of them
            raise translate_error(error, action, self._names, kind) from None

    def find(self, action: str, get: Callable[[], _T], kind: type[CloudError] = CloudError) -> _T | None:
        """Return what a call of the client returns; None if the resource does not exist.

        Raises:
            CloudError: Of that kind; see :meth:`calling`.
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
        """Names of the workspace that hints refer to; nothing is sent to find them."""
        return {
            "location": str(getattr(self.__dict__.get("info"), "location", "REGION")),
            "subscription": self.subscription_id,
            "group": self.resource_group,
            "workspace": self.name,
            "scope": self.resource_id,
        }

    def report(self, line: str) -> None:
        """Pass on a line to whoever is told what is waited for; works inside :meth:`calling`, too."""
        with CLIENT_OUTPUT.visible():
            self._on_wait(line)

    def wait(self, poller: Any, what: str) -> Any:
        """Wait for a long-running operation and report now and then; call it in the block, too.

        Returns:
            Its result.
        """
        waited_s = 0.0
        while not poller.done():
            poller.wait(_TELL_EVERY_S)
            if not poller.done():
                waited_s += _TELL_EVERY_S
                self.report(f"{what}, for {waited_s / 60:.1f} minutes now")
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
        """Send a request for which the client has no method; call it in the block, too.

        Args:
            method: HTTP method.
            url: Path below the resource id, such as ``/onlineEndpoints/x/listKeys``, or the URL of another
                service that takes the same tokens.
            values: JSON values to send.
            version: The api-version of a path.
            options: Options of azure-core's policies.

        Returns:
            The JSON values of the response; None if it is empty.
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
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy
        from azure.core.pipeline.transport import RequestsTransport

        policies = [RetryPolicy(), BearerTokenCredentialPolicy(self.credential, f"{_ARM}/.default")]
        transport = RequestsTransport(connection_timeout=_CONNECTION_TIMEOUT_S, read_timeout=_READ_TIMEOUT_S)
        return PipelineClient(_ARM, policies=policies, transport=transport)


def state_name(value: object) -> str:
    """Return a state in lower case; the client returns some as strings and some as members of an enum."""
    return str(getattr(value, "value", value)).lower()


def _name(settings: Settings, setting: str) -> str:
    """Return a part of the resource id if it is a valid name: it becomes part of URLs."""
    text = str(getattr(settings, setting))
    if not re.fullmatch(r"[A-Za-z0-9_.()-]{1,90}", text) or text.endswith("."):
        raise SettingsError(
            f"{setting} must be a name of letters, digits, hyphens, dots and underscores. "
            f"Received: {text[:90]!r}",
            hint="copy it from the workspace's config.json",
        )
    return text
