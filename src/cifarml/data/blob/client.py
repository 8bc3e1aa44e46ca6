"""Who we are to Azure Storage, and the client that says so."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from threading import Lock
from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.credentials import AccessToken, TokenCredential
from azure.core.exceptions import AzureError
from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.pipeline.policies import RetryPolicy
from azure.core.pipeline.transport import HttpRequest
from azure.storage.blob import BlobServiceClient, LocationMode

from cifarml.data.blob.address import BlobAddress, is_blob_host
from cifarml.errors import SettingsError
from cifarml.settings import Settings

__all__ = ["LONGEST_WAIT_S", "RETRIES", "Access", "OnWait", "open_access"]

_logger = logging.getLogger(__name__)

_Authorize = Callable[[str, str, dict[str, str]], tuple[str, dict[str, str]]]

OnWait = Callable[[float, str], None]
"""Told that we wait so many seconds, and why."""

_SCOPE: Final = "https://storage.azure.com/.default"
_RENEWED_BEFORE_S: Final = 300
LONGEST_WAIT_S: Final = 60
RETRIES: Final = 5


@dataclass(frozen=True)
class Access:
    """A container, and how we sign in to it.

    Args:
        service: The client of the account.
        container: Name of the container.
        auth_method: How requests are authenticated, for people to read; never a secret.
        authorize: Takes method, URL and headers of a request to the container; returns what must be added to
            its query and to its headers.
    """

    service: BlobServiceClient
    container: str
    auth_method: str
    authorize: _Authorize

    @property
    def account(self) -> str:
        """Name of the storage account."""
        return str(self.service.account_name or self.url)

    @property
    def url(self) -> str:
        """URL of the container, without any secret."""
        return f"{self.service.url.partition('?')[0].rstrip('/')}/{self.container}"


def open_access(
    address: BlobAddress, settings: Settings, *, on_wait: OnWait, timeout_s: float, retry_wait_s: float
) -> Access:
    """Make a client for the container of an address; nothing is sent yet.

    The first there is of: the SAS in the address, AZURE_STORAGE_CONNECTION_STRING,
    AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_KEY, DefaultAzureCredential. What belongs to the account of the
    settings is never sent to another account.

    Raises:
        SettingsError: If no account is set, or the connection string is none.
    """
    options: dict[str, Any] = {
        "retry_policy": _Retry(on_wait, retry_wait_s),
        "connection_timeout": min(10, timeout_s),
        "read_timeout": timeout_s,
        "user_agent": "cifarml",
    }
    connection = settings.storage_connection_string
    if connection and address.sas is None:
        try:
            service = BlobServiceClient.from_connection_string(connection.get_secret_value(), **options)
        except ValueError:  # its text could show a part of it
            raise SettingsError(
                "AZURE_STORAGE_CONNECTION_STRING is not a connection string",
                hint="copy it again: az storage account show-connection-string --name ACCOUNT",
            ) from None
        if address.account_url in {None, service.url.partition("?")[0].rstrip("/")}:
            return _access(service, address.container, "AZURE_STORAGE_CONNECTION_STRING")
    own = _account_url(settings)
    url = address.account_url or own
    if url is None:
        raise SettingsError(
            f"no storage account is set for {address}",
            hint="set AZURE_STORAGE_ACCOUNT to its name, or storage_account in cifarml.toml",
        )
    if address.sas:
        service = BlobServiceClient(url, credential=_bare(address.sas.get_secret_value()), **options)
        return _access(service, address.container, "the SAS token in the address")
    if url == own and settings.storage_sas_token:
        token = _bare(settings.storage_sas_token.get_secret_value())
        return _access(
            BlobServiceClient(url, credential=token, **options), address.container, "AZURE_STORAGE_SAS_TOKEN"
        )
    if url == own and settings.storage_key:
        key = settings.storage_key.get_secret_value()
        try:
            service = BlobServiceClient(url, credential=key, **options)
        except ValueError:
            raise SettingsError(
                f"{url} names no account, which a key needs", hint="set AZURE_STORAGE_ACCOUNT to its name"
            ) from None
        return _access(service, address.container, "AZURE_STORAGE_KEY")
    from azure.identity import DefaultAzureCredential  # who signs in with a key doesn't wait for it

    credential = DefaultAzureCredential()
    return _access(
        BlobServiceClient(url, credential=credential, **options),
        address.container,
        "DefaultAzureCredential",
        credential,
    )


def _access(
    service: BlobServiceClient, container: str, how: str, credential: TokenCredential | None = None
) -> Access:
    _logger.info("Azure Storage account %s: signing in with %s", service.account_name, how)
    if credential is not None:
        return Access(service, container, how, _Bearer(credential).authorize)
    key = service.credential
    if key is None:
        query = service.url.partition("?")[2]
        return Access(service, container, how, lambda *_: (query, {}))
    signing = _SharedKey(key)
    try:
        signing.authorize("GET", service.url, {})
    except AzureError:  # its text could show a part of it
        raise SettingsError(
            f"{how} does not hold an account key (base64)",
            hint=f"copy it again: az storage account keys list --account-name {service.account_name}",
        ) from None
    return Access(service, container, how, signing.authorize)


def _account_url(settings: Settings) -> str | None:
    account = settings.storage_account
    if account is None:
        return None
    if account.startswith("https://"):
        host = urlsplit(account).hostname or ""
        if not is_blob_host(host):  # a cifarml.toml that came with a project must not get our sign-in
            raise SettingsError(
                f"storage_account: {host} is not a host of Azure Blob Storage, so nothing is sent there",
                hint="set AZURE_STORAGE_ACCOUNT to the account's name; see: cifarml config show",
            )
        return account.rstrip("/")
    return f"https://{account}.blob.core.windows.net"


def _bare(token: str) -> str:
    return token.strip().removeprefix("?")


class _Bearer:
    """A bearer token, asked for again shortly before it ends (some credentials start a program for each)."""

    def __init__(self, credential: TokenCredential) -> None:
        self._credential = credential
        self._lock = Lock()
        self._token: AccessToken | None = None

    def authorize(self, _method: str, _url: str, _headers: dict[str, str]) -> tuple[str, dict[str, str]]:
        with self._lock:
            if self._token is None or self._token.expires_on < time.time() + _RENEWED_BEFORE_S:
                self._token = self._credential.get_token(_SCOPE)
            return "", {"Authorization": f"Bearer {self._token.token}"}


class _SharedKey:
    """The account's key, by which the SDK's own policy signs each request."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def authorize(self, method: str, url: str, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
        request = HttpRequest(method, url, headers | {"x-ms-date": formatdate(usegmt=True)})
        self._policy.on_request(PipelineRequest(request, PipelineContext(None)))
        return "", {name: request.headers[name] for name in ("x-ms-date", "Authorization")}


