"""Significance test and confidence interval for accuracies."""

from __future__ import annotations

import math
from typing import Final

Z_95: Final = 1.959964
"""Quantile of the normal distribution for a 95 % confidence interval."""


def mcnemar_p_value(num_only_first: int, num_only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    It is twice the lower tail of a binomial distribution (McNemar, Psychometrika 12, 1947; for classifiers:
    Dietterich, Neural Computation 10(7), 1998).

    Args:
        num_only_first: Number of images that only the first model classifies correctly.
        num_only_second: Number of images that only the second model classifies correctly.

    Returns:
        The p-value, 0 to 1; 1 if the models agree on every image.
    """
    differing = num_only_first + num_only_second
    ways = tail = 1  # binomial coefficients, as exact integers
    for k in range(min(num_only_first, num_only_second)):
        ways = ways * (differing - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / (1 << differing))


def wilson_interval(num_right: float, num_images: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of an accuracy, 0 to 1 (E. B. Wilson, JASA 22, 1927).

    Args:
        num_right: Number of correctly classified images.
        num_images: Number of images, at least 1.
    """
    share, weight = num_right / num_images, Z_95**2 / num_images
    middle = (share + weight / 2) / (1 + weight)
    margin = math.sqrt(weight * share * (1 - share) + weight**2 / 4) / (1 + weight)
    return max(0.0, middle - margin), min(1.0, middle + margin)
