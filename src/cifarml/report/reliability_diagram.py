"""Reliability diagram of a model's calibration."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifarml.errors import DataError
from cifarml.evaluation.metrics import Reliability
from cifarml.report.figure import INK, QUIET, TRAIN, ReportFigure, axes_at, percent, style_axes, write

_SIDE = 2.5
_LOW = 0.55
"""Side of a panel and height of the histogram below it, in inches."""
_OVERCONFIDENT, _UNDERCONFIDENT = "#E8A87C", "#8FC1E3"
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def reliability_diagram(panels: Mapping[str, Reliability]) -> Figure:
    """Draw a reliability diagram: accuracy by confidence, with a histogram of the confidence below.

    A perfectly calibrated model has all bars ending on the diagonal. The gap between confidence and accuracy
    is orange if the model is overconfident and light blue if it is underconfident (Guo et al., "On
    Calibration of Modern Neural Networks", ICML 2017, figure 1).

    Args:
        panels: Reliability data by panel title, drawn side by side; from
            `cifarml.evaluation.metrics.measure_reliability`.

    Returns:
        The figure.

    Raises:
        DataError: If `panels` is empty.

    Example:
        ```python
        from cifarml.evaluation.metrics import measure_reliability

        result = cifarml.evaluate_model("runs/first", cifarml.load_dataset("drawn:200").test)
        panels = {"test set": measure_reliability(result.probabilities, result.dataset.labels)}
        cifarml.reliability_diagram(panels).savefig("reliability.png")
        ```
    """
    if not panels:
        raise DataError("a reliability diagram requires at least one panel. Received: none")
    step = _SIDE + 0.85
    figure = ReportFigure(0.75 + step * len(panels) - 0.55, _SIDE + _LOW + 1.35)
    for index, (title, reliability) in enumerate(panels.items()):
        left = 0.75 + step * index
        upper = axes_at(figure, left, _LOW + 0.75, _SIDE, _SIDE)
        lower = axes_at(figure, left, 0.6, _SIDE, _LOW)
        _draw(upper, lower, reliability)
        error = f"expected calibration error {percent(reliability.calibration_error, 1)}"
        write(upper, 0, 1.11, title, transform=upper.transAxes, size=10.5, weight="bold")
        write(upper, 0, 1.03, error, transform=upper.transAxes, color=QUIET)
        if not index:
            write(upper, -0.235, 0.5, "accuracy", transform=upper.transAxes, color=QUIET,
                  rotation=90, ha="center", va="center")  # fmt: skip
    return figure


def _draw(upper: Axes, lower: Axes, reliability: Reliability) -> None:
    bins = len(reliability.num_images)
    middle, width = (np.arange(bins) + 0.5) / bins, 0.9 / bins
    some = reliability.num_images > 0
    accuracy, confidence = reliability.accuracy[some], reliability.confidence[some]
    upper.bar(middle[some], np.minimum(confidence, accuracy), width, color=TRAIN)
    gap = [_OVERCONFIDENT if over else _UNDERCONFIDENT for over in confidence > accuracy]
    upper.bar(middle[some], np.abs(confidence - accuracy), width, np.minimum(confidence, accuracy), color=gap)
    upper.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle=(0, (3, 3)))
    lower.bar(middle, reliability.num_images / reliability.num_images.sum(), width, color=QUIET)
    for axes in (upper, lower):
        style_axes(axes, grid=axes is upper)
        axes.set_xlim(0, 1)
        axes.set_xticks(_TICKS, labels=[])
    upper.set_ylim(0, 1)
    upper.set_yticks(_TICKS, labels=[])
    lower.set_yticks([])
    for tick in _TICKS:
        write(upper, -0.02, tick, percent(tick), color=QUIET, size=8, ha="right", va="center")
        write(lower, tick, -0.12, percent(tick), color=QUIET, size=8, ha="center", va="top",
              transform=lower.get_xaxis_transform())  # fmt: skip
    write(lower, 0.5, -0.62, "confidence (grey: share of images)", transform=lower.transAxes,
          color=QUIET, ha="center", va="center")  # fmt: skip
