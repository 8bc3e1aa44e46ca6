"""One worker process as the server sees it: started, asked, measured, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from cifarml.serve.endpoint_folder import turn_over
from cifarml.serve.pipe_protocol import LENGTH, Pair, pack, unpack

__all__ = ["WorkerError", "WorkerProcess"]

_START_TIMEOUT_S: Final = 60.0
_END_TIMEOUT_S: Final = 3.0
_MAX_ANSWER_BYTES: Final = 64 << 20
_GIVE_BACK: Final = {"MALLOC_MMAP_THRESHOLD_": str(4 << 20), "MALLOC_TRIM_THRESHOLD_": str(8 << 20)}
"""After a large image glibc raises both by itself, and keeps up to 64 MB that nobody needs any more."""


class WorkerError(Exception):
    """The worker is of no use any more.

    Args:
        message: What happened.
        hung: Whether it is because no answer came in time.
    """

    def __init__(self, message: str, *, hung: bool = False) -> None:
        super().__init__(message)
        self.hung = hung


class WorkerProcess:
    """A process that runs a scoring script; made by :meth:`start`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        self.exited = asyncio.ensure_future(process.wait())

    @classmethod
    async def start(cls, script: Path, model_dir: Path, log: Path) -> WorkerProcess:
        """Start one; returns once it is ready.

        Raises:
            WorkerError: If it does not become ready.
        """
        turn_over(log)
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "cifarml.serve.worker", str(script), str(model_dir)),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=output,
                    cwd=log.parent,
                    env=_GIVE_BACK | os.environ,
                    limit=1 << 20,
                )
        except OSError as error:
            raise WorkerError(f"its process can't be started: {error.strerror}") from error
        worker = cls(process)
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await worker._read()
        except TimeoutError:
            await worker.kill()
            raise WorkerError(f"it was not ready after {_START_TIMEOUT_S:.0f} s", hung=True) from None
        except (OSError, EOFError, ValueError):
            await worker.kill()
            code = worker._process.returncode
            raise WorkerError(f"it ended while it started, with exit code {code}") from None
        except asyncio.CancelledError:
            await worker.kill()
            raise
        return worker

    async def ask(self, requests: Sequence[Pair], timeout_s: float) -> list[tuple[int, bytes]]:
        """Have requests answered, all in one batch.

        Args:
            requests: Content type and body of each.
            timeout_s: How long it may take.

        Returns:
            Status and JSON body of each.

        Raises:
            WorkerError: If it died, hung or answered nonsense; it must be ended then.
        """
        assert self._stdin is not None  # noqa: S101  # it was asked for
        try:
            async with asyncio.timeout(timeout_s):
                self._stdin.write(pack(requests))
                await self._stdin.drain()
                answers = [(int(status), body) for status, body in await self._read()]
        except TimeoutError:
            raise WorkerError(f"no answer came in {timeout_s:g} s", hung=True) from None
        except (OSError, EOFError, RuntimeError):
            raise WorkerError("its process ended") from None
        except ValueError as error:
            raise WorkerError(f"it answered nonsense: {error}") from None
        if len(answers) != len(requests) or not all(200 <= status < 600 for status, _ in answers):
            raise WorkerError("it answered nonsense")
        return answers

    async def _read(self) -> list[Pair]:
        assert self._stdout is not None  # noqa: S101  # it was asked for
        (length,) = LENGTH.unpack(await self._stdout.readexactly(LENGTH.size))
        if length > _MAX_ANSWER_BYTES:
            raise ValueError(f"{length:,} bytes")
        return unpack(await self._stdout.readexactly(length))

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.returncode is None

    def memory_bytes(self) -> int:
        """Return how much memory it takes; 0 where it has ended."""
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    async def end(self) -> None:
        """Let it end by itself, for a moment, and then make it."""
        if self._stdin is not None:
            self._stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.exited), _END_TIMEOUT_S)
        await self.kill()

    async def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self.exited
