"""Whether a figure, or the difference of two, is more than chance."""

from __future__ import annotations

import math
from typing import Final

Z_95: Final = 1.959964
"""Quantile of the normal distribution for an interval of 95 %."""


def mcnemar_p_value(num_only_first: int, num_only_second: int) -> float:
    """Return how often chance alone makes two equally good models differ so much.

    McNemar's test in its exact form (McNemar, Psychometrika 12, 1947; for classifiers: Dietterich, Neural
    Computation 10(7), 1998): twice the lower tail of a binomial distribution.

    Args:
        num_only_first: Number of images that only the first model classifies correctly.
        num_only_second: Number of images that only the second does.

    Returns:
        A probability, 0 to 1; 1 if they differ about no image.
    """
    differing = num_only_first + num_only_second
    ways = tail = 1  # binomial coefficients, as exact integers
    for k in range(min(num_only_first, num_only_second)):
        ways = ways * (differing - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / (1 << differing))


def wilson_interval(num_right: int, num_images: int) -> tuple[float, float]:
    """Return between what a share lies with 95 % confidence (E. B. Wilson, JASA 22, 1927).

    Two shares, 0 to 1, for ``num_right`` of ``num_images``, of which there is one at least.
    """
    share, weight = num_right / num_images, Z_95**2 / num_images
    middle = (share + weight / 2) / (1 + weight)
    margin = math.sqrt(weight * share * (1 - share) + weight**2 / 4) / (1 + weight)
    return max(0.0, middle - margin), min(1.0, middle + margin)
