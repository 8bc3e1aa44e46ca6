"""What Azure Storage's refusals mean, and what to do about them."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
)
from urllib3.exceptions import HTTPError

from cifarml.data.blob.client import Access
from cifarml.errors import CloudError, DataError

__all__ = ["overwrite_error", "response_error", "translate_errors"]


class _Meaning(NamedTuple):
    text: str
    hint: str | None = None


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

_MEANINGS: Final = {
    "AuthorizationPermissionMismatch": _Meaning("you have no right to do this", _ROLE),
    "AuthorizationFailure": _Meaning(
        "the account's network rules (firewall) keep this machine out", _FIREWALL
    ),
    "AuthorizationSourceIPMismatch": _Meaning(
        "the SAS token is not meant for this machine's address", _NEW_SAS
    ),
    "AuthorizationProtocolMismatch": _Meaning("the SAS token is not meant for this protocol", _NEW_SAS),
    "AuthorizationResourceTypeMismatch": _Meaning("the SAS token is not meant for blobs", _NEW_SAS),
    "AuthorizationServiceMismatch": _Meaning("the SAS token is not meant for Blob Storage", _NEW_SAS),
    "KeyBasedAuthenticationNotPermitted": _Meaning(
        "the account takes no keys", "unset AZURE_STORAGE_KEY and AZURE_STORAGE_CONNECTION_STRING; az login"
    ),
    "InvalidAuthenticationInfo": _Meaning("the account does not take this sign-in", _SIGN_IN),
    "NoAuthenticationInformation": _Meaning("the account wants to know who you are", _SIGN_IN),
    "PublicAccessNotPermitted": _Meaning("the account wants to know who you are", _SIGN_IN),
    "AuthenticationFailed": _Meaning("the account does not take this sign-in", _SIGN_IN),
    "InsufficientAccountPermissions": _Meaning("you have no right to do this", _ROLE),
    "AccountIsDisabled": _Meaning(
        "the account is disabled", "look at it: az storage account show --name {account}"
    ),
    "ContainerNotFound": _Meaning(
        "there is no container {container!r} in the account",
        "see which there are: az storage container list --account-name {account} --auth-mode login -o table"
        "   (cifarml data upload makes it)",
    ),
    "ContainerBeingDeleted": _Meaning(
        "the container {container!r} is being deleted",
        "wait a minute and try again, take another name, or, where soft delete is on, bring it back: "
        "az storage container restore --account-name {account} --name {container} --deleted-version VERSION",
    ),
    "ContainerDisabled": _Meaning("the container {container!r} is disabled"),
    "BlobNotFound": _Meaning("there is no such blob", _LIST),
    "ResourceNotFound": _Meaning("there is no such blob or container", _LIST),
    "BlobArchived": _Meaning(
        "the blob is archived and must be brought back first (hours)",
        "az storage blob set-tier --account-name {account} --container-name {container} --name NAME "
        "--tier Hot --auth-mode login",
    ),
    "BlobBeingRehydrated": _Meaning("the blob is being brought back from the archive", "try again later"),
    "BlobImmutableDueToPolicy": _Meaning("a policy forbids to change the blob", "take another name"),
    "LeaseIdMissing": _Meaning("somebody holds a lease on it", "try again later, or take another name"),
    "InvalidResourceName": _Meaning(
        "Azure does not take the name", "containers: 3 to 63 lower-case letters, digits and single hyphens"
    ),
    "OutOfRangeInput": _Meaning("Azure does not take the name", "a blob's name has at most 1,024 characters"),
    "Md5Mismatch": _Meaning("the bytes were damaged on the way", "try again; what arrived whole is kept"),
    "ServerBusy": _Meaning("the account is throttled: too many requests", "try again in some minutes"),
    "TooManyRequests": _Meaning("the account is throttled: too many requests", "try again in some minutes"),
    "OperationTimedOut": _Meaning("the service did not get done in time", "try again"),
    "InternalError": _Meaning("the service has a trouble of its own", "try again in some minutes"),
    "ConditionNotMet": _Meaning("it was changed by somebody else meanwhile", "try again"),
    "BlobAlreadyExists": _Meaning("it was made by somebody else meanwhile", "try again"),
}
_CODES_BY_STATUS: Final = {
    404: "ResourceNotFound",
    412: "ConditionNotMet",
    429: "ServerBusy",
    503: "ServerBusy",
}
_CODE: Final = re.compile(r"<Code>\s*(\w{1,80})\s*</Code>")
_TIMES: Final = re.compile(r"Expiry \[.*?\].*?Current \[", re.DOTALL)


_SHOWN: Final = 20


def overwrite_error(places: list[str]) -> DataError:
    """Say where something would be replaced that nobody has asked to replace."""
    shown = "\n".join(f"  {place}" for place in places[:_SHOWN])
    more = f"\n  and {len(places) - _SHOWN:,} more" if len(places) > _SHOWN else ""
    return DataError(f"other content is there already:\n{shown}{more}", "replace it with: --overwrite")


@contextmanager
def translate_errors(access: Access, what: str) -> Iterator[None]:
    """Turn whatever the client libraries raise into a CloudError; ``what`` says what was tried."""
    try:
        yield
    except HttpResponseError as error:
        response: Any = error.response
        asked = urlsplit(response.request.url).hostname if response is not None else None
        if response is not None and asked == urlsplit(access.url).hostname:
            code = str(getattr(error.error_code, "value", "") if hasattr(error, "error_code") else "")
            raise response_error(
                access, what, response.status_code, response.headers, error.message or "", code
            ) from None
        if isinstance(error, ClientAuthenticationError):
            raise _not_signed_in(what, error) from None
        raise _no_answer(access, what, error) from None
    except (AzureError, HTTPError) as error:
        raise _no_answer(access, what, error) from None


def response_error(
    access: Access, what: str, status: int, headers: Any, detail: str, code: str = ""
) -> CloudError:
    """Say what a refusal means.

    Args:
        access: The container it is about.
        what: What was tried.
        status: HTTP status.
        headers: The answer's headers.
        detail: The answer's body or the SDK's message; read for what it means, never shown, since the
            service repeats signatures in it.
        code: The service's error code, where it is known already.
    """
    found = _CODE.search(detail)
    code = headers.get("x-ms-error-code") or code or (found[1] if found else "")
    code = code if re.fullmatch(r"\w{1,80}", code) else ""
    request_id = str(headers.get("x-ms-request-id", ""))
    request_id = request_id if re.fullmatch(r"[\w-]{1,80}", request_id) else ""
    by_sas = "SAS" in access.auth_method
    meaning = _MEANINGS.get(code or _CODES_BY_STATUS.get(status, ""))
    if code in {"AuthenticationFailed", "InvalidAuthenticationInfo"}:
        meaning = _authentication(access, detail, by_sas=by_sas)
    elif code == "AuthorizationPermissionMismatch" and by_sas:
        meaning = _Meaning("the SAS token does not allow it", _NEW_SAS)
    if meaning is None:
        meaning = _Meaning(f"the service answers {status}" + (f" {code}" if code else ""), "try again")
    names = {"account": access.account, "container": access.container}
    text, hint = meaning.text.format(**names), (meaning.hint or "").format(**names) or None
    shown = f" [{code}]" if code and code not in text else ""
    return CloudError(f"can't {what}: {text}{shown}", hint, code=code, request_id=request_id)


def _authentication(access: Access, detail: str, *, by_sas: bool) -> _Meaning:
    if "Request date header" in detail or re.search(r"not valid yet|nbf|NotBefore", detail):
        return _Meaning(
            "this machine's clock is wrong by more than the service allows", "set the clock: timedatectl"
        )
    if by_sas and (_TIMES.search(detail) or "expir" in detail.lower() or "time frame" in detail):
        return _Meaning(
            "the SAS token has expired, or this machine's or its maker's clock is wrong", _NEW_SAS
        )
    if by_sas:
        return _Meaning("the SAS token is not valid for this account and container", _NEW_SAS)
    if "KEY" in access.auth_method or "CONNECTION" in access.auth_method:
        return _Meaning(
            f"the key in {access.auth_method} is not the account's (was it changed?), or the clock here is "
            "wrong",
            "unset it and sign in with az login, or copy it again: "
            "az storage account keys list --account-name {account}",
        )
    return _Meaning("the account does not take this sign-in", _SIGN_IN)


def _not_signed_in(what: str, error: ClientAuthenticationError) -> CloudError:
    """Say why there is no token; the SDK's text is a page long."""
    codes = sorted(set(re.findall(r"AADSTS\d{4,8}", error.message or "")))
    shown = f" ({', '.join(codes)})" if codes else ""
    return CloudError(
        f"can't {what}: no way to sign in to Azure worked{shown}",
        "az login   (or set AZURE_STORAGE_SAS_TOKEN, or AZURE_TENANT_ID, AZURE_CLIENT_ID and "
        "AZURE_CLIENT_SECRET)",
        code=codes[0] if codes else "",
    )


