"""Authenticate to Azure Storage with a SAS token, an account key, a connection string or Entra ID."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.pipeline.policies import RetryPolicy
from azure.storage.blob import BlobServiceClient, LocationMode

from cifarml.data.blob.address import BlobAddress, is_blob_host
from cifarml.errors import SettingsError
from cifarml.settings import Settings

_logger = logging.getLogger(__name__)

OnWait = Callable[[float, str], None]
"""Called before each retry with the wait in seconds and its reason."""

_LONGEST_WAIT_S: Final = 60
_RETRIES: Final = 5


@dataclass(frozen=True)
class Access:
    """Client for a container, and the name of its authentication method."""

    service: BlobServiceClient
    container: str
    auth_method: str

    @property
    def account(self) -> str:
        """Name of the storage account."""
        return str(self.service.account_name or self.url)

    @property
    def url(self) -> str:
        """URL of the container, without secrets."""
        return f"{self.service.url.partition('?')[0].rstrip('/')}/{self.container}"


def open_access(
    address: BlobAddress, settings: Settings, *, on_wait: OnWait, timeout_s: float, retry_wait_s: float
) -> Access:
    """Create a client for the container of an address, without sending a request.

    The first of these that is set authenticates: the SAS token in the address,
    AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_KEY, DefaultAzureCredential.
    Secrets for the account of the settings are never sent to another account.

    Raises:
        SettingsError: If no account is set, or a secret is malformed.
    """
    options: dict[str, Any] = {
        "retry_policy": _ReportingRetryPolicy(on_wait, retry_wait_s),
        "connection_timeout": min(10, timeout_s),
        "read_timeout": timeout_s,
        "user_agent": "cifarml",
    }
    connection = settings.storage_connection_string
    if connection and address.sas is None:
        try:
            service = BlobServiceClient.from_connection_string(connection.get_secret_value(), **options)
        except ValueError:  # its message could contain a part of the secret
            raise SettingsError(
                "AZURE_STORAGE_CONNECTION_STRING is not a valid connection string",
                hint="copy it again: az storage account show-connection-string --name ACCOUNT",
            ) from None
        if address.account_url in {None, service.url.partition("?")[0].rstrip("/")}:
            return _create_access(service, address.container, "AZURE_STORAGE_CONNECTION_STRING")
    own = _account_url(settings)
    url = address.account_url or own
    if url is None:
        raise SettingsError(
            f"no storage account is set for {address}",
            hint="set AZURE_STORAGE_ACCOUNT to its name, or storage_account in cifarml.toml",
        )
    secret, auth_method = settings.storage_key, "AZURE_STORAGE_KEY"
    if address.sas:
        secret, auth_method = address.sas, "the SAS token in the address"
    elif url != own:
        secret = None
    elif settings.storage_sas_token:
        secret, auth_method = settings.storage_sas_token, "AZURE_STORAGE_SAS_TOKEN"
    credential: Any
    if secret:
        credential = secret.get_secret_value().strip().removeprefix("?")
    else:
        from azure.identity import DefaultAzureCredential  # slow to import, and only used without a secret

        credential, auth_method = DefaultAzureCredential(), "DefaultAzureCredential"
    try:
        service = BlobServiceClient(url, credential=credential, **options)
    except ValueError:
        raise SettingsError(
            f"a storage key requires an account name. Received: {url}",
            hint="set AZURE_STORAGE_ACCOUNT to the account's name",
        ) from None
    return _create_access(service, address.container, auth_method)


def _create_access(service: BlobServiceClient, container: str, auth_method: str) -> Access:
    _logger.info("Azure Storage account %s: signing in with %s", service.account_name, auth_method)
    try:
        base64.b64decode(getattr(service.credential, "account_key", ""), validate=True)
    except ValueError:  # its message could contain a part of the secret
        raise SettingsError(
            f"{auth_method} is not a valid account key (base64)",
            hint=f"copy it again: az storage account keys list --account-name {service.account_name}",
        ) from None
    logging.getLogger("urllib3.connectionpool").addFilter(_LOG_FILTER)
    return Access(service, container, auth_method)


class _LogFilter(logging.Filter):
    """Logging filter for urllib3: redact SAS signatures, drop the warning about a full connection pool."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if "sig=" in message:
            record.msg, record.args = re.sub(r"sig=[^&\s\"']+", "sig=***", message), ()
        return not message.startswith("Connection pool is full")


_LOG_FILTER: Final = _LogFilter()


def _account_url(settings: Settings) -> str | None:
    account = settings.storage_account
    if account is None:
        return None
    if account.startswith("https://"):
        host = urlsplit(account).hostname or ""
        if not is_blob_host(host):  # a project's cifarml.toml must not receive the user's credentials
            raise SettingsError(
                f"storage_account: {host} is not a host of Azure Blob Storage, so nothing is sent there",
                hint="set AZURE_STORAGE_ACCOUNT to the account's name; see: cifarml config show",
            )
        return account.rstrip("/")
    return f"https://{account}.blob.core.windows.net"


class _ReportingRetryPolicy(RetryPolicy):  # type: ignore[type-arg]
    """Retry policy with backoff that reports each wait and caps its length.

    Unlike azure-storage-blob's policy, azure-core's honours Retry-After and retries after a 429.
    """

    def __init__(self, on_wait: OnWait, retry_wait_s: float) -> None:
        super().__init__(
            retry_total=_RETRIES,
            retry_connect=2,
            retry_read=_RETRIES,
            retry_status=_RETRIES,
            retry_backoff_factor=retry_wait_s,
            retry_backoff_max=_LONGEST_WAIT_S,
        )
        self._on_wait = on_wait

    def configure_retries(self, options: dict[str, Any]) -> dict[str, Any]:
        """Drop the options that only the storage client's own policy understands, such as secondary hosts."""
        for name in ("hosts", "location_mode", "retry_to_secondary", "retry_hook"):
            options.pop(name, None)
        return super().configure_retries(options)

    def send(self, request: Any) -> Any:
        """Send the request, and set the attribute of the response that the storage client expects."""
        response = super().send(request)
        response.http_response.location_mode = LocationMode.PRIMARY
        return response

    def get_retry_after(self, response: Any) -> float | None:
        """Return the seconds of the Retry-After header, at most _LONGEST_WAIT_S."""
        wanted = super().get_retry_after(response)
        return wanted and min(wanted, _LONGEST_WAIT_S)

    def sleep(self, settings: Any, transport: Any, response: Any = None) -> None:
        """Report the wait before a retry, then sleep."""
        wait_s = (response and self.get_retry_after(response)) or self.get_backoff_time(settings)
        reason = f"the service returned {response.http_response.status_code}" if response else "no connection"
        self._on_wait(wait_s, reason)
        super().sleep(settings, transport, response)
