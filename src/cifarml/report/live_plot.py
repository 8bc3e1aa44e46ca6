"""The learning curves while a training runs, in a notebook."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cifarml.errors import SettingsError
from cifarml.progress import OnProgress, Progress, ignore_progress
from cifarml.report.plots import learning_curves

_SHARE: Final = 0.05
"""Of the time at most so much goes into drawing: where epochs are short, some wait for the next one."""


def live_plot(on_progress: OnProgress = ignore_progress) -> OnProgress:
    """Show the learning curves below the cell of a notebook, and draw them anew as epochs end.

    Args:
        on_progress: Is told everything, too; for example the bar of :func:`cifarml.show_progress`.

    Returns:
        A function to pass as ``on_progress`` to :func:`cifarml.train_model`.

    Raises:
        SettingsError: If this is no notebook.

    Example:
        >>> import cifarml
        >>> run = cifarml.train_model(
        ...     config, dataset, "runs/first", on_progress=cifarml.live_plot()
        ... )  # doctest: +SKIP
    """
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        shell = None
    else:
        shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        raise SettingsError(
            "a live plot is drawn in a notebook, and this is none",
            hint="elsewhere: with cifarml.show_progress() as on_progress: ...",
        )
    return _LivePlot(on_progress)


class _LivePlot:
    """Draws the history that comes with the end of an epoch."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._waiting: Mapping[str, Sequence[float]] | None = None
        self._shown: Any = None
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        self._on_progress(progress)
        if progress.history:
            self._waiting = progress.history
        ended = progress.task != "training"
        if self._waiting and (ended or time.monotonic() >= self._next):
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
