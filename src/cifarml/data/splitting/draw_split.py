"""Choice of test images in a source that does not mark any."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cifarml.data.layouts.flat_names import natural_key
from cifarml.data.splitting.copies import group_copies, pixel_digest
from cifarml.data.splitting.subset import TEST_FRACTION


def last_tenth(
    labels: npt.NDArray[np.int64], num_classes: int, order: Sequence[int] | None = None
) -> npt.NDArray[np.bool_]:
    """Mark the last tenth of each class (at least one image) as test images.

    This generalizes the article's split: of each 200 images, 1-180 are for training and 181-200 for testing.

    Args:
        labels: int64, shape (N,).
        num_classes: Number of classes.
        order: The N positions in sorted order; 0 to N-1 if omitted.

    Returns:
        bool, shape (N,), True for test images.
    """
    ordered = np.arange(len(labels)) if order is None else np.asarray(order)
    is_test = np.zeros(len(labels), np.bool_)
    for label in range(num_classes):
        members = ordered[labels[ordered] == label]
        is_test[members[len(members) - _tenth(len(members)) :]] = True
    return is_test


def last_tenth_by_name(
    labels: npt.NDArray[np.int64], num_classes: int, names: Sequence[str]
) -> npt.NDArray[np.bool_]:
    """Mark the last tenth of each class in natural order of the names as test images."""
    return last_tenth(labels, num_classes, sorted(range(len(names)), key=lambda i: natural_key(names[i])))


def draw_tenth(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], names: Sequence[str]
) -> npt.NDArray[np.bool_]:
    """Draw a tenth of each class (at least one image) as test images, and keep copies on one side.

    The groups of `group_copies` are drawn in the order of a hash of their pixels, so that the choice does not
    depend on the names, the order of the files or any seed: every run on these images has the same test set.
    Groups with images of several classes stay in training. A class that consists of copies of one image
    gives its last tenth.

    Args:
        images: uint8, shape (N, 32, 32, 3).
        labels: int64, shape (N,).
        names: N file names.

    Returns:
        bool, shape (N,), True for test images.
    """
    members: defaultdict[int, list[int]] = defaultdict(list)
    for position, group in enumerate(group_copies(images, labels, names).tolist()):
        members[group].append(position)
    drawn: defaultdict[int, list[list[int]]] = defaultdict(list)
    for group in sorted(members.values(), key=lambda group: min(pixel_digest(images[i]) for i in group)):
        if len(set(labels[group].tolist())) == 1:
            drawn[int(labels[group[0]])].append(group)
    is_test = np.zeros(len(labels), np.bool_)
    for label, count in enumerate(np.bincount(labels).tolist()):
        groups, target, num_drawn = drawn[label], _tenth(count), 0
        for group in groups:
            if num_drawn + len(group) <= target:
                is_test[group] = True
                num_drawn += len(group)
        if not num_drawn and (smallest := min(groups, key=len, default=None)) and len(smallest) < count:
            is_test[smallest] = True
        elif not num_drawn:
            of_class = np.flatnonzero(labels == label)
            last = last_tenth_by_name(labels[of_class] * 0, 1, [names[i] for i in of_class.tolist()])
            is_test[of_class[last]] = True
    return is_test


def _tenth(count: int) -> int:
    return max(1, round(count * TEST_FRACTION))
