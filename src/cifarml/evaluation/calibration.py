"""Confidence calibration by temperature scaling."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

_MOST: Final = 10.0
_HALVINGS: Final = 24
_LEAST_IMAGES: Final = 50
"""With fewer images the fitted temperature would be mostly noise."""


def fit_temperature(probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Fit the softmax temperature that minimises the cross-entropy on held-out images.

    Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2)
    divides the logits by the temperature. It does not change any predicted label.

    Args:
        probabilities: Softmax of the logits, float32, shape (N, classes).
        labels: int64, shape (N,).

    Returns:
        The temperature, 0.1 to 10; 1, which has no effect, if there are fewer than 50 images.
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
    """Return the probabilities after dividing the logits by a temperature.

    Arrays are float32, shape (N, classes), with rows that sum to 1; ``1 / temperature`` reverts the scaling.
    """
    tiny = np.finfo(np.float32).tiny
    logits = np.log(np.maximum(probabilities.astype(np.float64), tiny)) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)
