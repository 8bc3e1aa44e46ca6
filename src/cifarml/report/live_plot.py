"""Live learning curves in a notebook during training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cifarml.errors import SettingsError
from cifarml.progress import OnProgress, Progress, ignore_progress
from cifarml.report.plots import learning_curves

_SHARE: Final = 0.05
"""Maximum share of time spent on drawing; if epochs are short, some are drawn later with the next one."""


def live_plot(on_progress: OnProgress = ignore_progress) -> OnProgress:
    """Create a progress callback that plots learning curves in a notebook, updated after each epoch.

    Args:
        on_progress: Another callback that also receives all progress, such as that of
            `cifarml.show_progress`.

    Returns:
        A function to pass as `on_progress` to `cifarml.train_model`.

    Raises:
        SettingsError: If not called in a notebook.

    Example:
        ```python
        run = cifarml.train_model(config, dataset, "runs/first", on_progress=cifarml.live_plot())
        ```
    """
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        shell = None
    else:
        shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        raise SettingsError(
            "live_plot requires a notebook",
            hint="outside notebooks: with cifarml.show_progress() as on_progress: ...",
        )
    return _LivePlot(on_progress)


class _LivePlot:
    """Progress callback that draws the training history."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._waiting: Mapping[str, Sequence[float]] | None = None
        self._shown: Any = None
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        self._on_progress(progress)
        if progress.history:
            self._waiting = progress.history
        finished = progress.task != "training"
        if self._waiting and (finished or time.monotonic() >= self._next):
            started = time.monotonic()
            self._draw(self._waiting)
            self._waiting = None
            self._next = time.monotonic() + (time.monotonic() - started) / _SHARE

    def _draw(self, history: Mapping[str, Sequence[float]]) -> None:
        from IPython.display import display

        figure = learning_curves(history)
        if self._shown is None:
            self._shown = display(figure, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._shown.update(figure)