class _Retry(RetryPolicy):  # type: ignore[type-arg]
    """azure-core's retry policy, which says that it waits, and never waits for long.

    Unlike the one of azure-storage-blob it heeds Retry-After, and tries again after a 429.
    """

    def __init__(self, on_wait: OnWait, retry_wait_s: float) -> None:
        super().__init__(
            retry_total=RETRIES,
            retry_connect=2,
            retry_read=RETRIES,
            retry_status=RETRIES,
            retry_backoff_factor=retry_wait_s,
            retry_backoff_max=LONGEST_WAIT_S,
        )
        self._on_wait = on_wait

    def configure_retries(self, options: dict[str, Any]) -> dict[str, Any]:
        """Take out what the storage client says to its own policy, about a secondary host."""
        for name in ("hosts", "location_mode", "retry_to_secondary", "retry_hook"):
            options.pop(name, None)
        return super().configure_retries(options)

    def send(self, request: Any) -> Any:
        """Send the request, and say of the answer what the storage client asks of its own policy."""
        response = super().send(request)
        response.http_response.location_mode = LocationMode.PRIMARY
        return response

    def get_retry_after(self, response: Any) -> float | None:
        """Return what the service asks for, as far as that is bearable."""
        wanted = super().get_retry_after(response)
        return wanted and min(wanted, LONGEST_WAIT_S)

    def sleep(self, settings: Any, transport: Any, response: Any = None) -> None:
        """Wait, and say so."""
        wait_s = (response and self.get_retry_after(response)) or self.get_backoff_time(settings)
        answer = f"the service answers {response.http_response.status_code}" if response else "no connection"
        self._on_wait(wait_s, answer)
        super().sleep(settings, transport, response)
