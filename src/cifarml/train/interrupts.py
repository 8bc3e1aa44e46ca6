"""Context managers that delay or record Ctrl-C.

A KeyboardInterrupt inside a database transaction leaves the file locked until garbage collection, and one
inside a finaliser (TensorFlow has many) is dropped by Python.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts_delayed() -> Iterator[None]:
    """Delay Ctrl-C until the block has ended."""
    received: list[tuple[Any, ...]] = []
    before = _handle_with(lambda *signalled: received.append(signalled))
    try:
        yield
    finally:
        _restore_handler(before)
        if received and callable(before):
            before(*received[0])


@contextmanager
def interrupts_noted() -> Iterator[list[object]]:
    """Yield a list that records each Ctrl-C, even if the KeyboardInterrupt is dropped."""
    noted: list[object] = []

    def note(*signalled: Any) -> None:
        noted.append(signalled)
        if callable(before):
            before(*signalled)

    before = _handle_with(note)
    try:
        yield noted
    finally:
        _restore_handler(before)


def _handle_with(handler: Any) -> Any:
    """Set the handler of Ctrl-C and return the previous one; None outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGINT, handler)


def _restore_handler(before: Any) -> None:
    if before is not None:
        signal.signal(signal.SIGINT, before)
