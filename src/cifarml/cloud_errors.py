"""Translate refusals, broken connections and failed sign-ins of cloud services into `CloudError`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cifarml.errors import CloudError

ErrorMeaning = tuple[str, str | None]
"""What an error code means, and a hint; both may contain ``{names}`` of what the request was about."""


def service_error(
    action: str,
    meaning: ErrorMeaning,
    names: Mapping[str, str],
    *,
    code: str,
    headers: Any,
    detail: str = "",
    kind: type[CloudError] = CloudError,
) -> CloudError:
    """Return the error for a refused request; ``detail`` is what the service's own words add."""
    request_id = str(headers.get("x-ms-request-id") or headers.get("x-ms-correlation-request-id") or "")
    request_id = request_id if re.fullmatch(r"[\w-]{1,80}", request_id) else ""
    text, hint = (part and part.format(**names) for part in meaning)
    reason = ": ".join(filter(None, [text, detail]))
    shown = f" [{code}]" if code and code not in reason else ""
    return kind(f"can't {action}: {reason}{shown}", hint, code=code, request_id=request_id)


def sign_in_error(
    action: str, error: Exception, *, instead: str = "", kind: type[CloudError] = CloudError
) -> CloudError:
    """Return the error for a failed sign-in, with Entra ID's codes; azure-identity's text is a page long."""
    codes = sorted(set(re.findall(r"AADSTS\d{4,8}", str(error))))
    shown = f" ({', '.join(codes)})" if codes else ""
    return kind(
        f"can't {action}: no way to sign in to Azure worked{shown}",
        f"az login   (or set {instead}AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET)",
        code="".join(codes[:1]),
    )


def connection_error(
    action: str,
    error: Exception,
    *,
    host: str = "Azure",
    then: str = "then try again",
    kind: type[CloudError] = CloudError,
) -> CloudError:
    """Return the error for a request without a response, by the words of requests and urllib3."""
    text = repr(error)
    hint = f"check the network, and HTTPS_PROXY if you are behind a proxy; {then}"
    if "ertificate" in text or "CERTIFICATE" in text:
        reason = f"the certificate of {host} is not trusted here"
        hint = "behind a company's proxy, name its certificates in REQUESTS_CA_BUNDLE"
    elif is_unresolved_host(error):
        reason = "no network: names can't be looked up"
    elif "ProxyError" in text or "Tunnel connection failed" in text:
        reason = f"the proxy (HTTPS_PROXY) lets nothing through to {host}"
    elif "timed out" in text or "Timeout" in text:
        reason = f"{host} gave no answer in time"
    elif "ServiceRequestError" in text or "NewConnectionError" in text:
        reason = f"no connection to {host}"
    else:
        reason = f"the connection to {host} broke"
    return kind(f"can't {action}: {reason}", hint)


def is_unresolved_host(error: Exception) -> bool:
    """Tell whether a host's name could not be looked up."""
    return re.search("resolve|Name or service not known|getaddrinfo", repr(error)) is not None
