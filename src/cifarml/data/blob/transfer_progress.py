"""Thread pool for concurrent transfers, and thread-safe progress reports."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Final, TypeVar

from cifarml.progress import OnProgress, Progress

THREADS: Final = 8

_I = TypeVar("_I")
_O = TypeVar("_O")


class TransferProgress:
    """Thread-safe count of transferred bytes and files."""

    def __init__(
        self, on_progress: OnProgress, task: str, total_bytes: int | None = None, num_files: int = 1
    ) -> None:
        self._on_progress, self._task = on_progress, task
        self._total_bytes, self._num_files = total_bytes, num_files
        self._done_bytes = self._done_files = 0
        self._lock = Lock()

    def add(self, num_bytes: int, num_files: int = 0) -> None:
        """Add bytes (negative if they were discarded) and finished files, and report the totals."""
        with self._lock:
            self._done_bytes += num_bytes
            self._done_files += num_files
            files = f"{self._done_files:,} of {self._num_files:,} files" if self._num_files > 1 else ""
            if num_bytes or files:
                self._report(files)

    def wait(self, wait_s: float, reason: str) -> None:
        """Report the wait before a retry."""
        with self._lock:
            text = f"waiting {wait_s:.0f} s: {reason}"
            self._report(text, line=text if wait_s >= 1 else "")

    def _report(self, detail: str, line: str = "") -> None:
        self._on_progress(
            Progress(self._task, self._done_bytes, self._total_bytes, unit="bytes", detail=detail, line=line)
        )


def map_in_threads(
    work: Callable[[_I], _O], items: Iterable[_I], *, ahead: int = 8 * THREADS
) -> Iterator[_O]:
    """Call a function with each item in a thread pool; yield the results in the order of the items.

    An error cancels the pending calls. At most ``ahead`` items and results are in memory.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        futures: deque[Future[_O]] = deque()
        try:
            for item in items:
                futures.append(pool.submit(work, item))
                if len(futures) >= ahead:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            for future in futures:
                future.cancel()
