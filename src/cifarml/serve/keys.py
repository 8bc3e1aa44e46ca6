"""Check of the key that a request shows, with an explanation of the usual mistakes."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Final

_OTHER_HEADERS: Final = ("api-key", "x-api-key", "apikey", "x-functions-key", "ocp-apim-subscription-key")
_OTHER_SCHEMES: Final = ("basic", "digest", "token", "key", "apikey", "api-key")
_KEY_IN_URL: Final = re.compile(rb"(^|&)((api|subscription)?[-_]?key|code|token)=", re.IGNORECASE)
_PLACEHOLDER: Final = re.compile(rb"\$.*|<.*>|\{.*\}|(YOUR[_-])?(API[_-])?(KEY|TOKEN)", re.IGNORECASE)


def find_fault(headers: Mapping[bytes, bytes], query: bytes, key: str) -> str | None:
    """Return why a request is not authorized, or None if it shows the key.

    The message never contains what was received, since that could be another key.
    """
    value = headers.get(b"authorization", b"").strip()
    scheme, _, shown = value.partition(b" ")
    if scheme.lower() == b"bearer" and hmac.compare_digest(shown.strip(), key.encode()):
        return None
    fault = _explain_value(scheme, shown.strip()) if value else _explain_absence(headers, query)
    return f"{fault}; send the header Authorization: Bearer KEY"


def _explain_absence(headers: Mapping[bytes, bytes], query: bytes) -> str:
    other = next((name for name in _OTHER_HEADERS if name.encode() in headers), None)
    if other:
        return f"the key is expected in the header Authorization, not in {other}"
    if _KEY_IN_URL.search(query):
        return "a key in the URL is not accepted, since URLs are logged"
    return "the request has no key"


def _explain_value(scheme: bytes, shown: bytes) -> str:
    name = scheme.decode("latin-1").lower().removesuffix(":")
    if name in _OTHER_SCHEMES:
        return f"the header Authorization has the scheme {name} instead of Bearer"
    faults = {
        "the header Authorization does not start with Bearer": name != "bearer",
        "the key after Bearer is empty (is the variable with the key set?)": not shown,
        "the key after Bearer is a placeholder": _PLACEHOLDER.fullmatch(shown),
        "the key after Bearer has quotes around it": shown[:1] in {b"'", b'"'},
    }
    return next((fault for fault, applies in faults.items() if applies), "invalid key")
