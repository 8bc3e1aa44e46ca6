"""An Azure ML workspace, and the client that talks to it."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TextIO

from cifarml.azure.errors import translate
from cifarml.config_files import WORKSPACE
from cifarml.errors import CifarMLError, CloudError, SettingsError
from cifarml.settings import Settings, hush_mlflow, load_settings

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import TokenCredential

__all__ = ["TAG", "AzureWorkspace", "OnWait", "word"]

OnWait = Callable[[str], None]
"""Told, now and then, what we are waiting for."""

TAG: Final = "cifarml"
"""Tag of everything that we make; its value is our version."""

_ARM: Final = "https://management.azure.com"
_API_VERSION: Final = "2024-04-01"
_TELL_EVERY_S: Final = 30.0
_GRAMMAR: Final = "rfc3987_syntax"


class AzureWorkspace:
    """A workspace, as settings or Azure ML's config.json name it; nothing is sent before it is needed.

    Args:
        settings: Which workspace; from the environment when left out.
        on_wait: Told, every half minute, what is waited for.

    Raises:
        SettingsError: If no workspace is set, or a part of its address is no name.

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
        self._shown: tuple[TextIO, TextIO] | None = None

    def __str__(self) -> str:
        return (
            f"Azure, workspace {self.name}, resource group {self.resource_group}, "
            f"subscription {self.subscription_id}"
        )

    @property
    def resource_id(self) -> str:
        """Its address in Azure Resource Manager."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.name}"
        )

    @cached_property
    def credential(self) -> TokenCredential:
        """Who we are: environment, managed identity, az login, in the order of DefaultAzureCredential."""
        from azure.identity import DefaultAzureCredential

        logging.getLogger("azure.identity").setLevel(logging.CRITICAL)  # it is in our own error
        credential: TokenCredential = DefaultAzureCredential()
        return credential

    @cached_property
    def client(self) -> MLClient:
        """The client of Azure ML; call it inside :meth:`calling`."""
        before = os.environ.get("AZUREML_CURRENT_CLOUD")
        from azure.ai.ml import MLClient

        for name in ("azure.ai.ml", "azureml", "msrest"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        client = MLClient(
            self.credential,
            self.subscription_id,
            self.resource_group,
            self.name,
            show_progress=True,  # without it, the client waits for ever where an upload fails (1.35)
            enable_telemetry=False,
        )
        if before is None:
            os.environ.pop("AZUREML_CURRENT_CLOUD", None)
        return client

    @cached_property
    def info(self) -> Any:
        """The workspace as the service describes it: location, storage account, tracking URI."""
        with self.aside():
            _import_mlflow()
        with self.calling(f"look at workspace {self.name}"):
            return self.client.workspaces.get(self.name)

    @property
    def location(self) -> str:
        """The region, such as ``eastus``."""
        return str(self.info.location)

    @contextlib.contextmanager
    def calling(self, what: str, kind: type[CloudError] = CloudError) -> Iterator[None]:
        """Call the client in the block: what it prints is dropped, what it raises becomes a CloudError.

        Args:
            what: What is tried, as in "can't ...".
            kind: What is raised.

        Raises:
            CloudError: Of that kind.
        """
        _import_libraries()
        outermost = self._shown is None
        if outermost:
            self._shown = (sys.stdout, sys.stderr)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                yield
        except CifarMLError:
            raise
        except Exception as error:  # noqa: BLE001  # the client raises all sorts of them
            raise translate(error, what, self, kind) from None
        finally:
            if outermost:
                self._shown = None

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Print in the block as outside of :meth:`calling`."""
        if self._shown is None:
            yield
            return
        stdout, stderr = self._shown
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            yield

    def report(self, line: str) -> None:
        """Pass on a line to whoever is told what is waited for; works inside :meth:`calling`, too."""
        with self.aside():
            self._on_wait(line)

    def wait(self, poller: Any, what: str) -> Any:
        """Wait for a long-running operation, and say now and then that we do; call it in the block, too.

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

    def request(self, method: str, path: str, values: object = None, version: str = _API_VERSION) -> Any:
        """Ask Azure Resource Manager for what the client can't; call it in the block, too.

        Args:
            method: HTTP method.
            path: What comes after the address of the workspace, such as ``/onlineEndpoints/x/listKeys``.
            values: JSON values to send.
            version: The api-version.

        Returns:
            The JSON values of the answer; None where it is empty.
        """
        from azure.core.rest import HttpRequest

        request = HttpRequest(
            method, f"{_ARM}{self.resource_id}{path}", params={"api-version": version}, json=values
        )
        response = self._pipeline.send_request(request)
        response.raise_for_status()
        return response.json() if response.content else None

    @cached_property
    def _pipeline(self) -> Any:
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy

        policies = [RetryPolicy(), BearerTokenCredentialPolicy(self.credential, f"{_ARM}/.default")]
        return PipelineClient(_ARM, policies=policies)


def word(value: object) -> str:
    """Return a state in lower case; the client gives some as text and some as members of an enum."""
    return str(getattr(value, "value", value)).lower()


def _name(settings: Settings, setting: str) -> str:
    """Return a part of the address, if it can be one: it goes into the path of requests."""
    text = str(getattr(settings, setting))
    if not re.fullmatch(r"[A-Za-z0-9_.()-]{1,90}", text) or text.endswith("."):
        raise SettingsError(
            f"{setting} must be a name of letters, digits, hyphens, dots and underscores. "
            f"Received: {text[:90]!r}",
            hint="copy it from the workspace's config.json",
        )
    return text


def _import_mlflow() -> None:
    """Import MLflow, which the client does when it looks at a workspace, while no output is dropped.

    MLflow sets up logging while it is imported, and so has others, such as TensorFlow, close the streams that
    they log to, but for the standard ones: a notebook would never see an error again.
    """
    hush_mlflow()
    import mlflow  # noqa: F401


@functools.cache
def _import_libraries() -> None:
    """Import the client, before its output is dropped.

    Where Jupyter is installed, jsonschema, which the client imports, would build a grammar of internet
    addresses that nobody asks it about, and take as long for that as for all the rest: 2.8 of 5.3 s.
    """
    modules: dict[str, Any] = sys.modules
    before = modules.setdefault(_GRAMMAR, None)  # which Python takes for a package that isn't there
    try:
        import azure.ai.ml  # noqa: F401
    finally:
        if before is None:
            del modules[_GRAMMAR]
