"""Data set of decoded images: drop unreadable ones, then choose the test images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cifarml.data.dataset import BadImage, Dataset
from cifarml.data.layout import Layout
from cifarml.data.splitting.draw_split import draw_tenth, last_tenth_by_name
from cifarml.errors import DataError

_SHOWN = 5


def build_dataset(
    origin: str, layout: Layout, images: npt.NDArray[np.uint8], bad: Sequence[BadImage] = ()
) -> Dataset:
    """Build a data set of decoded images.

    Unreadable images are dropped before anything is counted: test images are chosen among the others, unless
    the source marks test images.

    Args:
        origin: Human-readable name of the source.
        layout: Names, labels and split of N images.
        images: uint8, shape (N, 32, 32, 3).
        bad: The unreadable images.

    Raises:
        DataError: If a class has fewer than two readable images, or no test image is readable.
    """
    names, labels, is_test, is_validation = layout[1:5]
    notes = [*layout.notes, *_case_notes(layout.class_names)]
    if bad:
        skipped = {image.name for image in bad}
        good = np.array([name not in skipped for name in names])
        notes.append(_describe_skipped(layout, good))
        names = tuple(name for name in names if name not in skipped)
        images, labels, is_test, is_validation = (
            array[good] for array in (images, labels, is_test, is_validation)
        )
        if layout.is_test.any() and not is_test.any():
            raise DataError("no test image is readable", "repair the images; see: cifarml data check SOURCE")
    _check_counts(layout, labels)
    if not is_test.any():
        if layout.by_number:
            is_test = last_tenth_by_name(labels, len(layout.class_names), names)
            notes.append("test set: the last tenth of each class by number")
        else:
            is_test = draw_tenth(images, labels, names)
            notes.append(
                "test set: a tenth of each class, drawn at random and the same in every run; copies and "
                "near-duplicates of a training image are not in it"
            )
    for array in (images, labels, is_test, is_validation):
        array.setflags(write=False)
    return Dataset(
        images,
        labels,
        layout.class_names,
        names,
        is_test,
        origin,
        tuple(bad),
        is_validation=is_validation,
        notes=tuple(notes),
    )


def _describe_skipped(layout: Layout, good: npt.NDArray[np.bool_]) -> str:
    """Describe how many images of each class are skipped."""
    counts = np.bincount(layout.labels, minlength=len(layout.class_names))
    skipped = np.bincount(layout.labels[~good], minlength=len(layout.class_names))
    shown = (
        f"{name} {left_out:,} of {count:,}"
        for name, left_out, count in zip(layout.class_names, skipped, counts, strict=True)
        if left_out
    )
    return f"skipped {np.count_nonzero(~good):,} unreadable images: {', '.join(shown)}"


def _check_counts(layout: Layout, labels: npt.NDArray[np.int64]) -> None:
    """Raise DataError if a class has fewer than two images."""
    counts = np.bincount(labels, minlength=len(layout.class_names))
    empty, single = (
        [name for name, count in zip(layout.class_names, counts, strict=True) if count == wanted]
        for wanted in (0, 1)
    )
    if empty:
        raise DataError(
            f"classes without readable images: {', '.join(map(repr, empty[:_SHOWN]))}",
            "repair the images of these classes; see: cifarml data check SOURCE",
        )
    if single:
        readable = "readable " if len(labels) < len(layout.labels) else ""
        raise DataError(
            f"classes with a single {readable}image: {', '.join(map(repr, single[:_SHOWN]))}; "
            "each class needs at least two, one for training and one for testing",
            "add images to these classes, or remove the classes",
        )


def _case_notes(class_names: Sequence[str]) -> list[str]:
    return [
        f"class names that differ only in case: {', '.join(map(repr, names))}"
        for names in same_but_for_case(class_names)
    ]


def same_but_for_case(class_names: Sequence[str]) -> list[list[str]]:
    """Return the groups of class names that differ only in case.

    Example:
        >>> same_but_for_case(["Cat", "cat", "dog"])
        [['Cat', 'cat']]
    """
    seen = Counter(name.casefold() for name in class_names)
    return [
        [name for name in class_names if name.casefold() == folded]
        for folded, count in seen.items()
        if count > 1
    ]
