"""TCP relay that adds latency: ``python -m tests.benchmarks.line TARGET_PORT DELAY_S`` prints its port."""

from __future__ import annotations

import asyncio
import sys
from typing import cast


class End(asyncio.Protocol):
    """One end of a relayed connection: data received here is sent at the other end after a delay."""

    def __init__(self, delay_s: float, target: int | None = None) -> None:
        self.delay_s, self.target = delay_s, target
        self.other: End | None = None
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.target is not None:
            asyncio.get_running_loop().create_task(self._connect(self.target))

    async def _connect(self, target: int) -> None:
        onward = End(self.delay_s)
        onward.other = self
        await asyncio.get_running_loop().create_connection(lambda: onward, "127.0.0.1", target)
        self.other = onward
        for data in self.early:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        else:
            asyncio.get_running_loop().call_later(self.delay_s, self.other.transport.write, data)

    def connection_lost(self, _: Exception | None) -> None:
        if self.other is not None:
            asyncio.get_running_loop().call_later(self.delay_s, self.other.transport.close)


async def relay(target: int, delay_s: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: End(delay_s, target), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(relay(int(sys.argv[1]), float(sys.argv[2])))
