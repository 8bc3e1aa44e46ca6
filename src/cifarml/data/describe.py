"""Lines about a data set before training: its classes, its splits and its warnings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from cifarml.data.check import check_dataset
from cifarml.data.dataset import Dataset, DatasetSplits

COLUMNS: Final = 79
"""Maximum width of a line."""
_MAX_NAME: Final = 16


def describe_classes(dataset: Dataset, *, width: int = COLUMNS) -> str:
    """Return the classes and their numbers of images outside the test set, in one line.

    Example:
        >>> describe_classes(load_dataset("drawn:200"))
        '10 classes: airplane 18, automobile 18, bird 18, cat 18, ... (18 each)'
    """
    counts = (dataset.class_counts() - dataset.test.class_counts()).tolist()
    return list_counts(dict(zip(dataset.class_names, counts, strict=True)), width=width)


def list_counts(counts: Mapping[str, int], *, width: int = COLUMNS) -> str:
    """Return the line of :func:`describe_classes` for these numbers of images."""
    least, most = min(counts.values()), max(counts.values())
    each = f" ({least:,} each)" if least == most else f" ({least:,} to {most:,} each)"
    items = [f"{shorten(name)} {count:,}" for name, count in counts.items()]
    return list_items(f"{len(counts):,} classes: ", items, end=f", ...{each}", width=width)


def describe_splits(splits: DatasetSplits) -> str:
    """Return the source and the number of images for training, validation and test, in one line."""
    train, validation, test = map(len, splits)
    sizes = (
        f": {len(splits.train.class_names):,} classes; {train:,} training, {validation:,} validation, "
        f"{test:,} test images"
    )
    origin = splits.train.origin
    if len(origin + sizes) > COLUMNS:
        origin = PurePosixPath(origin).name or origin
    return shorten(origin, max(COLUMNS - len(sizes), _MAX_NAME)) + sizes


def count_classes(splits: DatasetSplits) -> list[dict[str, Any]]:
    """Return the number of images of each class in each split, as plain JSON values."""
    counts = {name: part.class_counts().tolist() for name, part in splits._asdict().items()}
    names = splits.train.class_names
    return [
        {"name": name, **{part: each[i] for part, each in counts.items()}} for i, name in enumerate(names)
    ]


def list_warnings(dataset: Dataset) -> list[str]:
    """Return the problems and warnings of `check_dataset`, without the images that were skipped."""
    found = check_dataset(dataclasses.replace(dataset, skipped=()))
    return [*found.problems, *found.warnings]


def list_items(start: str, items: Sequence[str], *, end: str, width: int = COLUMNS) -> str:
    """Return a line with all items, or with those that fit and the text ``end``; with one at least."""
    line = start + ", ".join(items)
    shown = len(items)
    while len(line) > width and shown > 1:
        shown -= 1
        line = start + ", ".join(items[:shown]) + end
    return line


def shorten(text: str, length: int = _MAX_NAME) -> str:
    """Shorten a text in the middle."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail].rstrip()}\N{HORIZONTAL ELLIPSIS}{text[len(text) - tail :].lstrip()}"
