"""Translate Azure Storage errors into `CloudError`s with a cause and a hint."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from urllib3.exceptions import HTTPError

from cifarml.cloud_errors import (
    ErrorMeaning,
    connection_error,
    is_unresolved_host,
    service_error,
    sign_in_error,
)
from cifarml.data.blob.client import Access
from cifarml.data.blob.info import ChangedError
from cifarml.errors import CloudError, DataError

_ENTRA: Final = "login.microsoftonline.com"
_SIGN_IN: Final = "sign in with: az login   (or set AZURE_STORAGE_SAS_TOKEN)"
_ROLE: Final = (
    "assign the role Storage Blob Data Contributor: az role assignment create "
    '--role "Storage Blob Data Contributor" --assignee YOUR_NAME --scope '
    "$(az storage account show --name {account} --query id -o tsv)"
    "/blobServices/default/containers/{container}   (takes effect after a few minutes)"
)
_NEW_SAS: Final = (
    "create a new one: az storage container generate-sas --account-name {account} --name {container} "
    "--permissions acdlrw --expiry 2030-01-01 --as-user --auth-mode login   and set "
    "AZURE_STORAGE_SAS_TOKEN to it"
)
_FIREWALL: Final = (
    "allow this machine's IP address: az storage account network-rule add --account-name {account} "
    "--ip-address ADDRESS   (or ask the account's administrator)"
)
_LIST: Final = "list the blobs: cifarml data list az://{container}"

_MEANINGS: Final[dict[str, ErrorMeaning]] = {
    "AuthorizationPermissionMismatch": ("permission denied", _ROLE),
    "AuthorizationFailure": ("the account's network rules (firewall) block this machine", _FIREWALL),
    "AuthorizationSourceIPMismatch": ("the SAS token does not allow this machine's IP address", _NEW_SAS),
    "AuthorizationProtocolMismatch": ("the SAS token does not allow this protocol", _NEW_SAS),
    "AuthorizationResourceTypeMismatch": ("the SAS token does not allow this resource type", _NEW_SAS),
    "AuthorizationServiceMismatch": ("the SAS token does not allow access to Blob Storage", _NEW_SAS),
    "KeyBasedAuthenticationNotPermitted": (
        "the account does not allow key-based authentication",
        "unset AZURE_STORAGE_KEY and AZURE_STORAGE_CONNECTION_STRING, then: az login",
    ),
    "InvalidAuthenticationInfo": ("the account rejected the credentials", _SIGN_IN),
    "NoAuthenticationInformation": ("the account requires authentication", _SIGN_IN),
    "PublicAccessNotPermitted": ("the account requires authentication", _SIGN_IN),
    "AuthenticationFailed": ("the account rejected the credentials", _SIGN_IN),
    "InsufficientAccountPermissions": ("permission denied", _ROLE),
    "AccountIsDisabled": ("the account is disabled", "see: az storage account show --name {account}"),
    "ContainerNotFound": (
        "container {container!r} does not exist in the account",
        "list the containers: az storage container list --account-name {account} --auth-mode login -o table"
        "   (cifarml data upload creates it)",
    ),
    "ContainerBeingDeleted": (
        "container {container!r} is being deleted",
        "wait a minute and try again, use another name, or, if soft delete is enabled, restore it: "
        "az storage container restore --account-name {account} --name {container} --deleted-version VERSION",
    ),
    "ContainerDisabled": ("container {container!r} is disabled", None),
    "BlobNotFound": ("the blob does not exist", _LIST),
    "ResourceNotFound": ("the blob or container does not exist", _LIST),
    "BlobArchived": (
        "the blob is in the archive tier and must be rehydrated first (takes hours)",
        "az storage blob set-tier --account-name {account} --container-name {container} --name NAME "
        "--tier Hot --auth-mode login",
    ),
    "BlobBeingRehydrated": ("the blob is being rehydrated from the archive tier", "try again later"),
    "BlobImmutableDueToPolicy": ("an immutability policy prevents changes to the blob", "use another name"),
    "LeaseIdMissing": ("another client holds a lease on the blob", "try again later, or use another name"),
    "InvalidResourceName": (
        "the name is not valid in Azure Storage",
        "containers: 3 to 63 lower-case letters, digits and single hyphens",
    ),
    "OutOfRangeInput": ("the name is too long", "a blob name has at most 1,024 characters"),
    "Md5Mismatch": ("the data was corrupted in transit", "try again; data already transferred is kept"),
    "ServerBusy": ("the account is throttled: too many requests", "try again in a few minutes"),
    "TooManyRequests": ("the account is throttled: too many requests", "try again in a few minutes"),
    "OperationTimedOut": ("the service timed out", "try again"),
    "InternalError": ("internal service error", "try again in a few minutes"),
    "ConditionNotMet": ("another client changed the blob in the meantime", "try again"),
    "BlobAlreadyExists": ("another client created the blob in the meantime", "try again"),
}
_CODES_BY_STATUS: Final = {
    404: "ResourceNotFound",
    412: "ConditionNotMet",
    429: "ServerBusy",
    503: "ServerBusy",
}
_TIMES: Final = re.compile(r"Expiry \[.*?\].*?Current \[", re.DOTALL)
_SHOWN: Final = 20


def overwrite_error(places: list[str]) -> DataError:
    """Return the error for destinations that exist with different content."""
    shown = "\n".join(f"  {place}" for place in places[:_SHOWN])
    more = f"\n  and {len(places) - _SHOWN:,} more" if len(places) > _SHOWN else ""
    return DataError(f"different content already exists:\n{shown}{more}", "to replace it, add: --overwrite")


@contextmanager
def translate_errors(access: Access, action: str) -> Iterator[None]:
    """Turn an exception of the client libraries into a `CloudError`: "can't ACTION: REASON"."""
    try:
        yield
    except ChangedError:
        raise CloudError(
            f"can't {action}: the content changed during the transfer, or does not match its hash",
            "try again; if the file was corrupted before the upload: cifarml data upload FILE",
        ) from None
    except HttpResponseError as error:
        response: Any = error.response
        if response is not None and urlsplit(response.request.url).hostname == urlsplit(access.url).hostname:
            raise _response_error(access, action, error) from None
        if isinstance(error, ClientAuthenticationError):
            raise sign_in_error(action, error, instead="AZURE_STORAGE_SAS_TOKEN, or ") from None
        raise _connection_error(access, action, error) from None
    except (AzureError, HTTPError) as error:
        raise _connection_error(access, action, error) from None


def _response_error(access: Access, action: str, error: Any) -> CloudError:
    """Return the error for a refused request, without the SDK's message, which can contain a signature."""
    status, headers = error.response.status_code, error.response.headers
    code = getattr(error, "error_code", None) or ""
    code = str(getattr(code, "value", code))
    code = code if re.fullmatch(r"\w{1,80}", code) else ""
    uses_sas = "SAS" in access.auth_method
    meaning = _MEANINGS.get(code or _CODES_BY_STATUS.get(status, ""))
    if code in {"AuthenticationFailed", "InvalidAuthenticationInfo"}:
        meaning = _authentication_meaning(access, error.message or "", uses_sas=uses_sas)
    elif code == "AuthorizationPermissionMismatch" and uses_sas:
        meaning = ("the SAS token does not allow this operation", _NEW_SAS)
    if meaning is None:
        meaning = (f"the service returned {status} {code}".rstrip(), "try again")
    names = {"account": access.account, "container": access.container}
    return service_error(action, meaning, names, code=code, headers=headers)


