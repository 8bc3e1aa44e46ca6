"""Reverse proxy in front of Azurite that injects network and service faults into chosen requests."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from tests.emulators.loopback_servers import LoopbackServer, hang_up

BLOCK = 65536


@dataclass
class Request:
    """Received request; ``number`` starts at 1, header names are in lower case."""

    number: int
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    status: int | None = None  # of the response, if one was sent


@dataclass(frozen=True)
class Status:
    """Respond with an error of Azure Storage, without forwarding the request."""

    code: int
    error_code: str = "ServerBusy"
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "The server is busy."


@dataclass(frozen=True)
class CutRequest:
    """Forward only part of the request's body, then reset both connections."""

    after_bytes: int


@dataclass(frozen=True)
class CutResponse:
    """Reset the connection after a number of bytes of the response's body."""

    after_bytes: int


@dataclass(frozen=True)
class Truncate:
    """Close the connection regularly, but before the response has its Content-Length."""

    missing_bytes: int


@dataclass(frozen=True)
class Stall:
    """Forward the request, then delay the response; ``reset`` and ``close`` reset the connection."""

    seconds: float


@dataclass(frozen=True)
class Flip:
    """Flip a bit of one byte of the response's body (index modulo its length)."""

    byte_index: int


@dataclass(frozen=True)
class FlipRequest:
    """Flip a bit of one byte of the request's body (index modulo its length)."""

    byte_index: int


@dataclass(frozen=True)
class LoseReply:
    """Forward the request, then reset the connection instead of sending the response."""


Fault = Status | CutRequest | CutResponse | Truncate | Stall | Flip | FlipRequest | LoseReply
Plan = Callable[[Request], Fault | None]


def no_fault(_: Request) -> Fault | None:
    return None


class FaultProxy(LoopbackServer):
    """Forward requests to the port ``target``; ``plan`` returns the fault for a request, or None."""

    def __init__(self, target: int, tls: ssl.SSLContext, trust: ssl.SSLContext) -> None:
        self.target = target
        self.trust = trust
        self._lock = threading.Lock()
        self.over = threading.Event()
        self.reset()
        super().__init__(_Forward, tls)

    def reset(self, plan: Plan = no_fault) -> None:
        """Clear the recorded requests, end stalls, and set the plan."""
        with self._lock:
            self.over.set()
            self.over = threading.Event()
            self.requests: list[Request] = []
            self.plan = plan

    def note(self, method: str, target: str, headers: Mapping[str, str]) -> tuple[Request, Fault | None]:
        path, _, query = target.partition("?")
        fields = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        lowered = {name.lower(): value for name, value in headers.items()}
        with self._lock:
            request = Request(len(self.requests) + 1, method, path, fields, lowered)
            self.requests.append(request)
            plan = self.plan
        return request, plan(request)

    def close(self) -> None:
        self.over.set()
        super().close()


