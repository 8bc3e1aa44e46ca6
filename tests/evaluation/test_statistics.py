"""Significance test and confidence interval, compared with SciPy."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from cifarml.evaluation.statistics import mcnemar_p_value, wilson_interval


@pytest.mark.parametrize(("first", "second"), [(0, 1), (3, 3), (7, 2), (0, 40), (512, 430), (3000, 2900)])
def test_mcnemar_matches_scipy(first: int, second: int) -> None:
    expected = binomtest(second, first + second).pvalue
    assert mcnemar_p_value(first, second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_p_value(second, first) == mcnemar_p_value(first, second)


def test_mcnemar_without_differences() -> None:
    assert mcnemar_p_value(0, 0) == 1.0


@pytest.mark.parametrize(("right", "total"), [(0, 1), (1, 1), (0, 20), (20, 20), (9, 20), (7_593, 10_000)])
def test_wilson_matches_scipy(right: int, total: int) -> None:
    expected = binomtest(right, total).proportion_ci(method="wilson")
    assert wilson_interval(right, total) == pytest.approx((expected.low, expected.high), abs=1e-7)
