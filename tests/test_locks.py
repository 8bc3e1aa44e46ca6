"""Messages of a process that waits for a lock."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from cifarml.locks import hold, holder

HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A lock file, and the process that holds it until its standard input is closed."""
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdin
        assert process.stdout.readline() == "held\n"
        yield path, process
        process.stdin.close()


def test_free_lock_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with hold(FileLock(tmp_path / "lock"), "the registry"):
        pass
    assert not caplog.records


def test_waiting_names_lock_and_process(
    held: tuple[Path, subprocess.Popen[str]], caplog: pytest.LogCaptureFixture
) -> None:
    path, process = held

    class Release(logging.Handler):
        """Ends the other process once the message has been logged."""

        def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002
            process.communicate("")

    logger, release = logging.getLogger("cifarml.locks"), Release()
    logger.addHandler(release)
    try:
        with hold(FileLock(path), "the registry"):
            pass
    finally:
        logger.removeHandler(release)
    (record,) = caplog.records
    by = f"process {process.pid} (python" if Path("/proc/locks").exists() else "another process"
    assert record.getMessage().startswith(f"Waiting for the registry, in use by {by}")
    assert str(path) in record.getMessage()


def test_timeout_is_kept(held: tuple[Path, subprocess.Popen[str]], caplog: pytest.LogCaptureFixture) -> None:
    path, _ = held
    with pytest.raises(Timeout), hold(FileLock(path, timeout=0.1), "the run"):
        pass
    assert not caplog.records


def test_holder_is_unknown(tmp_path: Path) -> None:
    assert holder(FileLock(tmp_path / "none")) == "another process"
    with FileLock(tmp_path / "own") as lock:
        assert str(os.getpid()) in holder(lock) or holder(lock) == "another process"