class _Forward(http.server.BaseHTTPRequestHandler):
    """Handler of a client's connection, with a persistent connection to the target."""

    protocol_version = "HTTP/1.1"
    server: FaultProxy
    connection: ssl.SSLSocket

    def setup(self) -> None:
        super().setup()
        self.onward = http.client.HTTPSConnection(
            "127.0.0.1", self.server.target, context=self.server.trust, timeout=120
        )
        self.used = 0.0

    def finish(self) -> None:
        self.onward.close()
        super().finish()

    def do_GET(self) -> None:
        self.close_connection = self.headers.get("Connection", "").lower() == "close"
        over = self.server.over
        request, fault = self.server.note(self.command, self.path, dict(self.headers))
        if isinstance(fault, Status):
            for _ in self._body():
                pass
            self._refuse(request, fault)
            return
        try:
            reply = self._forward(fault)
            request.status = reply.status
            if isinstance(fault, LoseReply):
                reply.read()
            if isinstance(fault, LoseReply) or (isinstance(fault, Stall) and over.wait(fault.seconds)):
                raise _HangUp
            self._return(reply, fault)
        except (OSError, http.client.HTTPException, _HangUp):
            self.close_connection = True
            self.onward.close()
            hang_up(self.connection)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_OPTIONS = do_GET  # noqa: N815

    def _body(self) -> Iterator[bytes]:
        left = int(self.headers.get("Content-Length", 0))
        while left and (block := self.rfile.read(min(left, BLOCK))):
            left -= len(block)
            yield block
        if left:
            raise _HangUp  # the client disconnected

    def _forward(self, fault: Fault | None) -> http.client.HTTPResponse:
        """Forward the request; return the response with its body unread."""
        length = int(self.headers.get("Content-Length", 0))
        if "Transfer-Encoding" in self.headers or (isinstance(fault, CutRequest) and not length):
            raise _HangUp
        if time.monotonic() - self.used > 2:  # the target may be about to close it
            self.onward.close()
        self.onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect"):
                self.onward.putheader(name, value)
        self.onward.endheaders()
        body = self._body()
        if isinstance(fault, CutRequest):
            body = _first(body, min(fault.after_bytes, length - 1))
        elif isinstance(fault, FlipRequest):
            body = _flipped(body, fault.byte_index, length)
        for block in body:
            self.onward.send(block)
        if isinstance(fault, CutRequest):
            raise _HangUp
        reply = self.onward.getresponse()
        self.used = time.monotonic()
        return reply

    def _return(self, reply: http.client.HTTPResponse, fault: Fault | None) -> None:
        headers = [
            (name, value)
            for name, value in reply.getheaders()
            if name.lower() not in ("connection", "keep-alive", "transfer-encoding")
        ]
        if reply.chunked:
            content = reply.read()
            blocks, length = iter([content] if content else []), len(content)
            headers.append(("Content-Length", str(length)))
        else:
            blocks, length = iter(lambda: reply.read(BLOCK), b""), reply.length or 0
        if isinstance(fault, CutResponse):
            blocks = _first(blocks, min(fault.after_bytes, length))
        elif isinstance(fault, Truncate):
            blocks = _first(blocks, max(length - fault.missing_bytes, 0))
        elif isinstance(fault, Flip):
            blocks = _flipped(blocks, fault.byte_index, length)
        self._send(reply.status, reply.reason, headers, blocks)
        self.used = time.monotonic()
        if isinstance(fault, CutResponse):
            raise _HangUp
        if isinstance(fault, Truncate):
            self.close_connection = True
            self.onward.close()
            self.connection.settimeout(1)
            with contextlib.suppress(OSError):
                self.connection.unwrap().shutdown(socket.SHUT_WR)

    def _refuse(self, request: Request, fault: Status) -> None:
        request.status = fault.code
        body = (
            f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{fault.error_code}</Code>'
            f"<Message>{fault.message}</Message></Error>"
        ).encode()
        headers = [
            ("Content-Type", "application/xml"),
            ("Content-Length", str(len(body))),
            ("x-ms-error-code", fault.error_code),
            ("x-ms-request-id", f"00000000-0000-0000-0000-{request.number:012}"),
            *fault.headers.items(),
        ]
        blocks = [] if self.command == "HEAD" else [body]
        self._send(fault.code, fault.error_code, headers, iter(blocks))

    def _send(
        self, status: int, reason: str, headers: list[tuple[str, str]], blocks: Iterator[bytes]
    ) -> None:
        """Send a response; head and first block in one write, as a second one would take 40 ms."""
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers), "", ""]
        self.connection.sendall("\r\n".join(lines).encode("latin-1") + next(blocks, b""))
        for block in blocks:
            self.connection.sendall(block)

    def log_message(self, *arguments: object) -> None:
        pass


class _HangUp(Exception):  # noqa: N818 - not an error
    """Signal that the connection must be reset."""


def _first(blocks: Iterator[bytes], count: int) -> Iterator[bytes]:
    while count and (block := next(blocks, b"")):
        yield block[:count]
        count -= min(len(block), count)


def _flipped(blocks: Iterator[bytes], index: int, length: int) -> Iterator[bytes]:
    index = index % length if length else 0
    start = 0
    for block in blocks:
        if start <= index < start + len(block):
            changed = bytearray(block)
            changed[index - start] ^= 1
            yield bytes(changed)
        else:
            yield block
        start += len(block)
