"""Random subsets, balanced over the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from cifarml.errors import DataError

TEST_FRACTION: Final = 0.1
"""Share of test images in the article: numbers 181-200 of each 200."""

Indices = npt.NDArray[np.int64]


def draw_subset(
    labels: Indices,
    class_names: Sequence[str],
    splits: Sequence[npt.NDArray[np.bool_]],
    num_images: int,
    seed: int,
) -> Indices:
    """Draw the sorted indices of a subset of N images; see `Dataset.subset`.

    Args:
        labels: int64, shape (N,).
        class_names: Names of the classes.
        splits: Three masks, bool, shape (N,): training, test and validation images.
        num_images: Size of the subset.
        seed: Random seed.
    """
    num_classes = len(class_names)
    if num_images < 2 * num_classes:
        raise DataError(
            f"a subset needs 2 images per class, at least {2 * num_classes}. Received: {num_images}"
        )
    rng = np.random.default_rng(seed)
    shares = np.full(num_classes, num_images // num_classes)
    shares[rng.permutation(num_classes)[: num_images % num_classes]] += 1
    chosen: list[Indices] = []
    for label, share in enumerate(shares.tolist()):
        available = [np.flatnonzero((labels == label) & part) for part in splits]
        total = sum(map(len, available))
        if total < share:
            raise DataError(
                f"a balanced subset of {num_images:,} needs {share:,} images of "
                f"{class_names[label]!r}, but only {total:,} are available",
                hint="choose a smaller subset: --subset N",
            )
        sizes = _divide(share, *map(len, available))
        chosen += [rng.permutation(part)[:size] for part, size in zip(available, sizes, strict=True) if size]
    return np.sort(np.concatenate(chosen))


def _divide(share: int, num_train: int, num_test: int, num_validation: int) -> tuple[int, int, int]:
    """Divide the share of a class: a tenth for testing, as far as there are enough images of each split."""
    num_rest = num_train + num_validation
    tests = max(1, round(share * TEST_FRACTION))
    tests = min(max(tests, share - num_rest), num_test)
    rest = share - tests
    validation = round(rest * num_validation / max(1, num_rest))
    validation = max(min(validation, rest - 1), rest - num_train)
    return rest - validation, tests, validation
