"""Closed-loop load generator: each client sends its next request after the response to the previous one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import uvloop


@dataclass
class Load:
    """Result of a load test.

    Attributes:
        seconds: Duration.
        latencies_s: Latency of each successful response, in seconds.
        num_errors: Responses other than 200, and lost connections.
    """

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    num_errors: int = 0

    @property
    def rate(self) -> float:
        """Successful responses per second."""
        return len(self.latencies_s) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self.latencies_s, percent)) * 1000


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection with one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self.is_last = False  # the server closes the connection after this response
        self._response: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    async def send(self, request: bytes) -> int:
        self._response = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._response

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or self._response is None:
            return
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), None)
        whole = body.endswith(b"0\r\n\r\n") if length is None else len(body) >= length
        if whole:
            self.is_last = b"connection: close" in lines
            self._received.clear()
            response, self._response = self._response, None
            response.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._response is not None:
            self._response.set_result(0)


async def _client(port: int, request: bytes, ends: float, pause_s: float, load: Load) -> None:
    loop = asyncio.get_running_loop()
    connection: _Connection | None = None
    due = time.perf_counter()
    while (started := time.perf_counter()) < ends:
        if pause_s:  # at a steady rate, independent of the latency
            due += pause_s
            if due > started:
                await asyncio.sleep(due - started)
            started = time.perf_counter()
        if connection is None:
            _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
        if await connection.send(request) == 200:
            load.latencies_s.append(time.perf_counter() - started)
        else:
            load.num_errors += 1
            connection.is_last = True
        if connection.is_last:
            connection.transport.close()
            connection = None
    if connection is not None:
        connection.transport.close()


def put_under_load(
    port: int, request: bytes, *, clients: int, seconds: float, rate: float | None = None
) -> Load:
    """Send requests from concurrent clients, and measure the responses.

    Args:
        port: Port of the endpoint on this machine.
        request: A raw HTTP request.
        clients: Number of concurrent clients.
        seconds: Duration.
        rate: Requests per second of all clients together; if omitted, as many as possible.
    """

    async def run() -> Load:
        load = Load()
        started = time.perf_counter()
        pause_s = clients / rate if rate else 0.0
        each = [_client(port, request, started + seconds, pause_s, load) for _ in range(clients)]
        await asyncio.gather(*each)
        load.seconds = time.perf_counter() - started
        return load

    return uvloop.run(run())
