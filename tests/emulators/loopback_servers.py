"""TCP servers on the loopback interface, with or without TLS, that close immediately."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import struct
import threading

Client = tuple[str, int]


def hang_up(connection: socket.socket) -> None:
    """Close a connection with a TCP reset, as a crashed process does."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class LoopbackServer(socketserver.ThreadingTCPServer):
    """Threaded TCP server on a free port of 127.0.0.1; it serves until ``close``."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self, handler: type[socketserver.BaseRequestHandler], tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.port: int = self.server_address[1]
        self.closing = threading.Event()
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def finish_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Client
    ) -> None:
        assert isinstance(request, socket.socket)
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = request
        if self._tls:
            connection = self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        self._open.add(connection)
        try:
            if isinstance(connection, ssl.SSLSocket):
                connection.do_handshake()
            super().finish_request(connection, client_address)
        except OSError:
            pass  # the client, or close(), closed the connection
        finally:
            self._open.discard(connection)
            connection.close()

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()
        self._thread.join()
        for connection in self._open.copy():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
