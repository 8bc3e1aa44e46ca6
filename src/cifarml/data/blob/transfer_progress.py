"""How far transfers are that many threads work on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Lock
from typing import TypeVar

from cifarml.data.blob.http import CONNECTIONS
from cifarml.progress import OnProgress, Progress

__all__ = ["Tally", "in_threads"]

_I = TypeVar("_I")
_O = TypeVar("_O")


class Tally:
    """Counts bytes and files, and tells how far it is.

    Args:
        on_progress: Told after each change.
        task: What is being done.
        total_bytes: How much there is in all; None while nobody knows.
        num_files: How many files there are in all.
    """

    def __init__(
        self, on_progress: OnProgress, task: str, total_bytes: int | None = None, num_files: int = 1
    ) -> None:
        self.total_bytes = total_bytes
        self._on_progress, self._task, self._num_files = on_progress, task, num_files
        self._done_bytes = self._done_files = 0
        self._lock = Lock()

    def add(self, num_bytes: int, num_files: int = 0) -> None:
        """Count bytes (negative: they were of no use) and files that are done."""
        with self._lock:
            self._done_bytes += num_bytes
            self._done_files += num_files
            files = f"{self._done_files:,} of {self._num_files:,} files" if self._num_files > 1 else ""
            if num_bytes or files:
                self._tell(files)

    def wait(self, wait_s: float, reason: str) -> None:
        """Tell that a request waits before it is tried again."""
        with self._lock:
            text = f"waiting {wait_s:.0f} s: {reason}"
            self._tell(text, line=text if wait_s >= 1 else "")

    def _tell(self, detail: str, line: str = "") -> None:
        self._on_progress(
            Progress(self._task, self._done_bytes, self.total_bytes, unit="bytes", detail=detail, line=line)
        )


def in_threads(work: Callable[[_I], _O], items: Iterable[_I]) -> list[_O]:
    """Do something to each item, several at a time; the first error ends it, and is raised."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            for future in futures:
                future.cancel()
        return [future.result() for future in futures if not future.cancelled()]
