"""Callers of an endpoint: each sends its next request when it has the answer to the last one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import uvloop


@dataclass
class Load:
    """What came of it.

    Attributes:
        seconds: How long it took.
        latencies_s: Of each answer.
        num_errors: Answers other than 200, and connections that were lost.
    """

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    num_errors: int = 0

    @property
    def rate(self) -> float:
        """Right answers a second."""
        return len(self.latencies_s) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self.latencies_s, percent)) * 1000


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection with one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self.is_last = False  # the server hangs up after its answer
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    async def ask(self, request: bytes) -> int:
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or self._answer is None:
            return
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), None)
        whole = body.endswith(b"0\r\n\r\n") if length is None else len(body) >= length
        if whole:
            self.is_last = b"connection: close" in lines
            self._received.clear()
            answer, self._answer = self._answer, None
            answer.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._answer is not None:
            self._answer.set_result(0)


async def _client(port: int, request: bytes, ends: float, pause_s: float, load: Load) -> None:
    loop = asyncio.get_running_loop()
    connection: _Connection | None = None
    due = time.perf_counter()
    while (started := time.perf_counter()) < ends:
        if pause_s:  # at a steady rate, whatever the answers take
            due += pause_s
            if due > started:
                await asyncio.sleep(due - started)
            started = time.perf_counter()
        if connection is None:
            _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
        if await connection.ask(request) == 200:
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
    """Have a number of clients ask for some seconds.

    Args:
        port: Where the endpoint listens, on this machine.
        request: An HTTP request, as it goes over the line.
        clients: How many ask at once.
        seconds: How long.
        rate: Requests a second, of all clients together; as fast as they are answered when left out.
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
