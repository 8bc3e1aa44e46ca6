"""Translate Azure ML errors into `CloudError`s with a cause and a hint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from cifarml.cloud_errors import ErrorMeaning, connection_error, service_error, sign_in_error
from cifarml.errors import CloudError

_DOCTOR: Final = "see: cifarml doctor --target azure"
_THROTTLED: Final = ("requests are throttled (429)", "try again in a few minutes")
_OUT_OF_QUOTA: Final = (
    "not enough quota",
    "see the usage: az vm list-usage --location {location} -o table; request more in the portal under "
    "Quotas, Machine learning; or use a smaller size. Managed endpoints reserve an extra 20 % of the cores "
    "for upgrades",
)
_MEANINGS: Final[dict[str, ErrorMeaning]] = {
    "AuthorizationFailed": (
        "permission denied",
        'assign a role: az role assignment create --role "AzureML Data Scientist" --assignee YOUR_NAME '
        "--scope {scope}   (permissions of each command: docs/guides/azure-setup.md)",
    ),
    "LinkedAuthorizationFailed": (
        "permission denied on a linked resource",
        "permissions of each command: docs/guides/azure-setup.md",
    ),
    "SubscriptionNotFound": (
        "subscription {subscription} does not exist, or this identity has no access to it",
        "list yours: az account list -o table",
    ),
    "ResourceGroupNotFound": (
        "resource group {group} does not exist in the subscription",
        "list yours: az group list -o table",
    ),
    "WorkspaceNotFound": (
        "workspace {workspace} does not exist in resource group {group}",
        "list yours: az ml workspace list -o table; settings: cifarml config show",
    ),
    "TooManyRequests": _THROTTLED,
    "ServerBusy": _THROTTLED,
    "OutOfQuota": _OUT_OF_QUOTA,
    "QuotaExceeded": _OUT_OF_QUOTA,
    "OutOfCapacity": (
        "Azure has no capacity for this VM size in {location} at the moment",
        "try again later, or use another size",
    ),
    "NameNotAvailable": (
        "the endpoint name is already in use in {location}; endpoint names are unique within a region",
        "use another name: --name NAME",
    ),
    "Conflict": (
        "another operation on the resource is in progress",
        "wait until it has finished, and try again",
    ),
    "ImageBuildFailure": (
        "the environment's image could not be built",
        "see its build log in the studio under Environments, cifarml-scoring",
    ),
    "ResourceNotReady": (
        "the container crashed, or failed its liveness or readiness probe",
        "see its log: cifarml endpoint logs",
    ),
    "InternalServerError": ("internal service error", "try again in a few minutes"),
    "ServiceUnavailable": ("the service is unavailable", "try again in a few minutes"),
}
_CODES_BY_STATUS: Final = {
    403: "AuthorizationFailed",
    409: "Conflict",
    429: "TooManyRequests",
    500: "InternalServerError",
    502: "ServiceUnavailable",
    503: "ServiceUnavailable",
    504: "ServiceUnavailable",
}
_WORDS: Final = re.compile(r"[A-Z][A-Za-z]{3,60}")
_DENIED: Final = re.compile(
    r"perform action '([\w./-]{1,200})'(?:.*?over scope '([\w./() -]{1,500})')?", re.S
)
_SECRET: Final = re.compile(
    r"(?i)(sig|sv|se|token|key|secret|password)=[^&\s\"']+|Bearer\s+\S+|eyJ[\w.-]{20,}"
)


def is_missing(error: Exception) -> bool:
    """Return whether an error means that a resource is missing from an existing workspace."""
    from azure.core.exceptions import HttpResponseError

    status = error.status_code if isinstance(error, HttpResponseError) else None
    return status == 404 and not _missing_scope(str(error))


def translate_error(
    error: Exception, action: str, names: Mapping[str, str], kind: type[CloudError] = CloudError
) -> CloudError:
    """Translate an exception of Azure's libraries; unknown types are raised again.

    Args:
        error: The exception.
        action: Attempted action, for the message "can't ACTION: REASON".
        names: ``location``, ``subscription``, ``group``, ``workspace`` and ``scope``, for the hints.
        kind: Class of the error to return.
    """
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    if isinstance(error, ClientAuthenticationError):
        return sign_in_error(action, error, kind=kind)
    if isinstance(error, HttpResponseError):
        return _response_error(error, action, names, kind)
    if isinstance(error, AzureError) and type(error).__module__.startswith("azure.ai.ml"):
        return kind(f"can't {action}: {_redact(str(error))}", _DOCTOR)
    if isinstance(error, AzureError | OSError) or type(error).__module__.startswith("urllib3"):
        return connection_error(action, error, kind=kind)
    if isinstance(error, AttributeError | TypeError | LookupError | ValueError):
        return kind(
            f"can't {action}: unexpected response from Azure ({type(error).__name__})",
            "try again; for details set CIFARML_DEBUG=1",
        )
    raise error


def _response_error(error: Any, action: str, names: Mapping[str, str], kind: type[CloudError]) -> CloudError:
    text, code = _service_text(error), _service_code(error)
    response = error.response
    host = urlsplit(str(getattr(getattr(response, "request", None), "url", ""))).hostname or ""
    if missing := _missing_scope(text):
        code = missing
    meaning = _MEANINGS.get(code) or _MEANINGS.get(_CODES_BY_STATUS.get(int(error.status_code or 0), ""))
    detail = (
        "" if host.endswith("blob.core.windows.net") else _redact(text)
    )  # storage errors can contain SAS signatures
    if meaning is None:
        meaning = ("", _DOCTOR)
        detail = detail or f"the service returned {error.status_code} {code}".strip()
    elif denied := _DENIED.search(text):
        names = {**names, "scope": denied[2] or names["scope"]}
        detail = f"requires {denied[1]}"
    elif code in {"TooManyRequests", "InternalServerError", "ServiceUnavailable", "WorkspaceNotFound"}:
        detail = ""
    headers = getattr(response, "headers", None) or {}
    return service_error(action, meaning, names, code=code, headers=headers, detail=detail, kind=kind)


def _service_text(error: Any) -> str:
    """Return the service's message; errors of the MLflow API have their own format."""
    if error.error is None and error.response is not None:
        try:
            body = error.response.json()
            body = body.get("Error", body)
            return str(body.get("Message") or body["message"])
        except (ValueError, LookupError, AttributeError):
            pass
    return str(error.message or error)


