"""HTTP connections that can't be held for ever, nor filled without end."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["MAX_CONNECTIONS", "GuardedConnection"]

MAX_CONNECTIONS: Final = 512
MAX_HEADER_BYTES: Final = 32 << 10
_BODY_TIMES: Final = 3
_LOOKS: Final = 10


class GuardedConnection(HttpToolsProtocol):
    """uvicorn's connection, with the limits that it lacks.

    ``patience_s`` is how long headers may take to arrive, and how long a new connection may say nothing; a
    whole request may take three times as long.
    """

    patience_s: ClassVar[float] = 10.0

    _since: float | None = None
    _in_headers = True
    _header_bytes = 0
    _ended_one = False
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Watch the time, or hang up where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "too many connections; come again")
            return
        self._since = self.loop.time()
        self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, and count what comes before the body."""
        if self._since is None:
            self._since = self.loop.time()
        in_headers, self._ended_one = self._in_headers, False
        super().data_received(data)
        if in_headers and self._in_headers and not self._ended_one and not self.transport.is_closing():
            self._header_bytes += len(data)
            self._check_headers()

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._in_headers, self._header_bytes = True, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, and count those that come after a body."""
        super().on_header(name, value)
        if not self._in_headers:  # after a chunked body; nobody reads them
            self._header_bytes += len(name) + len(value)
            if self._header_bytes > MAX_HEADER_BYTES:
                raise ValueError("the trailers are too long")

    def on_headers_complete(self) -> None:
        """Begin with the request, unless its headers are too large."""
        self._in_headers = False
        self._header_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if self._check_headers():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop the clock: the rest is ours."""
        self._since = None
        self._in_headers, self._header_bytes, self._ended_one = True, 0, True
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body, unless we have hung up."""
        if not self.transport.is_closing():
            super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Say it in JSON, as all errors."""
        self._refuse(HTTPStatus.BAD_REQUEST, "bad_http", msg)

    def _check_headers(self) -> bool:
        if self._header_bytes <= MAX_HEADER_BYTES:
            return True
        message = f"the headers have more than {MAX_HEADER_BYTES:,} bytes"
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", message)
        return False

    def _look_again(self) -> None:
        self._watch = self.loop.call_later(self.patience_s / _LOOKS, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete:
            self._since = None  # it waits for us
        limit_s = self.patience_s * (1 if self._in_headers else _BODY_TIMES)
        if self._since is not None and self.loop.time() - self._since > limit_s:
            self._refuse(
                HTTPStatus.REQUEST_TIMEOUT, "too_slow", f"the request did not arrive in {limit_s:g} s"
            )
            return
        self._look_again()

    def _refuse(self, status: HTTPStatus, code: str, message: str) -> None:
        """Answer by hand and hang up; but say nothing into the middle of another answer."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = json.dumps({"error": {"code": code, "message": message}}).encode()
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n%s" % (status, status.phrase.encode(), len(body), body)
            )
        self.transport.close()
