"""Access middleware: host, origin and key checks, security headers, and the access log.

A web page in the user's browser can send requests to 127.0.0.1 and to other machines of its network, even
under its own host name (DNS rebinding). So `Host` must name the endpoint, `Origin`, if present, must be the
endpoint's own or an allowed one, and every path that is not public requires the key.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cifarml.network_checks import LOOPBACK, is_loopback
from cifarml.serve.exposure import Exposure
from cifarml.serve.keys import find_fault
from cifarml.serve.router import TrafficRouter
from cifarml.serve.telemetry import AccessLog

_log = logging.getLogger(__name__)

_PUBLIC: Final = re.compile(r"/|/health/(live|ready)|/openapi\.json|/docs|/samples(/[a-z]+\.png)?|/page/.*")
_POST_ONLY: Final = frozenset({"/score", "/seen"})
_MAX_HEADER_BYTES: Final = 32 << 10
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_PREFLIGHT: Final = {
    "access-control-allow-methods": "GET, HEAD, POST",
    "access-control-allow-headers": "authorization, azureml-model-deployment, content-encoding, "
    "content-type, x-request-id",
    "access-control-max-age": "600",
}
_EXPOSED: Final = (
    b"access-control-expose-headers",
    b"azureml-model-deployment, retry-after, x-request-id",
)
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
    """ASGI middleware that rejects unauthorized requests; ``/control`` requires the control key.

    Args:
        app: The application.
        router: Owner of the key that clients send.
        control_key: Key of the admin API, which only this machine can use.
        log: The access log.
        exposure: Names and proxies of the endpoint.
        key_hint: Where to find the key.
    """

    def __init__(
        self,
        app: ASGIApp,
        router: TrafficRouter,
        control_key: str,
        log: AccessLog,
        exposure: Exposure,
        key_hint: str,
    ) -> None:
        self._app = app
        self._router = router
        self._control_key = control_key
        self._log = log
        self._exposure = exposure
        self._key_hint = key_hint

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
        added = [*_HEADERS, (b"x-request-id", request_id), *self._cors_headers(headers)]
        status, sent_bytes = 0, 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *added]
            else:
                sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            app = self._early_response(scope, headers) or self._app
            # uvicorn, which knows that the method is HEAD, does not send the body of the response
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            routed = {**scope, "method": method, "path": self._exposure.strip_root(scope["path"])}
            await app(routed, receive, send_with_headers)
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
                client=(scope["client"] or ("",))[0],
                method=scope["method"][:16],
                path=scope["path"][:200],
                status=status,
                deployment=scope["state"].get("deployment"),
                seconds=round(time.perf_counter() - started, 6),
                sent_bytes=0 if scope["method"] == "HEAD" else sent_bytes,
            )

    def _cors_headers(self, headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """Return the headers that let a page of an allowed origin read the response."""
        if not self._exposure.allowed_origins:
            return []
        origin, vary = headers.get(b"origin", b""), (b"vary", b"Origin")
        if origin.decode("latin-1") not in self._exposure.allowed_origins:
            return [vary]
        return [vary, (b"access-control-allow-origin", origin), _EXPOSED]

    def _early_response(self, scope: Scope, headers: dict[bytes, bytes]) -> Response | None:
        """Return the response to a request that does not reach the application."""
        num_bytes = len(scope["raw_path"]) + len(scope["query_string"])
        if num_bytes + sum(len(name) + len(value) for name, value in scope["headers"]) > _MAX_HEADER_BYTES:
            message = f"the request headers are larger than {_MAX_HEADER_BYTES:,} bytes"
            return error_response(431, "headers_too_large", message, {"connection": "close"})
        exposure = self._exposure
        host = headers.get(b"host", b"").decode("latin-1").lower()
        server = (scope["server"] or ("",))[0]
        if (
            not exposure.allows_host(host, server)
            or sum(name == b"host" for name, _ in scope["headers"]) != 1
        ):
            message = (
                f"the Host header must be one of {', '.join(exposure.host_names)}; allow another name with "
                "the setting serve_allowed_hosts"
            )
            return error_response(421, "wrong_host", message)
        origin = headers.get(b"origin", b"").decode("latin-1")
        if b"origin" in headers and not exposure.allows_origin(origin, scope["scheme"], host):
            message = (
                "requests of this origin are not allowed; allow it with the setting serve_allowed_origins"
            )
            return error_response(403, "wrong_origin", message)
        is_preflight = scope["method"] == "OPTIONS" and b"access-control-request-method" in headers
        if is_preflight and origin in exposure.allowed_origins:
            return Response(status_code=204, headers=_PREFLIGHT)
        path = scope["path"]
        if exposure.root_path and path == exposure.root_path:
            return RedirectResponse(f"{path}/")
        return self._check_key(exposure.strip_root(path), scope, headers)

    def _check_key(self, path: str, scope: Scope, headers: dict[bytes, bytes]) -> Response | None:
        if _PUBLIC.fullmatch(path) or (path in _POST_ONLY and scope["method"] != "POST"):
            return None
        is_control = path.startswith("/control/")
        if is_control and not _is_local(scope, headers):
            return error_response(404, "not_found", "Not Found")
        key = self._control_key if is_control else self._router.key
        fault = find_fault(headers, scope["query_string"], key)
        if fault is None:
            return None
        message = f"{fault}. {self._key_hint}"
        return error_response(401, "unauthorized", message, {"www-authenticate": "Bearer"})


def _is_local(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Return whether a process of this machine sent a request, and no proxy forwarded it."""
    host = headers.get(b"host", b"").partition(b":")[0]
    forwarded = not headers.keys().isdisjoint({b"x-forwarded-for", b"forwarded", b"via"})
    return not forwarded and host == LOOPBACK.encode() and is_loopback(scope["client"][0])
