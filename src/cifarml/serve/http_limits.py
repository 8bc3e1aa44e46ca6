"""HTTP limits that uvicorn has no setting for: receive deadlines, unread bytes, number of connections.

An ASGI application sees a request once its headers are complete, and uvicorn's keep-alive timeout ends with
the first byte of the next request. So middleware alone cannot stop a client that sends headers slowly or
without end; an `asyncio.Protocol` around uvicorn's can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cifarml.serve.middleware import error_response

MAX_CONNECTIONS: Final = 512
_MAX_UNREAD_BYTES: Final = 512 << 10
"""Bytes received before the application reads them; a single read from a socket yields up to 256 KB."""


class HttpLimits:
    """ASGI middleware that closes connections whose requests arrive too slowly or never end.

    Args:
        app: The application.
        patience_s: Seconds that headers may take to arrive; a body may take three times as long.
    """

    def __init__(self, app: ASGIApp, patience_s: float) -> None:
        self.patience_s = patience_s
        self.connections: dict[Any, _LimitedProtocol] = {}
        self._app = app

    def wrap(self, make_protocol: Callable[..., asyncio.Protocol]) -> Callable[..., asyncio.Protocol]:
        """Return a protocol factory like the given one, with limits around each protocol."""
        return lambda **arguments: _LimitedProtocol(make_protocol(**arguments), self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        connection = self.connections.get(scope.get("client"))
        if connection is None:  # not a request, or the client has disconnected
            await self._app(scope, receive, send)
            return

        async def receive_counted() -> Message:
            message = await receive()
            connection.continue_body(is_complete=not message.get("more_body"))
            return message

        headers = dict(scope["headers"])
        body_bytes = int(headers.get(b"content-length", 0))
        connection.begin_body(body_bytes, is_empty=not body_bytes and b"transfer-encoding" not in headers)
        try:
            await self._app(scope, receive_counted, send)
        finally:
            connection.end_request()


class _LimitedProtocol(asyncio.Protocol):
    """Protocol of one connection that forwards data within the limits to uvicorn's protocol.

    The timer runs while a request arrives, not while a response is computed or sent.
    """

    def __init__(self, inner: asyncio.Protocol, limits: HttpLimits) -> None:
        self._inner = inner
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None
        self._in_request = False
        self._num_allowed_bytes = _MAX_UNREAD_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._client = (transport.get_extra_info("peername") or ())[:2]  # as in an ASGI scope
        self._set_timer(self._limits.patience_s)
        if not self._client or len(self._limits.connections) >= MAX_CONNECTIONS:
            self._refuse(
                HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "too many connections; try again later"
            )
        else:
            self._limits.connections[self._client] = self
            self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_timer(None)
        if self._limits.connections.get(self._client) is self:
            del self._limits.connections[self._client]
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._timer is None and not self._in_request:
            self._set_timer(self._limits.patience_s)
        self._num_allowed_bytes -= len(data)
        if self._num_allowed_bytes >= 0:
            self._inner.data_received(data)
        else:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._refuse(status, "headers_too_large", "the request headers are too large")

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def begin_body(self, num_bytes: int, *, is_empty: bool) -> None:
        """Note that the headers of a request are complete."""
        self._in_request = True
        self._num_allowed_bytes = _MAX_UNREAD_BYTES + num_bytes
        self._set_timer(None if is_empty else 3 * self._limits.patience_s)

    def continue_body(self, *, is_complete: bool) -> None:
        """Note that the application has read all received bytes."""
        self._num_allowed_bytes = max(self._num_allowed_bytes, _MAX_UNREAD_BYTES)
        if is_complete:
            self._set_timer(None)

    def end_request(self) -> None:
        """Note that the response is complete; the rest of the request body may still arrive."""
        self._in_request = False
        self._set_timer(None)

    def _set_timer(self, limit_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(limit_s, self._time_out) if limit_s else None

    def _time_out(self) -> None:
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, "too_slow", "the request took too long to arrive")

    def _refuse(self, status: HTTPStatus, code: str, message: str) -> None:
        """Close the connection, with an error response unless another response could be in progress."""
        if self._timer is not None and not self._transport.is_closing():
            body = bytes(error_response(status, code, message).body)
            self._transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n%s" % (status, status.phrase.encode(), len(body), body)
            )
        self._transport.close()
