"""Making a model as confident as it is right."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

_MOST: Final = 10.0
_HALVINGS: Final = 24
_LEAST_IMAGES: Final = 50
"""One number is fitted; on fewer images than these it would be mostly chance."""


def fit_temperature(probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Return what a model's logits should be divided by, so that its probabilities fit the images best.

    Temperature scaling: the cross-entropy on images that were not trained on is made least (Guo et al.,
    "On Calibration of Modern Neural Networks", ICML 2017, section 4.2). No label changes by it.

    Args:
        probabilities: The softmax of the logits, float32, shape (N, classes).
        labels: int64, shape (N,).

    Returns:
        The temperature, 0.1 to 10; 1, which changes nothing, where there are fewer than 50 images.
    """
    if len(labels) < _LEAST_IMAGES:
        return 1.0
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-12))
    right = logits[np.arange(len(labels)), labels].mean()
    coldest, hottest = 1 / _MOST, _MOST
    for _ in range(_HALVINGS):  # the loss is convex in 1 / temperature, so its slope has one root
        temperature = math.sqrt(coldest * hottest)
        shares = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
        expected = (shares * logits).sum(axis=1) / shares.sum(axis=1)
        if expected.mean() > right:
            coldest = temperature
        else:
            hottest = temperature
    return math.sqrt(coldest * hottest)


def scale_probabilities(
    probabilities: npt.NDArray[np.float32], temperature: float
) -> npt.NDArray[np.float32]:
    """Return what the probabilities are when the logits are divided by a temperature.

    Rows of float32 (N, classes) add up to 1 before and after; ``1 / temperature`` undoes it.
    """
    tiny = np.finfo(np.float32).tiny
    logits = np.log(np.maximum(probabilities.astype(np.float64), tiny)) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)
