"""Access middleware: host, origin and key checks, security headers, and the access log.

The server listens on the loopback interface only, but a web page in the user's browser can send requests to
127.0.0.1, even under its own host name (DNS rebinding). So `Host` must name this machine, `Origin`, if
present, must be the endpoint's own, and every path that is not public requires the key.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cifarml.serve.router import TrafficRouter
from cifarml.serve.telemetry import AccessLog

_log = logging.getLogger(__name__)

_PUBLIC: Final = re.compile(r"/|/health/(live|ready)|/openapi\.json|/docs|/samples(/[a-z]+\.png)?|/page/.*")
_HOST: Final = re.compile(rb"(127\.0\.0\.1|localhost)(:\d{1,5})?")
_MAX_HEADER_BYTES: Final = 32 << 10
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
]


def error_response(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Return an error response: ``{"error": {"code", "message"}}``."""
    body = json.dumps({"error": {"code": code, "message": message, **more}})
    return Response(body, status, headers, "application/json")


class AccessMiddleware:
    """ASGI middleware that rejects unauthorized requests; ``/control`` requires the control key."""

    def __init__(self, app: ASGIApp, router: TrafficRouter, control_key: str, log: AccessLog) -> None:
        self._app = app
        self._router = router
        self._control_key = control_key
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8).encode()
        scope["state"]["request_id"] = request_id.decode()
        status, sent_bytes = 0, 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS, (b"x-request-id", request_id)]
            else:
                sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            app = self._refusal(scope, headers) or self._app
            await app(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = 499
        except Exception:  # noqa: BLE001  # the client gets a response without details
            _log.exception("request %s failed", request_id.decode())
            if not status:
                failed = error_response(500, "internal", f"request {request_id.decode()} failed; see the log")
                await failed(scope, receive, send_with_headers)
        finally:
            self._log.write(
                request_id=request_id.decode(),
                method=scope["method"][:16],
                path=scope["path"][:200],
                status=status,
                deployment=scope["state"].get("deployment"),
                seconds=round(time.perf_counter() - started, 6),
                sent_bytes=sent_bytes,
            )

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> Response | None:
        num_bytes = len(scope["raw_path"]) + len(scope["query_string"])
        if num_bytes + sum(len(name) + len(value) for name, value in scope["headers"]) > _MAX_HEADER_BYTES:
            message = f"the request headers are larger than {_MAX_HEADER_BYTES:,} bytes"
            return error_response(431, "headers_too_large", message, {"connection": "close"})
        host = headers.get(b"host", b"").lower()
        if not _HOST.fullmatch(host) or sum(name == b"host" for name, _ in scope["headers"]) != 1:
            return error_response(421, "wrong_host", "the Host header must be 127.0.0.1 or localhost")
        origin = headers.get(b"origin")
        if origin is not None and origin != b"http://" + host:
            return error_response(403, "wrong_origin", "cross-origin requests are not allowed")
        if _PUBLIC.fullmatch(scope["path"]):
            return None
        control = scope["path"].startswith("/control/")
        key = self._control_key if control else self._router.key
        scheme, _, shown = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(shown.strip(), key.encode()):
            return None
        message = (
            "missing or invalid key; send Authorization: Bearer KEY. Print the key: cifarml endpoint keys"
        )
        return error_response(401, "unauthorized", message, {"www-authenticate": "Bearer"})
