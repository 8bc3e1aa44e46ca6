"""Locks between processes, which report what they wait for, and partial files of one process."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import psutil
from filelock import BaseFileLock, FileLock, Timeout
from pydantic import AwareDatetime, TypeAdapter

from cifarml.errors import CifarMLError

_logger = logging.getLogger(__name__)

OnWait = Callable[[str], None]
"""Called with one line of text that states what a process waits for."""

REPORT_AFTER_S: Final = 2.0
REPORT_EVERY_S: Final = 30.0
TIMEOUT_S: Final = 1800.0
"""Maximum time to wait for another process."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """Process that holds a lock, and its operation.

    Args:
        operation: The operation, such as ``deploy cifar10:2``.
        host: Name of its machine.
        pid: Process ID.
        started: Start time of the process, in seconds since the epoch.
        since: Start time of the operation.
    """

    operation: str
    host: str
    pid: int
    started: float
    since: AwareDatetime

    @classmethod
    def current(cls, operation: str) -> Self:
        """Return this process as the holder of a lock."""
        started = psutil.Process().create_time()
        now = datetime.now(UTC).replace(microsecond=0)
        return cls(operation[:80], socket.gethostname()[:40], os.getpid(), started, now)

    def __str__(self) -> str:
        place = "" if self.host == socket.gethostname()[:40] else f" on {self.host}"
        return f"{self.operation} (process {self.pid}{place}, since {self.since.astimezone():%H:%M:%S})"

    @property
    def is_gone(self) -> bool:
        """True if it was a process of this machine that no longer runs; False if unknown."""
        if self.host != socket.gethostname()[:40]:
            return False
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1
            return not same or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


_HOLDER: Final = TypeAdapter(Holder)


class ProcessLock:
    """Lock between processes and threads; the kernel releases it when its process ends.

    The lock is reentrant within a thread. Its file is kept, since deleting a lock file would allow two
    processes to hold the lock; the file next to it, with the suffix ``.json``, describes the holder.

    Args:
        path: The lock file; its folder must exist.
        what: The locked object, such as ``endpoint cifar10``.
        on_wait: Called after 2 s of waiting, and then every 30 s.
        error: Type of the error that is raised if the lock is not released in time.
        timeout_s: Maximum time to wait.
    """

    def __init__(
        self,
        path: Path,
        what: str,
        *,
        on_wait: OnWait = lambda _: None,
        error: type[CifarMLError] = CifarMLError,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._lock = FileLock(path, mode=0o600, is_singleton=True)
        self._about = path.with_suffix(".json")
        self._what = what
        self._on_wait = on_wait
        self._error = error
        self._timeout_s = timeout_s

    @contextmanager
    def held(self, operation: str) -> Iterator[None]:
        """Hold the lock in the block; wait for it, and report what for.

        Raises:
            CifarMLError: Of the given type, if another process holds it for too long.
            OSError: If the lock file can't be written.
        """
        is_nested = self._lock.is_locked
        self._acquire()
        try:
            if not is_nested:
                with suppress(OSError):  # it only improves a message
                    self._about.write_bytes(_HOLDER.dump_json(Holder.current(operation)))
            yield
        finally:
            if not is_nested:
                with suppress(OSError):
                    self._about.unlink(missing_ok=True)
            self._lock.release()

    def _acquire(self) -> None:
        ends, wait_s = time.monotonic() + self._timeout_s, REPORT_AFTER_S
        while True:
            try:
                self._lock.acquire(timeout=max(0.0, min(wait_s, ends - time.monotonic())))
            except Timeout:
                holder = self._read_holder()
                if time.monotonic() >= ends:
                    raise self._error(
                        f"{self._what} is in use: {holder}", hint="wait until it ends, or stop it"
                    ) from None
                self._on_wait(f"waiting for {self._what}, in use: {holder}")
                wait_s = REPORT_EVERY_S
            else:
                return

    def _read_holder(self) -> str:
        with suppress(OSError, ValueError):
            return str(_HOLDER.validate_json(self._about.read_bytes()))
        return "another process"


def own_partial(path: Path) -> Path:
    """Return the path at which this thread writes a file or folder before it is renamed to ``path``.

    No other process uses it. Those that killed processes have left are deleted.
    """
    for old in path.parent.glob(".*.partial"):
        found = re.fullmatch(rf"\.{re.escape(path.name)}\.(\d{{1,9}})-\d+\.partial", old.name)
        if found and not psutil.pid_exists(int(found[1])):
            shutil.rmtree(old, ignore_errors=True)
            with suppress(OSError):
                old.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")


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
        lock.acquire(timeout=REPORT_AFTER_S if timeout_s < 0 else min(REPORT_AFTER_S, timeout_s))
    except Timeout:
        if 0 <= timeout_s <= REPORT_AFTER_S:
            raise
        _logger.warning("Waiting for %s, in use by %s (lock %s)", what, holder(lock), lock.lock_file)
        lock.acquire(timeout=timeout_s if timeout_s < 0 else timeout_s - REPORT_AFTER_S)


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
