"""Polling for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["wait_until"]


def wait_until(condition: Callable[[], object], *, every_s: float = 0.01) -> None:
    """Return when the condition holds; if it never does, pytest's timeout ends the test."""
    while not condition():
        time.sleep(every_s)
