"""Images ten a row, with their names or with what a model says of them: the article's 10x10 grids."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from cifarml.data.dataset import Dataset
from cifarml.errors import DataError, SettingsError
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
"""Inches a pixel of an image takes: 4 dots at 120 dpi, so that pixels stay square and crisp."""
GAP = 4
ROOM = (32 + GAP) * PIXEL - 0.04
"""Inches for the text above an image."""


def image_grid(dataset: Dataset, *, num_images: int = 100, seed: int = 0) -> Figure:
    """Show images of a data set, chosen at random, under the names of their classes.

    Args:
        dataset: Where to choose from.
        num_images: How many to show, 1 to 1000, ten a row; all if there are fewer.
        seed: The same seed chooses the same images.

    Returns:
        The figure.

    Raises:
        DataError: If the data set has no images.
        SettingsError: If ``num_images`` is not 1 to 1000.

    Example:
        >>> from cifarml import load_dataset
        >>> image_grid(load_dataset("drawn:200"), seed=1).savefig("images.png")  # doctest: +SKIP
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
    """Show predictions above their images, the wrong ones in red and with the true class.

    Args:
        dataset: The images that were asked, with their true labels.
        probabilities: float32, shape (N, classes): what the model says of each image.
        num_images: How many to show, 1 to 1000, ten a row; all if there are fewer.
        seed: The same seed chooses the same images.

    Returns:
        The figure.

    Raises:
        DataError: If the data set has no images, or the shapes don't fit.
        SettingsError: If ``num_images`` is not 1 to 1000.
    """
    expected = (len(dataset), len(dataset.class_names))
    if probabilities.shape != expected:
        raise DataError(f"probabilities must be of shape {expected}. Received: {probabilities.shape}")
    chosen = _choose(dataset, num_images, seed)
    predicted = probabilities.argmax(axis=1)
    right = predicted == dataset.labels
    names = drawable_names(dataset.class_names)
    titles = []
    for index in chosen.tolist():
        share = " " + percent(probabilities[index, predicted[index]])
        text = fit(names[predicted[index]], 9, ROOM - text_width(share, 9)) + share
        if not right[index]:
            text += "\nis " + fit(names[dataset.labels[index]], 9, ROOM - text_width("is ", 9))
        titles.append(text)
    heading = [
        f"{int(right[chosen].sum()):,} of {len(chosen):,} shown right ({percent(right[chosen].mean(), 1)})",
        f"{counted(len(dataset))} in all: {percent(right.mean(), 1)} right. Red: wrong, and what it is",
        dataset.origin,
    ]
    return _grid(dataset.images[chosen], titles, heading, wrong=~right[chosen])


def _choose(dataset: Dataset, num_images: int, seed: int) -> npt.NDArray[np.int64]:
    if not 1 <= num_images <= MAX_IMAGES:
        raise SettingsError(f"num_images must be 1 to {MAX_IMAGES}. Received: {num_images}")
    if not len(dataset):
        raise DataError(f"{dataset.origin}: there are no images to show")
    return np.random.default_rng(seed).permutation(len(dataset))[:num_images]


def _grid(
    images: npt.NDArray[np.uint8],
    titles: Sequence[str],
    heading: Sequence[str],
    *,
    wrong: npt.NDArray[np.bool_] | None,
) -> Figure:
    """Draw images as one mosaic (quick, where axes for each would be slow) and a text for each."""
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
