"""Sample data sets and predicted probabilities for plots and reports."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cifarml.data.dataset import Dataset

__all__ = ["make_dataset", "make_names", "make_probabilities"]


def make_dataset(count: int, names: tuple[str, ...], origin: str = "made for a test") -> Dataset:
    rng = np.random.default_rng(count)
    return Dataset(
        images=rng.integers(0, 256, (count, 32, 32, 3), np.uint8),
        labels=(np.arange(count) % len(names)).astype(np.int64),
        class_names=names,
        sources=tuple(str(i) for i in range(count)),
        is_test=np.zeros(count, np.bool_),
        origin=origin,
    )


def make_names(count: int) -> tuple[str, ...]:
    return tuple(f"thing {i}" for i in range(count))


def make_probabilities(dataset: Dataset, wrong: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Predict the true class, or the next one at the indices in `wrong`, with 80 % confidence."""
    count, classes = len(dataset), len(dataset.class_names)
    predicted = dataset.labels.copy()
    predicted[wrong] = (predicted[wrong] + 1) % classes
    probabilities = np.full((count, classes), 0.2 / (classes - 1), np.float32)
    probabilities[np.arange(count), predicted] = 0.8
    return probabilities
