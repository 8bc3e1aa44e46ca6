"""Learning curves and confusion matrix as matplotlib figures.

Each function returns a `matplotlib.figure.Figure` created without pyplot, so no global state changes. A
notebook displays the figure, and `figure.savefig("curves.png", dpi=120)` saves it. Long class names are
shortened; characters without a glyph are drawn as hollow boxes, and the class number is added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cifarml.data.describe import list_items
from cifarml.errors import DataError, SettingsError
from cifarml.evaluation.metrics import Evaluation
from cifarml.paths import expand_home
from cifarml.report.figure import (
    FONTS,
    INK,
    LINE,
    MARGIN,
    QUIET,
    TRAIN,
    ReportFigure,
    axes_at,
    counted,
    drawable_names,
    fit,
    percent,
    style_axes,
    text_width,
    write,
    write_heading,
)

VALIDATION = "#D55E00"
SHARES = "Blues"

MAX_CELL_TEXT = 12
MAX_TICK_LABELS = 100


def learning_curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Draw accuracy and loss by epoch, with the best validation epoch of each marked.

    Args:
        history: `loss` and `accuracy` and, optionally, `val_loss` and `val_accuracy`, with a value per
            epoch. Values that are not finite are drawn as gaps.

    Returns:
        The figure.

    Raises:
        DataError: If there are no epochs.

    Example:
        ```python
        history = cifarml.Run.open("runs/first").read_json("history.json")
        cifarml.learning_curves(history).savefig("learning_curves.png")
        ```
    """
    epochs = _count_epochs(history)
    figure = ReportFigure(12.4, 4.7)
    write_heading(figure, [f"Accuracy and loss over {epochs:,} epoch{'s' if epochs > 1 else ''}"])
    for left, key in ((0.75, "accuracy"), (7.0, "loss")):
        _panel(figure, left, 4.7 - 1.55, history, epochs, key)
    return figure


def learning_curve(history: Mapping[str, Sequence[float]], key: str) -> Figure:
    """Draw one of the two panels of `learning_curves`, `accuracy` or `loss`, without a heading."""
    epochs = _count_epochs(history)
    figure = ReportFigure(6.15, 3.75)
    _panel(figure, 0.6, 2.8, history, epochs, key)
    return figure


