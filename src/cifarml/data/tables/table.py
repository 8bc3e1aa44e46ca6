"""Labels from a table, and their conversion to a layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cifarml.data.dataset import check_class_names
from cifarml.data.file_tree import FileTree
from cifarml.data.ignored import IgnoredFiles
from cifarml.data.layout import Layout
from cifarml.data.layouts.flat_names import natural_key
from cifarml.data.layouts.split_names import Split, split_in


class Table(NamedTuple):
    """Images of a source with their labels.

    Attributes:
        tree: Where to read the images from.
        layout: Their names, labels and split.
        ignored: Entries of the table that are not used.
    """

    tree: FileTree
    layout: Layout
    ignored: tuple[IgnoredFiles, ...] = ()


class Row(NamedTuple):
    """Name, label and split of an image; the split is None if it is not specified."""

    name: str
    label: str
    split: Split | None = None


def split_named(*names: str) -> Split | None:
    """Return the split that the first of these names with one of its words denotes, or None.

    Example:
        >>> split_named("labels.csv", "trainLabels.csv")
        <Split.TRAIN: 'training'>
    """
    splits = (split_in(name)[0] for name in names)
    return next((split for split in splits if split not in {None, Split.UNLABELLED}), None)


def to_layout(rows: Sequence[Row], class_names: Sequence[str] = ()) -> Layout:
    """Convert rows to a layout; without test images, the validation images are the test set.

    Args:
        rows: The images.
        class_names: Classes in the order of the source, if it has one; those without images are dropped.

    Raises:
        DataError: If there are fewer than two classes.
    """
    used = {row.label for row in rows}
    names = tuple(name for name in class_names if name in used) or tuple(sorted(used, key=natural_key))
    check_class_names(names)
    number = {name: position for position, name in enumerate(names)}
    splits = [row.split for row in rows]
    test = Split.TEST if Split.TEST in splits else Split.VALIDATION
    return Layout(
        names,
        tuple(row.name for row in rows),
        np.array([number[row.label] for row in rows], np.int64),
        np.array([split is test for split in splits], np.bool_),
        np.array([split is Split.VALIDATION is not test for split in splits], np.bool_),
        notes=("validation images are the test set, since there are no test images",)
        if test is Split.VALIDATION and Split.VALIDATION in splits
        else (),
    )
