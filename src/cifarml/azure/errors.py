"""Translate Azure ML's errors: what they mean and what to do about them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from cifarml.cloud_errors import ErrorMeaning, connection_error, service_error, sign_in_error
from cifarml.errors import CloudError

_DOCTOR: Final = "see: cifarml doctor --target azure"
_THROTTLED: Final = ("the service is throttled: too many requests", "try again in some minutes")
_OUT_OF_QUOTA: Final = (
    "there is not enough quota",
    "see what is left: az vm list-usage --location {location} -o table; ask for more in the portal under "
    "Quotas, Machine learning; or take a smaller size. Managed endpoints set a fifth of the cores apart for "
    "upgrades",
)
_MEANINGS: Final[dict[str, ErrorMeaning]] = {
    "AuthorizationFailed": (
        "you have no right to do this",
        'ask for a role: az role assignment create --role "AzureML Data Scientist" --assignee YOUR_NAME '
        "--scope {scope}   (docs/azure-setup.md says which command needs what)",
    ),
    "LinkedAuthorizationFailed": (
        "you have no right to use what it refers to",
        "see docs/azure-setup.md for the rights of each command",
    ),
    "SubscriptionNotFound": (
        "there is no subscription {subscription}, or you can't see it",
        "yours are: az account list -o table",
    ),
    "ResourceGroupNotFound": (
        "there is no resource group {group} in the subscription",
        "yours are: az group list -o table",
    ),
    "WorkspaceNotFound": (
        "there is no workspace {workspace} in resource group {group}",
        "yours are: az ml workspace list -o table; settings: cifarml config show",
    ),
    "TooManyRequests": _THROTTLED,
    "ServerBusy": _THROTTLED,
    "OutOfQuota": _OUT_OF_QUOTA,
    "QuotaExceeded": _OUT_OF_QUOTA,
    "OutOfCapacity": (
        "Azure has no free machines of this size in {location} now",
        "try later, or take another size",
    ),
    "NameNotAvailable": (
        "the name is taken in {location}; names of endpoints are unique in a region",
        "take another one: --name NAME",
    ),
    "Conflict": ("it is being changed by another operation", "wait until that is done, and try again"),
    "ImageBuildFailure": (
        "the environment's image could not be built",
        "its log is in the studio under Environments, cifarml-scoring",
    ),
    "ResourceNotReady": (
        "the container crashed, or did not answer its probes",
        "look at: cifarml endpoint logs",
    ),
    "InternalServerError": ("internal service error", "try again in some minutes"),
    "ServiceUnavailable": ("the service is not available", "try again in some minutes"),
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
    """Tell whether the service says that a resource does not exist, though its workspace does."""
    from azure.core.exceptions import HttpResponseError

    status = error.status_code if isinstance(error, HttpResponseError) else None
    return status == 404 and not _missing_scope(str(error))


def translate_error(
    error: Exception, action: str, names: Mapping[str, str], kind: type[CloudError] = CloudError
) -> CloudError:
    """Return what a failure of Azure's libraries means.

    Args:
        error: Whatever they raised.
        action: What was tried.
        names: ``location``, ``subscription``, ``group``, ``workspace`` and ``scope``, for the hints.
        kind: What to return.
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
            f"can't {action}: Azure's answer is not what its client expects ({type(error).__name__})",
            "try again; CIFARML_DEBUG=1 shows more",
        )
    raise error


def _response_error(error: Any, action: str, names: Mapping[str, str], kind: type[CloudError]) -> CloudError:
    text, code = _service_text(error), _service_code(error)
    response = error.response
    host = urlsplit(str(getattr(getattr(response, "request", None), "url", ""))).hostname or ""
    if missing := _missing_scope(text):
        code = missing
    meaning = _MEANINGS.get(code) or _MEANINGS.get(_CODES_BY_STATUS.get(int(error.status_code or 0), ""))
    detail = "" if host.endswith("blob.core.windows.net") else _redact(text)  # storage repeats signatures
    if meaning is None:
        meaning = ("", _DOCTOR)
        detail = detail or f"the service answers {error.status_code} {code}".strip()
    elif denied := _DENIED.search(text):
        names = {**names, "scope": denied[2] or names["scope"]}
        detail = f"it takes {denied[1]}"
    elif code in {"TooManyRequests", "InternalServerError", "ServiceUnavailable", "WorkspaceNotFound"}:
        detail = ""
    headers = getattr(response, "headers", None) or {}
    return service_error(action, meaning, names, code=code, headers=headers, detail=detail, kind=kind)


def _service_text(error: Any) -> str:
    """Return the service's own words; MLflow's API has a shape of errors of its own."""
    if error.error is None and error.response is not None:
        try:
            body = error.response.json()
            body = body.get("Error", body)
            return str(body.get("Message") or body["message"])
        except (ValueError, LookupError, AttributeError):
            pass
    return str(error.message or error)


def _service_code(error: Any) -> str:
    """Return the service's error code; a failed operation has it in its text only."""
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
    """Return the service's words in one line, without what could be a secret."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)  # colours
    text = re.split(r"\n(?:Code|Message|Exception Details|Target|Additional Information|Content):", text)[0]
    text = re.sub(r"^\((?:None|\w+)\)\s*", "", text.strip())
    return " ".join(_SECRET.sub("...", text).split())[:600].rstrip(".")


_LOG_CAUSES: Final = (
    (r"ModuleNotFoundError: No module named '([\w.]+)'", "the environment lacks the library {0}"),
    (r"the model can't be served: (.{1,200})", "the model can't be served: {0}"),
    (r"MemoryError|Out of memory|OOMKilled|Killed", "it ran out of memory: take a larger --instance-type"),
    (
        r"AuthorizationPermissionMismatch|AuthorizationFailure|does not have (?:permission|authorization)",
        "the endpoint's identity may not read the model: give it Storage Blob Data Reader on the workspace's "
        "storage account (docs/azure-setup.md)",
    ),
    (r"WORKER TIMEOUT", "a request took too long and its worker was ended"),
    (r"No space left on device", "its disk is full: take a larger --instance-type"),
    (r"(?m)^(?!UserScript)(\w[\w.]*(?:Error|Exception)): (.{1,200})", "{0}: {1}"),
)


def diagnose_log(log: str) -> str | None:
    """Return the usual cause of what a container wrote before it failed; None if it is not known."""
    for pattern, cause in _LOG_CAUSES:
        if found := re.search(pattern, log):  # what comes first is the cause of the rest
            return cause.format(*(group or "" for group in found.groups()))
    return None