def confusion_matrix(evaluation: Evaluation) -> Figure:
    """Draw a confusion matrix, with a row for each true class and a column for each predicted class.

    The colour of a cell is its share of the row. With up to 12 classes, cells contain percentage and count,
    and recall and precision are in the margins. With more than 100 classes, not all are labelled.

    Args:
        evaluation: The metrics of a model.

    Returns:
        The figure.

    Example:
        ```python
        result = cifarml.evaluate_model("runs/first", cifarml.load_dataset("drawn:200").test)
        cifarml.confusion_matrix(result.evaluation).savefig("confusion_matrix.png")
        ```
    """
    confusion = evaluation.confusion
    count = len(confusion)
    small = count <= MAX_CELL_TEXT
    side = max(2.4, 0.8 * count) if small else min(11.0, max(8.0, 0.14 * count))
    size = 9.0 if small else min(9.0, max(5.5, 60 * side / min(count, MAX_TICK_LABELS)))
    step = math.ceil(count / MAX_TICK_LABELS)
    names = drawable_names(metrics.name for metrics in evaluation.classes)
    names = [fit(name, size, 1.6) for name in names[::step]]
    longest = max(text_width(name, size) for name in names)
    flat = longest < side / count - 0.06
    heading = _accuracy_heading(evaluation)
    more = LINE * (len(heading) - 1)
    left, top = longest + 0.65, 1.05 + more + (0.15 if flat else longest if not small else 0.72 * longest)
    bottom, right = (0.55, 0.95) if small else (MARGIN, 1.3)
    right = max(right, 4.6 - left - side)
    figure = ReportFigure(left + side + right, top + side + bottom)
    axes = axes_at(figure, left, bottom, side, side)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(
        shares,
        cmap=mpl.colormaps[SHARES],
        norm=PowerNorm(0.6, vmin=0, vmax=1),
        aspect="auto",
        interpolation="nearest" if count <= MAX_TICK_LABELS else "antialiased",
    )
    axes.set_axis_off()
    write_heading(figure, heading)
    inch = count / side
    angle = 0.0 if flat else 45.0 if small else 90.0
    for position, name in zip(range(0, count, step), names, strict=True):
        write(axes, -0.5 - 0.07 * inch, position, name, size=size, ha="right", va="center")
        x, ha = (position - 0.1, "left") if angle == 45.0 else (position, "center")
        mode = "anchor" if angle == 45.0 else "default"
        write(axes, x, -0.5 - 0.07 * inch, name, size=size, ha=ha, va="bottom", rotation=angle,
               rotation_mode=mode)  # fmt: skip
    middle, high = (count - 1) / 2, bottom + side + (top - 0.65 - more)
    shape = figure.get_size_inches()
    write(figure, left / shape[0], high / shape[1], "predicted class →", color=QUIET, va="center")
    write(axes, -0.5 - (left - 0.22) * inch, middle, "← true class", color=QUIET, rotation=90, ha="center",
           va="center")  # fmt: skip
    if small:
        _cell_texts(axes, confusion, shares)
        _margins(axes, evaluation, inch)
    else:
        bar = figure.colorbar(image, cax=axes_at(figure, left + side + 0.2, bottom, 0.16, min(3.0, side)))
        bar.set_ticks([0, 0.05, 0.2, 0.5, 1], labels=["0 %", "5 %", "20 %", "50 %", "100 %"])
        bar.ax.tick_params(colors=QUIET, labelcolor=INK, labelsize=9, labelfontfamily=FONTS[0])
        bar.outline.set_visible(False)
        write(bar.ax, 0, 1.06, "share of\nthe row", transform=bar.ax.transAxes, color=QUIET, va="bottom")
    return figure


def _accuracy_heading(evaluation: Evaluation) -> list[str]:
    """Return the accuracy with its interval and, if classes are unbalanced, what it would hide."""
    result = evaluation.by_class
    low, high = result.interval
    lines = [
        f"Accuracy {percent(evaluation.accuracy, 1)} on {counted(evaluation.num_images)}",
        f"95 % interval {percent(low, 1)} to {percent(high, 1)}",
    ]
    if result.is_unbalanced:
        balanced, baseline = result.balanced_accuracy, result.majority_baseline
        lines.append(f"balanced accuracy {percent(balanced, 1)}, majority baseline {percent(baseline, 1)}")
    if missed := result.never_predicted:
        lines.append(list_items("never predicted: ", missed, end=f", ... ({len(missed):,})", width=50))
    return lines


def save_figure(path: Path, figure: Figure) -> Path:
    """Save a figure as a PNG file, creating its folder if needed.

    Returns:
        The path of the file, with `.png` appended if it has another suffix.

    Raises:
        SettingsError: If the file can't be written.
    """
    path = expand_home(path)
    if path.suffix.lower() != ".png":
        path = path.with_name(f"{path.name}.png")
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(partial, dpi=120, format="png")
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise SettingsError(f"can't write {path}: {error.strerror or error}") from error
    return path


def _cell_texts(axes: Axes, confusion: npt.NDArray[np.int64], shares: npt.NDArray[np.float64]) -> None:
    for row, column in np.argwhere(confusion > 0).tolist():
        share = shares[row, column]
        color = "white" if share > 0.45 else INK
        text = percent(share) if share >= 0.01 else "< 1 %"
        write(axes, column, row - 0.1, text, size=10, color=color, ha="center", va="center")
        write(axes, column, row + 0.24, f"{confusion[row, column]:,}", size=7, color=color, ha="center",
               va="center")  # fmt: skip


