"""What Azure ML's refusals mean, and what to do about them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from cifarml.errors import CloudError

if TYPE_CHECKING:
    from cifarml.azure.workspace import AzureWorkspace

__all__ = ["explain_log", "is_missing", "translate"]


class _Meaning(NamedTuple):
    text: str
    hint: str


_SIGN_IN: Final = "az login   (or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET)"
_LOOK: Final = "see: cifarml doctor --target azure"
_QUOTA: Final = (
    "see what is left: az vm list-usage --location {location} -o table; ask for more in the portal under "
    "Quotas, Machine learning; or take a smaller size. Managed endpoints set a fifth of the cores apart for "
    "upgrades"
)
_MEANINGS: Final = {
    "AuthorizationFailed": _Meaning(
        "you have no right to do this",
        'ask for a role: az role assignment create --role "AzureML Data Scientist" --assignee YOUR_NAME '
        "--scope {scope}   (docs/azure-setup.md says which command needs what)",
    ),
    "LinkedAuthorizationFailed": _Meaning(
        "you have no right to use what it refers to", "see docs/azure-setup.md for the rights of each command"
    ),
    "SubscriptionNotFound": _Meaning(
        "there is no subscription {subscription}, or you can't see it", "yours are: az account list -o table"
    ),
    "ResourceGroupNotFound": _Meaning(
        "there is no resource group {group} in the subscription", "yours are: az group list -o table"
    ),
    "WorkspaceNotFound": _Meaning(
        "there is no workspace {workspace} in resource group {group}",
        "yours are: az ml workspace list -o table; settings: cifarml config show",
    ),
    "TooManyRequests": _Meaning("the service is throttled: too many requests", "try again in some minutes"),
    "ServerBusy": _Meaning("the service is throttled: too many requests", "try again in some minutes"),
    "OutOfQuota": _Meaning("there is not enough quota", _QUOTA),
    "QuotaExceeded": _Meaning("there is not enough quota", _QUOTA),
    "OutOfCapacity": _Meaning(
        "Azure has no free machines of this size in {location} now", "try later, or take another size"
    ),
    "NameNotAvailable": _Meaning(
        "the name is taken in {location}; names of endpoints are unique in a region",
        "take another one: --name NAME",
    ),
    "Conflict": _Meaning(
        "it is being changed by another operation", "wait until that is done, and try again"
    ),
    "ImageBuildFailure": _Meaning(
        "the environment's image could not be built",
        "its log is in the studio under Environments, cifarml-scoring",
    ),
    "ResourceNotReady": _Meaning(
        "the container crashed, or did not answer its probes", "look at: cifarml endpoint logs"
    ),
    "InternalServerError": _Meaning("the service has a trouble of its own", "try again in some minutes"),
    "ServiceUnavailable": _Meaning("the service is not available", "try again in some minutes"),
}
_BY_STATUS: Final = {
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
_MAX_TEXT: Final = 600
_NONSENSE: Final = (AttributeError, TypeError, LookupError, ValueError)


def is_missing(error: Exception) -> bool:
    """Tell whether the service says that a thing is not there (and not that the workspace isn't)."""
    from azure.core.exceptions import ResourceNotFoundError

    return isinstance(error, ResourceNotFoundError) and not _missing_scope(str(error))


def translate(
    error: Exception, what: str, workspace: AzureWorkspace, kind: type[CloudError] = CloudError
) -> CloudError:
    """Say what a failure of Azure's libraries means.

    Args:
        error: Whatever they raised.
        what: What was tried.
        workspace: Where.
        kind: What to return.
    """
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    if isinstance(error, ClientAuthenticationError):
        codes = sorted(set(re.findall(r"AADSTS\d{4,8}", str(error))))
        shown = f" ({', '.join(codes)})" if codes else ""
        return kind(
            f"can't {what}: no way to sign in to Azure worked{shown}", _SIGN_IN, code="".join(codes[:1])
        )
    if isinstance(error, HttpResponseError):
        return _refused(error, what, workspace, kind)
    if isinstance(error, AzureError) and type(error).__module__.startswith("azure.ai.ml"):
        return kind(f"can't {what}: {_plain(str(error))}", _LOOK)
    if isinstance(error, AzureError | OSError) or type(error).__module__.startswith(("requests", "urllib3")):
        return _no_answer(error, what, kind)
    if type(error).__module__.startswith("mlflow"):
        return _from_mlflow(error, what, workspace, kind)
    if isinstance(error, _NONSENSE):
        return kind(
            f"can't {what}: Azure's answer is not what its client expects ({type(error).__name__})",
            "try again; CIFARML_DEBUG=1 shows more",
        )
    raise error


def _refused(error: Any, what: str, workspace: AzureWorkspace, kind: type[CloudError]) -> CloudError:
    text, code = str(error.message or error), _code_of(error)
    response = error.response
    headers = getattr(response, "headers", None) or {}
    request_id = str(headers.get("x-ms-request-id") or headers.get("x-ms-correlation-request-id") or "")
    request_id = request_id if re.fullmatch(r"[\w-]{1,80}", request_id) else ""
    host = urlsplit(str(getattr(getattr(response, "request", None), "url", ""))).hostname or ""
    if missing := _missing_scope(text):
        code = missing
    meaning = _MEANINGS.get(code) or _MEANINGS.get(_BY_STATUS.get(int(error.status_code or 0), ""))
    names = _names(workspace)
    said = "" if host.endswith("blob.core.windows.net") else _plain(text)  # storage repeats signatures
    if meaning is None:
        reason, hint = said or f"the service answers {error.status_code} {code}".strip(), _LOOK
    else:
        if denied := _DENIED.search(text):
            names["scope"] = denied[2] or names["scope"]
            said = f"it takes {denied[1]}"
        elif code in {"TooManyRequests", "InternalServerError", "ServiceUnavailable", "WorkspaceNotFound"}:
            said = ""
        reason = meaning.text.format(**names) + (f": {said}" if said else "")
        hint = meaning.hint.format(**names)
    shown = f" [{code}]" if code and code not in reason else ""
    return kind(f"can't {what}: {reason}{shown}", hint, code=code, request_id=request_id)


def _names(workspace: AzureWorkspace) -> dict[str, str]:
    info = workspace.__dict__.get("info")  # where it is known already
    return {
        "location": str(getattr(info, "location", "REGION")),
        "subscription": workspace.subscription_id,
        "group": workspace.resource_group,
        "workspace": workspace.name,
        "scope": workspace.resource_id,
    }


def _code_of(error: Any) -> str:
    """Return the service's word for it; a failed operation has it in its text only."""
    inner = getattr(error, "error", None)
    code = str(getattr(inner, "code", "") or "")
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
    if "SubscriptionNotFound" in text:
        return "SubscriptionNotFound"
    if "ResourceGroupNotFound" in text:
        return "ResourceGroupNotFound"
    if re.search(r"workspaces/[\w.-]+'? under resource group|WorkspaceNotFound|Workspace not found", text):
        return "WorkspaceNotFound"
    return ""


def _plain(text: str) -> str:
    """Return what the service says, in one piece, without what could be a secret."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)  # colours
    text = re.split(r"\n(?:Code|Message|Exception Details|Target|Additional Information|Content):", text)[0]
    text = re.sub(r"^\((?:None|\w+)\)\s*", "", text.strip())
    return " ".join(_SECRET.sub("...", text).split())[:_MAX_TEXT].rstrip(".")


def _no_answer(error: Exception, what: str, kind: type[CloudError]) -> CloudError:
    text = repr(error)
    hint = "check the network, and HTTPS_PROXY if you are behind a proxy; then try again"
    if "ertificate" in text or "CERTIFICATE" in text:
        reason = "the certificate of Azure's host is not trusted here"
        hint = "behind a company's proxy, name its certificates in REQUESTS_CA_BUNDLE"
    elif "resolve" in text or "Name or service not known" in text or "getaddrinfo" in text:
        reason = "no network: names can't be looked up"
    elif "ProxyError" in text or "Tunnel connection failed" in text:
        reason = "the proxy (HTTPS_PROXY) does not let it through"
    elif "timed out" in text or "Timeout" in text:
        reason = "no answer in time"
    else:
        reason = f"the connection broke ({type(error).__name__})"
    return kind(f"can't {what}: {reason}", hint)


def _from_mlflow(error: Any, what: str, workspace: AzureWorkspace, kind: type[CloudError]) -> CloudError:
    text = str(getattr(error, "message", error))
    if re.search(r"\b(Connection|Max retries|ProtocolError|RemoteDisconnected)", text):
        return _no_answer(error, what, kind)
    status = re.search(r"\b(4\d\d|5\d\d)\b", text)
    meaning = _MEANINGS.get(_BY_STATUS.get(int(status[1]), "")) if status else None
    code = _BY_STATUS.get(int(status[1]), "") if status else ""
    if meaning is None:
        return kind(f"can't {what}: {_plain(text)}", "try again")
    names = _names(workspace)
    return kind(
        f"can't {what}: {meaning.text.format(**names)} [{code}]", meaning.hint.format(**names), code=code
    )


_LOG_SIGNS: Final = (
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


def explain_log(log: str) -> str | None:
    """Say what a container's last lines usually mean; None where they say nothing that we know."""
    for pattern, meaning in _LOG_SIGNS:
        if found := re.search(pattern, log):  # what comes first is the cause of the rest
            return meaning.format(*(group or "" for group in found.groups()))
    return None
