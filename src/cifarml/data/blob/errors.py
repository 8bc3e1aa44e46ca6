"""Translate Azure Storage's errors: what they mean and what to do about them."""

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
    "ask for the role Storage Blob Data Contributor: az role assignment create "
    '--role "Storage Blob Data Contributor" --assignee YOUR_NAME --scope '
    "$(az storage account show --name {account} --query id -o tsv)"
    "/blobServices/default/containers/{container}   (it takes some minutes to work)"
)
_NEW_SAS: Final = (
    "make a new one: az storage container generate-sas --account-name {account} --name {container} "
    "--permissions acdlrw --expiry 2030-01-01 --as-user --auth-mode login   and put it into "
    "AZURE_STORAGE_SAS_TOKEN"
)
_FIREWALL: Final = (
    "let this machine's address in: az storage account network-rule add --account-name {account} "
    "--ip-address ADDRESS   (or ask whoever looks after the account)"
)
_LIST: Final = "see what is there: cifarml data list az://{container}"

_MEANINGS: Final[dict[str, ErrorMeaning]] = {
    "AuthorizationPermissionMismatch": ("you have no right to do this", _ROLE),
    "AuthorizationFailure": ("the account's network rules (firewall) keep this machine out", _FIREWALL),
    "AuthorizationSourceIPMismatch": ("the SAS token is not meant for this machine's address", _NEW_SAS),
    "AuthorizationProtocolMismatch": ("the SAS token is not meant for this protocol", _NEW_SAS),
    "AuthorizationResourceTypeMismatch": ("the SAS token is not meant for blobs", _NEW_SAS),
    "AuthorizationServiceMismatch": ("the SAS token is not meant for Blob Storage", _NEW_SAS),
    "KeyBasedAuthenticationNotPermitted": (
        "the account takes no keys",
        "unset AZURE_STORAGE_KEY and AZURE_STORAGE_CONNECTION_STRING; az login",
    ),
    "InvalidAuthenticationInfo": ("the account does not take this sign-in", _SIGN_IN),
    "NoAuthenticationInformation": ("the account wants to know who you are", _SIGN_IN),
    "PublicAccessNotPermitted": ("the account wants to know who you are", _SIGN_IN),
    "AuthenticationFailed": ("the account does not take this sign-in", _SIGN_IN),
    "InsufficientAccountPermissions": ("you have no right to do this", _ROLE),
    "AccountIsDisabled": ("the account is disabled", "look at it: az storage account show --name {account}"),
    "ContainerNotFound": (
        "there is no container {container!r} in the account",
        "see which there are: az storage container list --account-name {account} --auth-mode login -o table"
        "   (cifarml data upload makes it)",
    ),
    "ContainerBeingDeleted": (
        "the container {container!r} is being deleted",
        "wait a minute and try again, take another name, or, where soft delete is on, bring it back: "
        "az storage container restore --account-name {account} --name {container} --deleted-version VERSION",
    ),
    "ContainerDisabled": ("the container {container!r} is disabled", None),
    "BlobNotFound": ("there is no such blob", _LIST),
    "ResourceNotFound": ("there is no such blob or container", _LIST),
    "BlobArchived": (
        "the blob is archived and must be brought back first (hours)",
        "az storage blob set-tier --account-name {account} --container-name {container} --name NAME "
        "--tier Hot --auth-mode login",
    ),
    "BlobBeingRehydrated": ("the blob is being brought back from the archive", "try again later"),
    "BlobImmutableDueToPolicy": ("an immutability policy prevents changes to the blob", "take another name"),
    "LeaseIdMissing": ("somebody holds a lease on it", "try again later, or take another name"),
    "InvalidResourceName": (
        "Azure does not take the name",
        "containers: 3 to 63 lower-case letters, digits and single hyphens",
    ),
    "OutOfRangeInput": ("Azure does not take the name", "a blob's name has at most 1,024 characters"),
    "Md5Mismatch": ("the bytes were damaged on the way", "try again; what arrived whole is kept"),
    "ServerBusy": ("the account is throttled: too many requests", "try again in some minutes"),
    "TooManyRequests": ("the account is throttled: too many requests", "try again in some minutes"),
    "OperationTimedOut": ("the service timed out", "try again"),
    "InternalError": ("internal service error", "try again in some minutes"),
    "ConditionNotMet": ("it was changed by somebody else meanwhile", "try again"),
    "BlobAlreadyExists": ("it was made by somebody else meanwhile", "try again"),
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
    """Return the error for content that would be overwritten without having been asked for."""
    shown = "\n".join(f"  {place}" for place in places[:_SHOWN])
    more = f"\n  and {len(places) - _SHOWN:,} more" if len(places) > _SHOWN else ""
    return DataError(f"other content is there already:\n{shown}{more}", "replace it with: --overwrite")


@contextmanager
def translate_errors(access: Access, action: str) -> Iterator[None]:
    """Turn whatever the client libraries raise into a `CloudError`; ``action`` says what was tried."""
    try:
        yield
    except ChangedError:
        raise CloudError(
            f"can't {action}: it changed, or does not match its hash",
            "try again; was it damaged before it was uploaded? Upload it again: cifarml data upload FILE",
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
    """Return the error for a refused request; the SDK's message, never shown, can contain a signature."""
    status, headers = error.response.status_code, error.response.headers
    code = getattr(error, "error_code", None) or ""
    code = str(getattr(code, "value", code))
    code = code if re.fullmatch(r"\w{1,80}", code) else ""
    uses_sas = "SAS" in access.auth_method
    meaning = _MEANINGS.get(code or _CODES_BY_STATUS.get(status, ""))
    if code in {"AuthenticationFailed", "InvalidAuthenticationInfo"}:
        meaning = _authentication_meaning(access, error.message or "", uses_sas=uses_sas)
    elif code == "AuthorizationPermissionMismatch" and uses_sas:
        meaning = ("the SAS token does not allow it", _NEW_SAS)
    if meaning is None:
        meaning = (f"the service answers {status} {code}".rstrip(), "try again")
    names = {"account": access.account, "container": access.container}
    return service_error(action, meaning, names, code=code, headers=headers)


def _authentication_meaning(access: Access, detail: str, *, uses_sas: bool) -> ErrorMeaning:
    if "Request date header" in detail or re.search(r"not valid yet|nbf|NotBefore", detail):
        return ("this machine's clock is wrong by more than the service allows", "set the clock: timedatectl")
    if uses_sas and (_TIMES.search(detail) or "expir" in detail.lower() or "time frame" in detail):
        return ("the SAS token has expired, or this machine's or its maker's clock is wrong", _NEW_SAS)
    if uses_sas:
        return ("the SAS token is not valid for this account and container", _NEW_SAS)
    if "KEY" in access.auth_method or "CONNECTION" in access.auth_method:
        return (
            f"the key in {access.auth_method} is not the account's (was it changed?), or the clock here is "
            "wrong",
            "unset it and sign in with az login, or copy it again: "
            "az storage account keys list --account-name {account}",
        )
    return ("the account does not take this sign-in", _SIGN_IN)


def _connection_error(access: Access, action: str, error: Exception) -> CloudError:
    host = urlsplit(access.url).hostname or ""
    if is_unresolved_host(error) and _resolves(_ENTRA):
        return CloudError(
            f"can't {action}: there is no storage account {access.account!r}: {host} is not a known name",
            "check AZURE_STORAGE_ACCOUNT; yours are: az storage account list --query [].name -o tsv",
        )
    return connection_error(action, error, host=host, then="what has arrived is kept")


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True
