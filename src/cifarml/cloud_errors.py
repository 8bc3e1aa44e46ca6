"""Translate failed requests, connections and sign-ins of cloud services into `CloudError`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cifarml.errors import CloudError

ErrorMeaning = tuple[str, str | None]
"""Meaning of an error code, and a hint; both may contain ``{placeholders}`` for the resource names."""


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
    """Return the error for a rejected request.

    Args:
        action: What was attempted, such as ``"read the blob"``; it follows "can't".
        meaning: Meaning of the error code, and a hint.
        names: Values for the placeholders in ``meaning``.
        code: Error code of the service.
        headers: Headers of the response, for the request id.
        detail: Message of the service, if it adds information.
        kind: Class of the error.
    """
    request_id = str(headers.get("x-ms-request-id") or headers.get("x-ms-correlation-request-id") or "")
    request_id = request_id if re.fullmatch(r"[\w-]{1,80}", request_id) else ""
    text, hint = (part and part.format(**names) for part in meaning)
    reason = ": ".join(filter(None, [text, detail]))
    shown = f" [{code}]" if code and code not in reason else ""
    return kind(f"can't {action}: {reason}{shown}", hint, code=code, request_id=request_id)


def sign_in_error(
    action: str, error: Exception, *, instead: str = "", kind: type[CloudError] = CloudError
) -> CloudError:
    """Return the error for a failed sign-in, with the Entra ID codes from azure-identity's long message."""
    codes = sorted(set(re.findall(r"AADSTS\d{4,8}", str(error))))
    shown = f" ({', '.join(codes)})" if codes else ""
    return kind(
        f"can't {action}: the sign-in to Azure failed{shown}",
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
    """Return the error for a request without a response, classified by the text of the exception."""
    text = repr(error)
    hint = f"check the network, and HTTPS_PROXY if you are behind a proxy; {then}"
    if "ertificate" in text or "CERTIFICATE" in text:
        reason = f"the certificate of {host} is not trusted on this machine"
        hint = "behind a company proxy, set REQUESTS_CA_BUNDLE to its certificates"
    elif is_unresolved_host(error):
        reason = "no network: host names can't be resolved"
    elif "ProxyError" in text or "Tunnel connection failed" in text:
        reason = f"the proxy (HTTPS_PROXY) refuses connections to {host}"
    elif "timed out" in text or "Timeout" in text:
        reason = f"{host} did not respond in time"
    elif "ServiceRequestError" in text or "NewConnectionError" in text:
        reason = f"no connection to {host}"
    else:
        reason = f"the connection to {host} was lost"
    return kind(f"can't {action}: {reason}", hint)


def is_unresolved_host(error: Exception) -> bool:
    """Return whether the host name could not be resolved."""
    return re.search("resolve|Name or service not known|getaddrinfo", repr(error)) is not None
