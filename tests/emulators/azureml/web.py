"""HTTPS server for all hosts: record requests, inject faults, and dispatch by host."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import signal
import ssl
import threading
import time
import traceback
import urllib.parse
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

from tests.emulators.azureml.faults import Drop, Fault, Kill, LoseReply, Refuse, Request, no_fault
from tests.emulators.loopback_servers import LoopbackServer, hang_up

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass
class Call:
    """Request with its raw body."""

    request: Request
    content: bytes

    @property
    def body(self) -> Any:
        return self.request.body

    @property
    def query(self) -> dict[str, str]:
        return self.request.query


@dataclass
class Response:
    """HTTP response; ``body`` is bytes, None, or a value that is sent as JSON."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class AzureError(Exception):
    """Error response in Azure's format."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def response(self) -> Response:
        return Response(self.status, {"error": {"code": self.code, "message": self.message}})


App = Callable[[Call], Response]


class Gateway(LoopbackServer):
    """HTTPS server; dispatches by host or parent domain to ``apps``, ``blob_host`` to port ``azurite``."""

    def __init__(self, tls: ssl.SSLContext, trust: ssl.SSLContext, blob_host: str, azurite: int) -> None:
        self.trust = trust
        self.blob_host = blob_host
        self.azurite = azurite
        self.apps: dict[str, App] = {}
        self.crashes: list[str] = []
        self._lock = threading.Lock()
        self.reset()
        super().__init__(_Exchange, tls)

    def reset(self) -> None:
        with self._lock:
            self.requests: list[Request] = []
            self.plan: Callable[[Request], Fault | None] = no_fault

    def note(
        self, method: str, host: str, target: str, headers: Mapping[str, str], content: bytes
    ) -> tuple[Call, Fault | None]:
        path, _, query = target.partition("?")
        fields = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        lowered = {name.lower(): value for name, value in headers.items()}
        body = None
        if content and host != self.blob_host:
            with contextlib.suppress(ValueError):
                body = json.loads(content)
        path = urllib.parse.unquote(path)
        with self._lock:
            number = len(self.requests) + 1
            request = Request(number, method, path, fields, lowered, None, host, body)
            self.requests.append(request)
            plan = self.plan
        return Call(request, content), plan(request)

    def respond(self, call: Call) -> Response:
        host = call.request.host
        app = self.apps.get(host) or self.apps.get(host.partition(".")[2])
        try:
            if app is None:
                raise AzureError(404, "NotFound", f"There is no {host}.")
            return app(call)
        except AzureError as error:
            return error.response()
        except Exception:  # noqa: BLE001 - recorded in crashes
            self.crashes.append(f"{call.request}\n{traceback.format_exc()}")
            return AzureError(500, "InternalServerError", "An internal server error occurred.").response()


class _Exchange(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway
    connection: ssl.SSLSocket

    def setup(self) -> None:
        super().setup()
        self.onward = http.client.HTTPSConnection(
            "127.0.0.1", self.server.azurite, context=self.server.trust, timeout=120
        )
        self.used = 0.0

    def finish(self) -> None:
        self.onward.close()
        super().finish()

    def do_GET(self) -> None:
        content = self._read()
        if content is None:
            self._hang_up()
            return
        host = self.headers.get("Host", "").partition(":")[0].lower()
        call, fault = self.server.note(self.command, host, self.path, dict(self.headers), content)
        if isinstance(fault, Refuse):
            self._send(call, self._refusal(call, fault))
            return
        if isinstance(fault, Kill) and fault.before:
            _kill(fault.pid)
        if isinstance(fault, Drop) or (isinstance(fault, Kill) and fault.before):
            self._hang_up()
            return
        try:
            response = self._forward(call) if host == self.server.blob_host else self.server.respond(call)
        except (OSError, http.client.HTTPException):
            self._hang_up()
            return
        call.request.status = response.status
        if isinstance(fault, Kill):
            _kill(fault.pid)
        if isinstance(fault, Kill | LoseReply):
            self._hang_up()
            return
        self._send(call, response)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_OPTIONS = do_GET  # noqa: N815

    def _read(self) -> bytes | None:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            parts = []
            while size := int(self.rfile.readline().partition(b";")[0] or b"0", 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        length = int(self.headers.get("Content-Length", 0))
        content = self.rfile.read(length)
        return content if len(content) == length else None

    def _forward(self, call: Call) -> Response:
        if time.monotonic() - self.used > 2:  # Azurite may be about to close it
            self.onward.close()
        self.onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in {"connection", "expect", "transfer-encoding", "content-length"}:
                self.onward.putheader(name, value)
        if call.content or self.command in {"PUT", "POST"}:
            self.onward.putheader("Content-Length", str(len(call.content)))
        self.onward.endheaders(call.content or None)
        reply = self.onward.getresponse()
        length = reply.getheader("Content-Length")
        body = reply.read()
        self.used = time.monotonic()
        headers = [(name, value) for name, value in reply.getheaders() if name.lower() not in HOP_BY_HOP]
        if self.command == "HEAD" and length:
            headers.append(("Content-Length", length))
        return Response(reply.status, body, dict(headers))

    def _refusal(self, call: Call, fault: Refuse) -> Response:
        message = fault.message or f"Refused: {fault.code}."
        if call.request.host != self.server.blob_host:
            error = AzureError(fault.status, fault.code, message).response()
            return Response(error.status, error.body, fault.headers)
        body = (
            '<?xml version="1.0" encoding="utf-8"?>'
            f"<Error><Code>{fault.code}</Code><Message>{escape(message)}</Message></Error>"
        ).encode()
        headers = {"Content-Type": "application/xml", "x-ms-error-code": fault.code}
        return Response(fault.status, body, headers | dict(fault.headers))

    def _send(self, call: Call, response: Response) -> None:
        """Send a response in one write, because a second write would be delayed by 40 ms."""
        call.request.status = response.status
        headers = {"x-ms-request-id": str(uuid.uuid4()), **response.headers}
        body = response.body
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json; charset=utf-8")
        body = body or b""
        if response.status != 204:
            headers.setdefault("Content-Length", str(len(body)))
        lines = [f"HTTP/1.1 {response.status} {http.client.responses.get(response.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        with contextlib.suppress(OSError):
            self.connection.sendall(head if self.command == "HEAD" else head + body)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.onward.close()
        hang_up(self.connection)

    def log_message(self, *arguments: object) -> None:
        pass


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 0.2  # wait until the process is gone
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.01)