def _service_code(error: Any) -> str:
    """Return the service's error code; failed operations have it only in the message."""
    code = str(getattr(error.error, "code", "") or "")
    if code in _MEANINGS:
        return code
    text = str(error.message or error)
    if "not enough quota" in text.lower():
        return "OutOfQuota"
    if "already exists an endpoint" in text.lower() or "name is already" in text.lower():
        return "NameNotAvailable"
    found = [word for word in _WORDS.findall(text) if word in _MEANINGS]
    return found[0] if found else (code if re.fullmatch(r"\w{1,80}", code) else "")


def _missing_scope(text: str) -> str:
    """Return the code for a missing subscription, resource group or workspace, or an empty string."""
    if found := re.search("SubscriptionNotFound|ResourceGroupNotFound", text):
        return found[0]
    pattern = r"workspaces/[\w.-]+'? under resource group|WorkspaceNotFound|Workspace not found"
    return "WorkspaceNotFound" if re.search(pattern, text) else ""


def _redact(text: str) -> str:
    """Return the service's message in one line, with possible secrets redacted."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)  # ANSI colors
    text = re.split(r"\n(?:Code|Message|Exception Details|Target|Additional Information|Content):", text)[0]
    text = re.sub(r"^\((?:None|\w+)\)\s*", "", text.strip())
    return " ".join(_SECRET.sub("...", text).split())[:600].rstrip(".")


_LOG_CAUSES: Final = (
    (r"ModuleNotFoundError: No module named '([\w.]+)'", "the environment does not contain the library {0}"),
    (r"the model can't be served: (.{1,200})", "the model can't be served: {0}"),
    (r"MemoryError|Out of memory|OOMKilled|Killed", "out of memory: use a larger --instance-type"),
    (
        r"AuthorizationPermissionMismatch|AuthorizationFailure|does not have (?:permission|authorization)",
        "the endpoint's managed identity cannot read the model: assign it Storage Blob Data Reader on the "
        "workspace's storage account (docs/guides/azure-setup.md)",
    ),
    (r"WORKER TIMEOUT", "a request timed out, and its worker process was killed"),
    (r"No space left on device", "the disk is full: use a larger --instance-type"),
    (r"(?m)^(?!UserScript)(\w[\w.]*(?:Error|Exception)): (.{1,200})", "{0}: {1}"),
)


def diagnose_log(log: str) -> str | None:
    """Return the likely cause of a container's failure from its log; None if it is not known."""
    for pattern, cause in _LOG_CAUSES:
        if found := re.search(pattern, log):  # the first match is the cause of the later ones
            return cause.format(*(group or "" for group in found.groups()))
    return None