def _authentication_meaning(access: Access, detail: str, *, uses_sas: bool) -> ErrorMeaning:
    if "Request date header" in detail or re.search(r"not valid yet|nbf|NotBefore", detail):
        return ("this machine's clock is wrong by more than the service allows", "set the clock: timedatectl")
    if uses_sas and (_TIMES.search(detail) or "expir" in detail.lower() or "time frame" in detail):
        return ("the SAS token has expired, or the clock here or of its issuer is wrong", _NEW_SAS)
    if uses_sas:
        return ("the SAS token is not valid for this account and container", _NEW_SAS)
    if "KEY" in access.auth_method or "CONNECTION" in access.auth_method:
        return (
            f"the key in {access.auth_method} does not match the account (was it rotated?), or this "
            "machine's clock is wrong",
            "unset it and sign in with az login, or copy it again: "
            "az storage account keys list --account-name {account}",
        )
    return ("the account rejected the credentials", _SIGN_IN)


def _connection_error(access: Access, action: str, error: Exception) -> CloudError:
    host = urlsplit(access.url).hostname or ""
    if is_unresolved_host(error) and _resolves(_ENTRA):
        return CloudError(
            f"can't {action}: storage account {access.account!r} does not exist: {host} can't be resolved",
            "check AZURE_STORAGE_ACCOUNT; list yours: az storage account list --query [].name -o tsv",
        )
    return connection_error(action, error, host=host, then="data already transferred is kept")


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True
