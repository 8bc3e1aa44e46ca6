"""Wait for a state that sends no event."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["wait_until"]


def wait_until(condition: Callable[[], object], *, every_s: float = 0.01) -> None:
    """Return as soon as the condition holds; one that never does ends with the timeout of pytest."""
    while not condition():
        time.sleep(every_s)
