"""Ctrl-C where it would do harm, or get lost.

A KeyboardInterrupt inside a database transaction leaves the file locked until something collects the garbage,
and one inside a finaliser (TensorFlow has many) is dropped by Python.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["interrupts_delayed", "interrupts_noted"]


@contextmanager
def interrupts_delayed() -> Iterator[None]:
    """Let Ctrl-C wait until the block has ended."""
    received: list[tuple[Any, ...]] = []
    before = _handle_with(lambda *signalled: received.append(signalled))
    try:
        yield
    finally:
        _put_back(before)
        if received and callable(before):
            before(*received[0])


@contextmanager
def interrupts_noted() -> Iterator[list[object]]:
    """Give a list that fills when Ctrl-C is pressed, whatever becomes of the KeyboardInterrupt."""
    noted: list[object] = []

    def note(*signalled: Any) -> None:
        noted.append(signalled)
        if callable(before):
            before(*signalled)

    before = _handle_with(note)
    try:
        yield noted
    finally:
        _put_back(before)


def _handle_with(handler: Any) -> Any:
    """Set the handler of Ctrl-C and return the one before; None where it isn't ours to set."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGINT, handler)


def _put_back(before: Any) -> None:
    if before is not None:
        signal.signal(signal.SIGINT, before)
