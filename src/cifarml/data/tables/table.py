"""Labels from a table, and their conversion to a layout."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from cifarml.data.dataset import check_class_names
from cifarml.data.file_tree import FileTree
from cifarml.data.ignored import IgnoredFiles
from cifarml.data.layout import Layout, last_tenth, natural_key
from cifarml.errors import DataError

TRAIN, VALIDATION, TEST = "train", "validation", "test"

_WORDS: Final = {
    **dict.fromkeys(("train", "training", "trn", "tr"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval", "evaluation"), VALIDATION),
    **dict.fromkeys(("test", "testing", "tst", "te"), TEST),
}
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


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
    """Name, label and split of an image; the split is "" if it is not specified."""

    name: str
    label: str
    split: str = ""


def split_of_words(*names: str) -> str:
    """Return the split that the first of these names with one of its words denotes, or "".

    Example:
        >>> split_of_words("trainLabels.csv"), split_of_words("labels.csv", "x_test")
        ('train', 'test')
    """
    for name in names:
        for word in _WORD.findall(name):
            if split := _WORDS.get(word.lower()):
                return split
    return ""


def to_layout(rows: Sequence[Row], class_names: Sequence[str] = ()) -> Layout:
    """Convert rows to a layout.

    Without test images, the validation images are the test set or, if there are none, the last tenth of each
    class.

    Args:
        rows: The images.
        class_names: Classes in the order of the source, if it has one; those without images are left out.

    Raises:
        DataError: If there are fewer than two classes, or a class has a single image.
    """
    used = {row.label for row in rows}
    names = tuple(name for name in class_names if name in used) or tuple(sorted(used, key=natural_key))
    check_class_names(names)
    number = {name: position for position, name in enumerate(names)}
    labels = np.array([number[row.label] for row in rows], np.int64)
    counts = np.bincount(labels, minlength=len(names))
    if counts.min() < 2:
        single = [name for name, count in zip(names, counts, strict=True) if count < 2]
        raise DataError(
            f"classes with a single image: {', '.join(map(repr, single[:5]))}; each class needs at least two",
            hint="add images to these classes, or remove the classes",
        )
    splits = [row.split for row in rows]
    test = TEST if TEST in splits else VALIDATION
    is_test = np.array([split == test for split in splits], np.bool_)
    if not is_test.any():
        order = sorted(range(len(rows)), key=lambda i: natural_key(rows[i].name))
        is_test = last_tenth(labels, len(names), order)
    return Layout(names, tuple(row.name for row in rows), labels, is_test)
