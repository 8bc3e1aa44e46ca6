"""One deployment inside the server: requests wait in line and go to its worker in small batches.

While the worker computes, what arrives waits; the next batch is whatever has arrived by then. So one
caller never waits for others to fill a batch, and many callers share the cost of a call. A worker that
dies or hangs is replaced, and what it had in hand is tried once more, each request alone, so that a
poisonous one takes no other with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cifarml.serve.worker_process import WorkerError, WorkerProcess

__all__ = ["Busy", "Runner", "TimedOut", "Unavailable"]

_log = logging.getLogger(__name__)

MAX_WAITING: Final = 256
"""Requests that wait for one deployment; one more is told to come again."""

MAX_WAITING_BYTES: Final = 256 << 20
_MAX_BATCH: Final = 32
_MAX_BATCH_BYTES: Final = 8 << 20
_MAX_FAILURES: Final = 5
_FIRST_PAUSE_S: Final = 0.25
_LONG_PAUSE_S: Final = 15.0
_LOOK_AT_MEMORY_EVERY_S: Final = 1.0
_PATIENCE: Final = 3.0
"""How many times its own time a request may take in all, waiting included."""


class Unavailable(Exception):  # noqa: N818  # they become answers, not errors
    """The deployment can't answer now."""


class Busy(Unavailable):
    """Too many requests wait already."""


class TimedOut(Unavailable):
    """No answer came in time."""


@dataclass(slots=True, eq=False)
class _Request:
    content_type: bytes
    body: bytes
    answer: asyncio.Future[tuple[int, bytes]]
    tried: bool = False