def _margins(axes: Axes, evaluation: Evaluation, inch: float) -> None:
    count = len(evaluation.classes)
    edge = count - 0.5 + 0.3 * inch
    num_true, num_predicted = evaluation.confusion.sum(axis=1), evaluation.confusion.sum(axis=0)
    for index, metrics in enumerate(evaluation.classes):
        recall = percent(metrics.recall) if num_true[index] else "–"
        precision = percent(metrics.precision) if num_predicted[index] else "–"
        write(axes, edge + 0.1 * inch, index, recall, ha="center", va="center")
        write(axes, index, edge, precision, ha="center", va="center")
    write(axes, edge + 0.1 * inch, -0.5 - 0.07 * inch, "recall", color=QUIET, ha="center", va="bottom")
    write(axes, -0.5 - 0.07 * inch, edge, "precision", color=QUIET, ha="right", va="center")


def _count_epochs(history: Mapping[str, Sequence[float]]) -> int:
    epochs = max((len(history.get(key, ())) for key in ("loss", "accuracy")), default=0)
    if not epochs:
        raise DataError("learning curves require at least one epoch. Received: none")
    return epochs


def _panel(
    figure: Figure, left: float, height: float, history: Mapping[str, Sequence[float]], epochs: int, key: str
) -> None:
    """Draw accuracy or loss by epoch, for training and validation; positions are in inches."""
    title, unit = ("accuracy (percent)", 100.0) if key == "accuracy" else ("loss", 1.0)
    axes = axes_at(figure, left, 0.65, 4.55, height)
    write(axes, 0.0, 1.03, title, transform=axes.transAxes, size=10.5)
    both = [np.asarray(history.get(prefix + key, ()), np.float64) * unit for prefix in ("", "val_")]
    both = [np.where(np.isfinite(values), values, np.nan) for values in both]
    marker = "o" if epochs <= 40 else "None"
    ends = []
    for values, name, color in zip(both, ("train", "validation"), (TRAIN, VALIDATION), strict=True):
        finite = np.flatnonzero(np.isfinite(values))
        if len(finite):
            epoch = np.arange(1, len(values) + 1)
            axes.plot(epoch, values, color=color, linewidth=1.8, marker=marker, markersize=3.5)
            ends.append((float(values[finite[-1]]), name, color))
    _tidy(axes, epochs, key)
    validation = both[1]
    if np.isfinite(validation).any():
        best = int(np.nanargmax(validation) if key == "accuracy" else np.nanargmin(validation))
        value = validation[best]
        text = f"{value:.1f} %" if key == "accuracy" else f"{value:.3g}"
        axes.axvline(best + 1, color=VALIDATION, linewidth=0.9, linestyle=(0, (2, 3)), zorder=1)
        axes.plot([best + 1], [value], "o", markersize=10, markerfacecolor="none", color=VALIDATION)
        write(axes, 1.0, 1.03, f"best validation: {text} at epoch {best + 1:,}", color=VALIDATION,
               transform=axes.transAxes, ha="right")  # fmt: skip
    low, high = axes.get_ylim()
    spots = [(value - low) / (high - low) for value, _, _ in ends]
    if len(spots) == 2 and abs(spots[0] - spots[1]) < 0.07:
        middle, sign = sum(spots) / 2, 1 if spots[0] >= spots[1] else -1
        spots = [middle + 0.035 * sign, middle - 0.035 * sign]
    for spot, (_, name, color) in zip(spots, ends, strict=True):
        write(axes, 1.015, spot, name, transform=axes.transAxes, color=color, size=10, va="center")


def _tidy(axes: Axes, epochs: int, key: str) -> None:
    space = 0.02 * (epochs - 1) or 0.5
    low, high = axes.get_ylim()
    spare = max(0.0, (10.0 if key == "accuracy" else 0.2) - (high - low)) / 2
    low, high = max(low - spare, 0.0), high + spare
    axes.set_xlim(1 - space, epochs + space)
    axes.set_ylim(low, min(high, 101.0) if key == "accuracy" else high)
    style_axes(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=8, steps=[1, 2, 5, 10]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    write(axes, 0.5, -0.125, "epoch", transform=axes.transAxes, color=QUIET, ha="center", va="center")
