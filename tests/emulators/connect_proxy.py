"""CONNECT proxy that maps known host names to local ports and refuses all others."""

from __future__ import annotations

import contextlib
import selectors
import socket
import socketserver
import sys

from tests.emulators.loopback_servers import LoopbackServer, hang_up


class ConnectProxy(LoopbackServer):
    """CONNECT proxy; changes of ``hosts`` apply to new connections, ``refused`` lists the other hosts."""

    def __init__(self, hosts: dict[str, int]) -> None:
        self.hosts = hosts
        self.refused: list[str] = []
        super().__init__(_Tunnel)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class _Tunnel(socketserver.BaseRequestHandler):
    server: ConnectProxy

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.request.recv(65536)
            if not data or len(head) > 65536:
                return
            head += data
        method, target = head.split(None, 2)[:2]
        host = target.decode("latin-1").rpartition(":")[0]
        port = self.server.hosts.get(host) if method == b"CONNECT" else None
        if port is None:
            self.server.refused.append(host if method == b"CONNECT" else target.decode("latin-1"))
            self.request.sendall(
                b"HTTP/1.1 502 Unknown host\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            return
        with socket.create_connection(("127.0.0.1", port)) as remote:
            remote.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            remote.sendall(head.partition(b"\r\n\r\n")[2])
            try:
                _pump(self.request, remote)
            except OSError:  # forward a reset as a reset
                hang_up(remote)
                hang_up(self.request)


def _pump(one: socket.socket, other: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while selector.get_map():
            for key, _ in selector.select():
                source, sink = key.fileobj, key.data
                assert isinstance(source, socket.socket)
                if data := source.recv(65536):
                    _acknowledge(source)
                    sink.sendall(data)
                else:
                    selector.unregister(source)
                    with contextlib.suppress(OSError):
                        sink.shutdown(socket.SHUT_WR)


def _acknowledge(source: socket.socket) -> None:
    """Send the ACK immediately: urllib3 keeps Nagle's algorithm for proxies, and a PUT would wait 40 ms."""
    if sys.platform == "linux":
        source.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