def _no_answer(access: Access, what: str, error: Exception) -> CloudError:
    """Say why no answer came, by the words of requests and urllib3; the SDK wraps their errors."""
    text = repr(error)
    host = urlsplit(access.url).hostname or ""
    hint = "check the network, and HTTPS_PROXY if you are behind a proxy; what has arrived is kept"
    if "ertificate" in text or "CERTIFICATE" in text:
        reason = f"the certificate of {host} is not trusted here"
        hint = "behind a company's proxy, name its certificates in REQUESTS_CA_BUNDLE"
    elif "resolve" in text or "Name or service not known" in text or "getaddrinfo" in text:
        if _is_known(_ENTRA):
            reason = f"there is no storage account {access.account!r}: {host} is not a known name"
            hint = "check AZURE_STORAGE_ACCOUNT; yours are: az storage account list --query [].name -o tsv"
        else:
            reason = "no network: names can't be looked up"
    elif "ProxyError" in text or "Tunnel connection failed" in text:
        reason = f"the proxy (HTTPS_PROXY) lets nothing through to {host}"
    elif "timed out" in text or "Timeout" in text:
        reason = f"{host} gave no answer in time"
    elif isinstance(error, ServiceRequestError) or "NewConnectionError" in text:
        reason = f"no connection to {host}"
    else:
        reason = f"the connection to {host} broke"
    return CloudError(f"can't {what}: {reason}", hint)


def _is_known(host: str) -> bool:
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True
