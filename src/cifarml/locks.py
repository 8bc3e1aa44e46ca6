"""Locks between processes, which say what they wait for."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import BaseFileLock, Timeout

_logger = logging.getLogger(__name__)
_SILENT_S: Final = 2.0
"""Seconds of waiting without a message."""


@contextmanager
def hold(lock: BaseFileLock, what: str) -> Iterator[None]:
    """Hold a lock; after two seconds of waiting, log for what, and which process holds it.

    Args:
        lock: The lock, with its timeout.
        what: What the lock protects, such as ``the model registry``.

    Raises:
        Timeout: If the lock has a timeout, and another process holds it for longer.
        OSError: If the lock file can't be written.
    """
    acquire(lock, what)
    try:
        yield
    finally:
        lock.release()


def acquire(lock: BaseFileLock, what: str) -> None:
    """Acquire a lock as `hold` does, without releasing it."""
    timeout_s = lock.timeout
    try:
        lock.acquire(timeout=_SILENT_S if timeout_s < 0 else min(_SILENT_S, timeout_s))
    except Timeout:
        if 0 <= timeout_s <= _SILENT_S:
            raise
        _logger.warning("Waiting for %s, in use by %s (lock %s)", what, holder(lock), lock.lock_file)
        lock.acquire(timeout=timeout_s if timeout_s < 0 else timeout_s - _SILENT_S)


def holder(lock: BaseFileLock) -> str:
    """Describe the process that holds a lock: its ID and command, if the system reveals them."""
    try:
        about = Path(lock.lock_file).stat()
        place = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        fields = next(parts for parts in map(str.split, lines) if place in parts and parts[1] == "FLOCK")
        command = Path("/proc", fields[4], "cmdline").read_bytes().decode(errors="replace").split("\0")
    except (OSError, ValueError, StopIteration):  # another system, or a process of another container
        return "another process"
    plain = itertools.takewhile(lambda word: word and word[0] != "-", command)  # flags can contain secrets
    words = [Path(word).name for word in itertools.islice(plain, 3)]
    return f"process {fields[4]} ({' '.join(words)[:60]})"
