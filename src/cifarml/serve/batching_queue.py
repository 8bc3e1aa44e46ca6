"""Queue of one deployment: sends requests to its worker in dynamic batches and keeps the worker running.

While the worker computes, requests queue up; the next batch is whatever has arrived by then. So a single
client never waits for a batch to fill, and many clients share the cost of a call. A worker that dies or
hangs is replaced, and its batch is retried once, each request alone, so that one bad request cannot fail
the others.
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

_log = logging.getLogger(__name__)

MAX_WAITING: Final = 256
"""Queued requests per deployment; one more is rejected as busy."""

MAX_WAITING_BYTES: Final = 256 << 20
_MAX_BATCH: Final = 32
_MAX_BATCH_BYTES: Final = 8 << 20
_MAX_FAILURES: Final = 5
_FIRST_PAUSE_S: Final = 0.25
_PAUSE_AFTER_FAILURE_S: Final = 15.0
_MEMORY_CHECK_INTERVAL_S: Final = 1.0
_REQUEST_TIMEOUT_FACTOR: Final = 3.0
"""Timeout of a request, time in the queue included, as a multiple of the timeout of a batch."""


class Unavailable(Exception):  # noqa: N818  # becomes a response
    """The deployment is unavailable."""


class Busy(Unavailable):
    """Too many requests are queued."""


class TimedOut(Unavailable):
    """The worker did not respond in time."""


@dataclass(slots=True, eq=False)
class _Request:
    content_type: bytes
    body: bytes
    answer: asyncio.Future[tuple[int, bytes]]
    is_retry: bool = False


class BatchingQueue:
    """Request queue with dynamic batching and a supervised worker process.

    Args:
        name: Name of the deployment, for the log.
        script: The scoring script.
        model_dir: The deployment's copy of the run.
        log: File for the output of the script.
        timeout_s: Timeout of a batch.
        max_memory_bytes: A worker that uses more memory is replaced.
    """

    def __init__(
        self, name: str, script: Path, model_dir: Path, log: Path, *, timeout_s: float, max_memory_bytes: int
    ) -> None:
        self.name = name
        self.state = "starting"
        self.num_requests = self.num_errors = 0
        self._worker_arguments = (script, model_dir, log)
        self._timeout_s = timeout_s
        self._max_memory_bytes = max_memory_bytes
        self._waiting: deque[_Request] = deque()
        self._waiting_bytes = 0
        self._work = asyncio.Event()
        self._worker: WorkerProcess | None = None
        self._successor: WorkerProcess | None = None
        self._failures = 0
        self._num_in_progress = 0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Process requests in the background; start a worker if needed."""
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._watch_memory())]

    async def start_worker(self) -> None:
        """Start the first worker, once.

        Raises:
            WorkerError: If it does not become ready.
        """
        try:
            self._take_worker(await WorkerProcess.start(*self._worker_arguments))
        except WorkerError as error:
            self._record_failure(error)
            self.state = "failed"
            raise

    @property
    def memory_bytes(self) -> int:
        """Resident memory of the worker."""
        return self._worker.memory_bytes() if self._worker else 0

    async def submit(self, content_type: bytes, body: bytes) -> tuple[int, bytes]:
        """Queue a request and wait for its response.

        Returns:
            Status and body.

        Raises:
            Busy: If the queue is full.
            TimedOut: If the worker does not respond in time.
            Unavailable: If the deployment has failed or stopped.
        """
        if self.state in {"failed", "stopped"}:
            raise Unavailable(f"deployment {self.name} is {self.state}")
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes + len(body) > MAX_WAITING_BYTES:
            raise Busy(f"too many requests: {len(self._waiting)} are queued for deployment {self.name}")
        request = _Request(content_type, body, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._waiting_bytes += len(body)
        self._work.set()
        self.num_requests += 1
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_FACTOR * self._timeout_s):
                return await request.answer
        except TimeoutError:
            self.num_errors += 1
            raise TimedOut(f"deployment {self.name} did not respond in time") from None
        except Unavailable:
            self.num_errors += 1
            raise

    async def stop(self) -> None:
        """Finish queued requests, then stop the worker."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REQUEST_TIMEOUT_FACTOR * self._timeout_s):
                while self.state == "ready" and (self._waiting or self._num_in_progress):
                    await asyncio.sleep(0.01)
        self.state = "stopped"
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_pending("was stopped")
        for worker in (self._worker, self._successor):
            if worker is not None:
                await worker.stop()
        self._worker = self._successor = None

    async def _run(self) -> None:
        """Process the queue until cancelled."""
        while True:
            if self._worker is None:
                await self._start_worker_with_backoff()
            await self._work.wait()
            await self._swap_worker()
            if self._worker is None or not self._worker.alive:
                self._record_failure(WorkerError("the worker process exited"))
                await self._discard_worker()
            elif batch := self._next_batch():
                await self._answer(self._worker, batch)
            else:
                self._work.clear()

    async def _answer(self, worker: WorkerProcess, batch: list[_Request]) -> None:
        self._num_in_progress = len(batch)
        try:
            pairs = [(request.content_type, request.body) for request in batch]
            answers = await worker.send_batch(pairs, self._timeout_s)
        except WorkerError as error:
            self._record_failure(error)
            self._requeue(batch, error)
            await self._discard_worker()
        else:
            self._failures = 0
            for request, answer in zip(batch, answers, strict=True):
                self.num_errors += answer[0] >= 500
                if not request.answer.done():
                    request.answer.set_result(answer)
        finally:
            self._num_in_progress = 0

    def _next_batch(self) -> list[_Request]:
        batch: list[_Request] = []
        size_bytes = 0
        while self._waiting and len(batch) < _MAX_BATCH:
            request = self._waiting[0]
            if batch and (request.is_retry or size_bytes + len(request.body) > _MAX_BATCH_BYTES):
                break
            self._waiting.popleft()
            self._waiting_bytes -= len(request.body)
            if request.answer.done():  # timed out or cancelled
                continue
            batch.append(request)
            size_bytes += len(request.body)
            if request.is_retry:
                break
        return batch

    def _requeue(self, batch: list[_Request], error: WorkerError) -> None:
        """Queue each request for one retry, alone; fail it if it was retried before or hung alone."""
        for request in reversed(batch):
            if request.answer.done():
                continue
            if request.is_retry or (error.hung and len(batch) == 1):
                kind = TimedOut if error.hung else Unavailable
                request.answer.set_exception(kind(f"deployment {self.name}: {error}"))
            else:
                request.is_retry = True
                self._waiting.appendleft(request)
                self._waiting_bytes += len(request.body)
                self._work.set()

    async def _start_worker_with_backoff(self) -> None:
        """Start a worker, with exponential backoff after failures."""
        while self._worker is None:
            if self._failures >= _MAX_FAILURES:
                self.state = "failed"
                self._fail_pending(f"failed {self._failures} times")
                await asyncio.sleep(_PAUSE_AFTER_FAILURE_S)
            elif self._failures > 1:
                await asyncio.sleep(_FIRST_PAUSE_S * 2 ** (self._failures - 2))
            try:
                self._take_worker(await WorkerProcess.start(*self._worker_arguments))
            except WorkerError as error:
                self._record_failure(error)

    def _take_worker(self, worker: WorkerProcess) -> None:
        self._worker = worker
        self.state = "ready"
        self._work.set()
        worker.exited.add_done_callback(lambda _: self._work.set())

    async def _swap_worker(self) -> None:
        if self._successor is not None:
            old, new, self._successor = self._worker, self._successor, None
            self._take_worker(new)
            if old is not None:
                await old.stop()

    async def _discard_worker(self) -> None:
        worker, self._worker = self._worker, None
        self.state = "starting"
        if worker is not None:
            await worker.kill()

    def _record_failure(self, error: WorkerError) -> None:
        self._failures += 1
        _log.warning("deployment %s: %s (%d consecutive failures)", self.name, error, self._failures)

    def _fail_pending(self, why: str) -> None:
        """Fail all queued requests."""
        while self._waiting:
            request = self._waiting.popleft()
            if not request.answer.done():
                request.answer.set_exception(Unavailable(f"deployment {self.name} {why}"))
        self._waiting_bytes = 0

    async def _watch_memory(self) -> None:
        """Replace a worker that leaks memory, without downtime."""
        while True:
            await asyncio.sleep(_MEMORY_CHECK_INTERVAL_S)
            used = self.memory_bytes
            if used <= self._max_memory_bytes or self._successor is not None:
                continue
            _log.warning("deployment %s uses %d MB: replacing its worker", self.name, used >> 20)
            with contextlib.suppress(WorkerError):
                self._successor = await WorkerProcess.start(*self._worker_arguments)
                self._work.set()
