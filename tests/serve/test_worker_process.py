"""Worker processes that hang, exit or violate the pipe protocol."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from cifarml.serve.pipe_protocol import LENGTH, pack
from cifarml.serve.worker_process import WorkerError, WorkerProcess

SCRIPT = """
import os, sys, time

def init():
    pass

def answer(requests):
    for kind, body in requests:
        exec(body, {**globals(), "pipe": find_pipe()})
    return [(200, kind.encode()) for kind, _ in requests]

def find_pipe():
    '''Return the output pipe, which only the worker's main function should write to.'''
    frame = sys._getframe()
    while "answers" not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals["answers"].fileno()
"""
INVALID = {
    "not pairs": LENGTH.pack(3) + b"[3]",
    "truncated pair": LENGTH.pack(12) + struct.pack("<II", 3, 100) + b"200b",
    "too few responses": pack([]),
    "too many responses": pack([(b"200", b""), (b"200", b"")]),
    "status is not a number": pack([(b"good", b"")]),
    "invalid status": pack([(b"7", b"")]),
    "status with a million digits": pack([(b"9" * 1_000_000, b"")]),
    "oversized frame": LENGTH.pack(2**40),
}


def run(folder: Path, use: Callable[[WorkerProcess], Awaitable[None]]) -> None:
    """Start a worker, use it, then kill it."""
    script = folder / "script.py"
    script.write_text(SCRIPT)

    async def start_and_use() -> None:
        worker = await WorkerProcess.start(script, folder, folder / "worker.log")
        try:
            await use(worker)
        finally:
            await worker.kill()
        assert not worker.alive

    uvloop.run(start_and_use())


def test_send_batch(tmp_path: Path) -> None:
    async def use(worker: WorkerProcess) -> None:
        bodies = [b"", b"#" * 5_000_000, b"print('hello', flush=True)"]
        requests = [(f"{number}".encode(), body) for number, body in enumerate(bodies)]
        assert await worker.send_batch(requests, 60) == [(200, b"0"), (200, b"1"), (200, b"2")]
        await worker.stop()

    run(tmp_path, use)
    assert "hello" in (tmp_path / "worker.log").read_text()


@pytest.mark.parametrize("invalid", list(INVALID))
def test_invalid_responses(tmp_path: Path, invalid: str) -> None:
    async def use(worker: WorkerProcess) -> None:
        with pytest.raises(WorkerError, match="invalid response") as caught:
            await worker.send_batch([(b"", f"os.write(pipe, {INVALID[invalid]!r})".encode())], 60)
        assert not caught.value.hung

    run(tmp_path, use)


@pytest.mark.parametrize("code", ["os._exit(0)", "os.kill(os.getpid(), 9)", "raise SystemExit", "1 / 0"])
def test_worker_exits(tmp_path: Path, code: str) -> None:
    async def use(worker: WorkerProcess) -> None:
        with pytest.raises(WorkerError, match="the worker process exited"):
            await worker.send_batch([(b"", code.encode())], 60)

    run(tmp_path, use)


@pytest.mark.parametrize(
    "code",
    [
        "time.sleep(3600)",
        f"os.write(pipe, {pack([(b'200', b'body')])[:-2]!r}); time.sleep(3600)",
    ],
    ids=["before the frame", "in the middle of the frame"],
)
def test_worker_hangs(tmp_path: Path, code: str) -> None:
    """The timeout fires: no read blocks the event loop."""

    async def use(worker: WorkerProcess) -> None:
        with pytest.raises(WorkerError, match="no response within 1 s") as caught:
            await worker.send_batch([(b"", code.encode())], 1)
        assert caught.value.hung

    run(tmp_path, use)
