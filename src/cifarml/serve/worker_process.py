"""Handle of one worker process: start it, send it batches, measure and stop it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from cifarml.serve.endpoint_folder import rotate_log
from cifarml.serve.pipe_protocol import LENGTH, Pair, pack, unpack

_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 3.0
_MAX_ANSWER_BYTES: Final = 64 << 20
_MALLOC_SETTINGS: Final = {"MALLOC_MMAP_THRESHOLD_": str(4 << 20), "MALLOC_TRIM_THRESHOLD_": str(8 << 20)}
"""Otherwise glibc raises both after a large image and keeps up to 64 MB of freed memory."""


class WorkerError(Exception):
    """The worker failed and must be replaced; ``hung`` if it timed out."""

    def __init__(self, message: str, *, hung: bool = False) -> None:
        super().__init__(message)
        self.hung = hung


class WorkerProcess:
    """Process that runs a scoring script; created by :meth:`start`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        self.exited = asyncio.ensure_future(process.wait())

    @classmethod
    async def start(cls, script: Path, model_dir: Path, log: Path) -> WorkerProcess:
        """Start a worker and wait until it is ready.

        Raises:
            WorkerError: If it does not become ready.
        """
        rotate_log(log)
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "cifarml.serve.worker", str(script), str(model_dir)),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=output,
                    cwd=log.parent,
                    env=_MALLOC_SETTINGS | os.environ,
                    limit=1 << 20,
                )
        except OSError as error:
            raise WorkerError(f"cannot start the worker process: {error.strerror}") from error
        worker = cls(process)
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await worker._read_answers()
        except TimeoutError:
            await worker.kill()
            raise WorkerError(
                f"the worker process was not ready after {_START_TIMEOUT_S:.0f} s", hung=True
            ) from None
        except (OSError, EOFError, ValueError):
            await worker.kill()
            code = worker._process.returncode
            raise WorkerError(f"the worker process exited during startup with exit code {code}") from None
        except asyncio.CancelledError:
            await worker.kill()
            raise
        return worker

    async def send_batch(self, requests: Sequence[Pair], timeout_s: float) -> list[tuple[int, bytes]]:
        """Send the content type and body of each request, and return the status and body of each response.

        Raises:
            WorkerError: If the worker died, hung or sent an invalid response; kill it then.
        """
        assert self._stdin is not None  # noqa: S101  # a pipe was requested
        try:
            async with asyncio.timeout(timeout_s):
                self._stdin.write(pack(requests))
                await self._stdin.drain()
                answers = [(int(status), body) for status, body in await self._read_answers()]
        except TimeoutError:
            raise WorkerError(f"no response within {timeout_s:g} s", hung=True) from None
        except (OSError, EOFError, RuntimeError):
            raise WorkerError("the worker process exited") from None
        except ValueError as error:
            raise WorkerError(f"invalid response: {error}") from None
        if len(answers) != len(requests) or not all(200 <= status < 600 for status, _ in answers):
            raise WorkerError("invalid response: wrong number of responses or invalid status")
        return answers

    async def _read_answers(self) -> list[Pair]:
        assert self._stdout is not None  # noqa: S101  # a pipe was requested
        (length,) = LENGTH.unpack(await self._stdout.readexactly(LENGTH.size))
        if length > _MAX_ANSWER_BYTES:
            raise ValueError(f"{length:,} bytes")
        return unpack(await self._stdout.readexactly(length))

    @property
    def alive(self) -> bool:
        """True while the process is running."""
        return self._process.returncode is None

    def memory_bytes(self) -> int:
        """Return the resident memory of the process, or 0 if it has exited."""
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    async def stop(self) -> None:
        """Close the input, wait a few seconds for the process to exit, then kill it."""
        if self._stdin is not None:
            self._stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.exited), _STOP_TIMEOUT_S)
        await self.kill()

    async def kill(self) -> None:
        """Kill the process."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self.exited
