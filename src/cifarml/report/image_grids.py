"""Grids of images with class names or predictions, ten per row, like the article's 10x10 grids."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from cifarml.data.dataset import Dataset
from cifarml.errors import DataError, SettingsError
from cifarml.evaluation.metrics import evaluate_probabilities
from cifarml.report.figure import (
    INK,
    LINE,
    MARGIN,
    ReportFigure,
    axes_at,
    counted,
    drawable_names,
    fit,
    percent,
    text_width,
    write,
    write_heading,
)

WRONG = "#C4161C"
COLUMNS = 10
MAX_IMAGES = 1000
PIXEL = 1 / 30
"""Size of an image pixel in inches: 4 dots at 120 dpi, so that pixels stay square and crisp."""
GAP = 4
"""Distance between images in image pixels."""
ROOM = (32 + GAP) * PIXEL - 0.04
"""Maximum width of the text above an image in inches."""


def image_grid(dataset: Dataset, *, num_images: int = 100, seed: int = 0) -> Figure:
    """Draw a grid of random images with their class names, ten per row.

    Args:
        dataset: The images to choose from.
        num_images: Number of images, 1 to 1000; all are shown if there are fewer.
        seed: Random seed; the same seed chooses the same images.

    Returns:
        The figure.

    Raises:
        DataError: If the data set has no images.
        SettingsError: If `num_images` is not 1 to 1000.

    Example:
        ```python
        dataset = cifarml.load_dataset("drawn:200")
        cifarml.image_grid(dataset, seed=1).savefig("images.png")
        ```
    """
    chosen = _choose(dataset, num_images, seed)
    names = [fit(name, 9, ROOM) for name in drawable_names(dataset.class_names)]
    count, total = len(chosen), len(dataset)
    shown = counted(total) if count == total else f"{count:,} of {counted(total)}"
    titles = [names[label] for label in dataset.labels[chosen].tolist()]
    heading = [f"{shown}, {len(names):,} classes", dataset.origin]
    return _grid(dataset.images[chosen], titles, heading, wrong=None)


def prediction_grid(
    dataset: Dataset, probabilities: npt.NDArray[np.float32], *, num_images: int = 100, seed: int = 0
) -> Figure:
    """Draw a grid of random images with their predictions, wrong ones in red with the true class.

    Args:
        dataset: The images, with their true labels.
        probabilities: float32, shape (N, classes), the predicted probabilities.
        num_images: Number of images, 1 to 1000; all are shown if there are fewer.
        seed: Random seed; the same seed chooses the same images.

    Returns:
        The figure.

    Raises:
        DataError: If the data set has no images, or `probabilities` has another shape.
        SettingsError: If `num_images` is not 1 to 1000.

    Example:
        ```python
        result = cifarml.evaluate_model("runs/first", cifarml.load_dataset("drawn:200").test)
        cifarml.prediction_grid(result.dataset, result.probabilities).savefig("predictions.png")
        ```
    """
    expected = (len(dataset), len(dataset.class_names))
    if probabilities.shape != expected:
        raise DataError(f"probabilities must be of shape {expected}. Received: {probabilities.shape}")
    chosen = _choose(dataset, num_images, seed)
    predicted = probabilities.argmax(axis=1)
    correct = predicted == dataset.labels
    names = drawable_names(dataset.class_names)
    result = evaluate_probabilities(probabilities, dataset.labels, dataset.class_names).by_class
    balanced = f" (balanced {percent(result.balanced_accuracy, 1)})" if result.is_unbalanced else ""
    titles = []
    for index in chosen.tolist():
        share = " " + percent(probabilities[index, predicted[index]])
        text = fit(names[predicted[index]], 9, ROOM - text_width(share, 9)) + share
        if not correct[index]:
            text += "\ntrue: " + fit(names[dataset.labels[index]], 9, ROOM - text_width("true: ", 9))
        titles.append(text)
    heading = [
        f"{correct[chosen].sum():,} of {counted(len(chosen))} correct ({percent(correct[chosen].mean(), 1)})",
        f"accuracy on all {counted(len(dataset))}: {percent(correct.mean(), 1)}{balanced}; wrong ones in red",
        dataset.origin,
    ]
    return _grid(dataset.images[chosen], titles, heading, wrong=~correct[chosen])


def _choose(dataset: Dataset, num_images: int, seed: int) -> npt.NDArray[np.int64]:
    if not 1 <= num_images <= MAX_IMAGES:
        raise SettingsError(f"num_images must be 1 to {MAX_IMAGES}. Received: {num_images}")
    if not len(dataset):
        raise DataError(f"{dataset.origin} has no images to show")
    return np.random.default_rng(seed).permutation(len(dataset))[:num_images]


def _grid(
    images: npt.NDArray[np.uint8],
    titles: Sequence[str],
    heading: Sequence[str],
    *,
    wrong: npt.NDArray[np.bool_] | None,
) -> Figure:
    """Draw all images as one mosaic, which is much faster than axes for each, with a title for each."""
    side, line = images.shape[1], 5
    columns = min(COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    head = 4 + (line if wrong is None else 2 * line)
    mosaic = np.full((rows * (head + side) + 2, columns * (side + GAP), 3), 255, np.uint8)
    tall, wide = mosaic.shape[0] * PIXEL, mosaic.shape[1] * PIXEL
    width = max(wide, 6.0) + 2 * MARGIN - GAP * PIXEL
    figure = ReportFigure(width, tall + LINE * len(heading) + 2 * MARGIN)
    axes = axes_at(figure, MARGIN - GAP / 2 * PIXEL, MARGIN, wide, tall)
    axes.set_axis_off()
    frame = np.round(255 * np.array(to_rgb(WRONG))).astype(np.uint8)
    for index, (image, title) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(index, columns)
        y, x = row * (head + side) + head, column * (side + GAP) + GAP // 2
        red = wrong is not None and bool(wrong[index])
        if red:
            mosaic[y - 1 : y + side + 1, x - 1 : x + side + 1] = frame
        mosaic[y : y + side, x : x + side] = image
        for above, text in enumerate(reversed(title.split("\n"))):
            place = (x + side / 2 - 0.5, y - 2.8 - line * above)
            write(axes, *place, text, color=WRONG if red else INK, ha="center", va="baseline")
    axes.imshow(mosaic, interpolation="nearest", aspect="auto")
    write_heading(figure, heading)
    return figure
