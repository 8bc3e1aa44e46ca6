"""Reverse proxy that serves another server under a path prefix, as nginx does."""

from __future__ import annotations

import http.client
import http.server

from tests.emulators.loopback_servers import LoopbackServer

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "server", "date"}


class PrefixProxy(LoopbackServer):
    """Reverse proxy for the server on a port of 127.0.0.1.

    Args:
        port: Port of the server.
        prefix: Path prefix, such as ``/cifar10``; other paths are not found.
        keep_prefix: Whether the server receives paths with the prefix.
    """

    def __init__(self, port: int, prefix: str, *, keep_prefix: bool) -> None:
        self.upstream_port = port
        self.prefix = prefix
        self.keep_prefix = keep_prefix
        super().__init__(_Forwarder)


class _Forwarder(http.server.BaseHTTPRequestHandler):
    server: PrefixProxy
    protocol_version = "HTTP/1.1"

    def _forward(self) -> None:
        if not self.path.startswith(f"{self.server.prefix}/"):
            self.send_error(404)
            return
        path = self.path if self.server.keep_prefix else self.path.removeprefix(self.server.prefix)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        headers |= {"X-Forwarded-For": self.client_address[0], "X-Forwarded-Proto": "http"}
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream_port, timeout=60)
        upstream.request(self.command, path, body, headers)
        response = upstream.getresponse()
        content = response.read()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        upstream.close()

    do_GET = do_HEAD = do_POST = do_OPTIONS = do_DELETE = _forward  # noqa: N815  # names of http.server

    def log_message(self, *_: object) -> None:
        """Print nothing."""
