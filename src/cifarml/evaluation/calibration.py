"""Making a model as confident as it is right."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

__all__ = ["fit_temperature", "scale_probabilities"]

_MOST: Final = 10.0
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
    right = logits[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        most = scaled.max(axis=1)
        total = np.log(np.exp(scaled - most[:, None]).sum(axis=1)) + most
        return float((total - right / np.exp(log_temperature)).mean())

    found = minimize_scalar(loss, bounds=(-np.log(_MOST), np.log(_MOST)), method="bounded")
    return float(np.exp(found.x))


def scale_probabilities(
    probabilities: npt.NDArray[np.float32], temperature: float
) -> npt.NDArray[np.float32]:
    """Return what the probabilities are when the logits are divided by a temperature.

    Args:
        probabilities: The softmax of the logits, float32, shape (N, classes).
        temperature: Above 0; ``1 / temperature`` undoes it.

    Returns:
        float32, shape (N, classes), rows that add up to 1.
    """
    tiny = np.finfo(np.float32).tiny
    logits = np.log(np.maximum(probabilities.astype(np.float64), tiny)) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)