class Runner:
    """Keeps a worker running and gives it work.

    Args:
        name: Name of the deployment, for the log.
        script: The scoring script.
        model_dir: Its copy of the run.
        log: What the script prints goes there.
        timeout_s: How long a batch may take.
        max_memory_bytes: A worker that takes more is replaced by a fresh one.
    """

    def __init__(
        self, name: str, script: Path, model_dir: Path, log: Path, *, timeout_s: float, max_memory_bytes: int
    ) -> None:
        self.name = name
        self.state = "starting"
        self.num_requests = self.num_errors = 0
        self._make = (script, model_dir, log)
        self._timeout_s = timeout_s
        self._max_memory_bytes = max_memory_bytes
        self._waiting: deque[_Request] = deque()
        self._waiting_bytes = 0
        self._work = asyncio.Event()
        self._worker: WorkerProcess | None = None
        self._successor: WorkerProcess | None = None
        self._failures = 0
        self._in_hand = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, *, once: bool) -> None:
        """Start the first worker.

        Args:
            once: Raise where it does not become ready, instead of trying again and again.

        Raises:
            WorkerError: See ``once``.
        """
        try:
            self._take_worker(await WorkerProcess.start(*self._make))
        except WorkerError as error:
            self._failed(error)
            if once:
                self.state = "failed"
                raise
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._watch_memory())]

    @property
    def memory_bytes(self) -> int:
        """How much memory the worker takes."""
        return self._worker.memory_bytes() if self._worker else 0

    async def ask(self, content_type: bytes, body: bytes) -> tuple[int, bytes]:
        """Have one request answered.

        Returns:
            The status, and a JSON document.

        Raises:
            Busy: If too many wait.
            TimedOut: If no answer came in time.
            Unavailable: If the deployment does not work.
        """
        if self.state in {"failed", "stopped"}:
            raise Unavailable(f"deployment {self.name} is {self.state}")
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes + len(body) > MAX_WAITING_BYTES:
            raise Busy(f"{len(self._waiting)} requests wait for deployment {self.name} already")
        request = _Request(content_type, body, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._waiting_bytes += len(body)
        self._work.set()
        self.num_requests += 1
        try:
            async with asyncio.timeout(_PATIENCE * self._timeout_s):
                return await request.answer
        except TimeoutError:
            self.num_errors += 1
            raise TimedOut(f"deployment {self.name} did not answer in time") from None
        except Unavailable:
            self.num_errors += 1
            raise

    async def stop(self) -> None:
        """Finish what waits, then end the worker."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE * self._timeout_s):
                while self.state == "ready" and (self._waiting or self._in_hand):
                    await asyncio.sleep(0.01)
        self.state = "stopped"
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._give_up("was stopped")
        for worker in (self._worker, self._successor):
            if worker is not None:
                await worker.end()
        self._worker = self._successor = None

    async def _run(self) -> None:
        """Work off the line, for ever."""
        while True:
            if self._worker is None:
                await self._bring_up()
            await self._work.wait()
            await self._change_over()
            if self._worker is None or not self._worker.alive:
                self._failed(WorkerError("its process ended"))
                await self._drop_worker()
            elif batch := self._next_batch():
                await self._answer(self._worker, batch)
            else:
                self._work.clear()

    async def _answer(self, worker: WorkerProcess, batch: list[_Request]) -> None:
        self._in_hand = len(batch)
        try:
            pairs = [(request.content_type, request.body) for request in batch]
            answers = await worker.ask(pairs, self._timeout_s)
        except WorkerError as error:
            self._failed(error)
            self._put_back(batch, error)
            await self._drop_worker()
        else:
            self._failures = 0
            for request, answer in zip(batch, answers, strict=True):
                self.num_errors += answer[0] >= 500
                if not request.answer.done():
                    request.answer.set_result(answer)
        finally:
            self._in_hand = 0

    def _next_batch(self) -> list[_Request]:
        batch: list[_Request] = []
        size_bytes = 0
        while self._waiting and len(batch) < _MAX_BATCH:
            request = self._waiting[0]
            if batch and (request.tried or size_bytes + len(request.body) > _MAX_BATCH_BYTES):
                break
            self._waiting.popleft()
            self._waiting_bytes -= len(request.body)
            if request.answer.done():  # nobody waits for it any more
                continue
            batch.append(request)
            size_bytes += len(request.body)
            if request.tried:
                break
        return batch

    def _put_back(self, batch: list[_Request], error: WorkerError) -> None:
        """Try each once more, alone; but not what was alone and hung."""
        for request in reversed(batch):
            if request.answer.done():
                continue
            if request.tried or (error.hung and len(batch) == 1):
                kind = TimedOut if error.hung else Unavailable
                request.answer.set_exception(kind(f"deployment {self.name}: {error}"))
            else:
                request.tried = True
                self._waiting.appendleft(request)
                self._waiting_bytes += len(request.body)
                self._work.set()

    async def _bring_up(self) -> None:
        """Start a worker, with longer and longer pauses where it fails."""
        while self._worker is None:
            if self._failures >= _MAX_FAILURES:
                self.state = "failed"
                self._give_up(f"failed {self._failures} times")
                await asyncio.sleep(_LONG_PAUSE_S)
            elif self._failures > 1:
                await asyncio.sleep(_FIRST_PAUSE_S * 2 ** (self._failures - 2))
            try:
                self._take_worker(await WorkerProcess.start(*self._make))
            except WorkerError as error:
                self._failed(error)

    def _take_worker(self, worker: WorkerProcess) -> None:
        self._worker = worker
        self.state = "ready"
        self._work.set()
        worker.exited.add_done_callback(lambda _: self._work.set())

    async def _change_over(self) -> None:
        if self._successor is not None:
            old, new, self._successor = self._worker, self._successor, None
            self._take_worker(new)
            if old is not None:
                await old.end()

    async def _drop_worker(self) -> None:
        worker, self._worker = self._worker, None
        self.state = "starting"
        if worker is not None:
            await worker.kill()

    def _failed(self, error: WorkerError) -> None:
        self._failures += 1
        _log.warning("deployment %s: %s (%d in a row)", self.name, error, self._failures)

    def _give_up(self, why: str) -> None:
        """Tell all who wait that there will be no answer."""
        while self._waiting:
            request = self._waiting.popleft()
            if not request.answer.done():
                request.answer.set_exception(Unavailable(f"deployment {self.name} {why}"))
        self._waiting_bytes = 0

    async def _watch_memory(self) -> None:
        """Replace a worker that leaks, without a gap."""
        while True:
            await asyncio.sleep(_LOOK_AT_MEMORY_EVERY_S)
            taken = self.memory_bytes
            if taken <= self._max_memory_bytes or self._successor is not None:
                continue
            _log.warning("deployment %s takes %d MB: replaced by a fresh process", self.name, taken >> 20)
            with contextlib.suppress(WorkerError):
                self._successor = await WorkerProcess.start(*self._make)
                self._work.set()
