"""Promotion gate: the checks that a challenger must pass to replace the champion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from cifarml.evaluation.compare_models import Comparison

BEYOND_NOISE: Final = "accuracy"
"""Name of the check with McNemar's test."""


@dataclass(frozen=True)
class GateLimits:
    """Limits of the promotion gate.

    Args:
        max_p_value: Significance level of McNemar's test.
        max_class_loss: Maximum decrease of the recall of a class, as a fraction.
        max_calibration_loss: Maximum increase of the expected calibration error, as a fraction.
    """

    max_p_value: float = 0.05
    max_class_loss: float = 0.10
    max_calibration_loss: float = 0.02


class GateCheck(NamedTuple):
    """Result of one check of the promotion gate.

    Attributes:
        name: Name of the check.
        holds: True if the challenger passes it.
        reason: Explanation with the measured values.
    """

    name: str
    holds: bool
    reason: str


def check_gate(comparison: Comparison, limits: GateLimits | None = None) -> list[GateCheck]:
    """Check whether the second model may replace the first; it may if all checks hold.

    Args:
        comparison: Comparison of the champion (first) with the challenger (second).
        limits: Limits of the checks; the defaults if omitted.

    Returns:
        One result per check: test images, significance, recall per class, calibration, majority baseline.
    """
    limits = limits or GateLimits()
    return [
        _same_images(comparison),
        _beyond_noise(comparison, limits.max_p_value),
        _class_recall(comparison, limits.max_class_loss),
        _calibration(comparison, limits.max_calibration_loss),
        _majority_baseline(comparison),
    ]


def _same_images(both: Comparison) -> GateCheck:
    reason = f"both models were evaluated on the same {both.num_images:,} images ({both.fingerprint[:12]})"
    if both.first.trained_on != both.second.trained_on:
        reason += "; their training data differ, so make sure that neither model was trained on these images"
    return GateCheck("same test images", both.num_images > 0, reason)


def _beyond_noise(both: Comparison, max_p_value: float) -> GateCheck:
    if both.num_only_second <= both.num_only_first:
        return GateCheck(BEYOND_NOISE, holds=False, reason=f"not better: {both.disagreement}")
    holds = both.p_value <= max_p_value
    verdict = "significantly better" if holds else "not significantly better"
    return GateCheck(BEYOND_NOISE, holds, f"{verdict}: {both.disagreement}; {both.p_value_text}")


def _class_recall(both: Comparison, max_loss: float) -> GateCheck:
    losses = {name: both.first.recall[name] - both.second.recall[name] for name in both.class_counts}
    worst = max(losses, key=losses.__getitem__)
    too_much = [name for name, loss in losses.items() if loss > max_loss + 1e-9]
    if too_much:
        listed = _listed([f"{name} ({_change(both, name)})" for name in too_much])
        reason = f"recall drops by more than {max_loss:.0%} for {listed}"
    elif losses[worst] > 0:
        reason = f"the largest drop is {worst} ({_change(both, worst)}); the limit is {max_loss:.0%}"
    else:
        reason = "no class has a lower recall"
    return GateCheck("recall per class", not too_much, reason)


def _calibration(both: Comparison, max_loss: float) -> GateCheck:
    before, after = both.first.calibration_error, both.second.calibration_error
    reason = f"expected calibration error {after:.1%}, {both.first.name}: {before:.1%}"
    return GateCheck("calibration", after - before <= max_loss, reason)


def _majority_baseline(both: Comparison) -> GateCheck:
    """Refuse a model that always predicts the largest class, or is no better than that."""
    accuracy, baseline = both.second.accuracy, both.majority_baseline
    holds = accuracy > baseline
    balanced = sum(both.second.recall[name] for name in both.class_counts) / len(both.class_counts)
    relation = "better" if holds else "no better"
    reason = (
        f"{both.second.name} is {relation} ({accuracy:.1%}, balanced accuracy {balanced:.1%}) than always "
        f"predicting {both.majority_class!r} ({baseline:.1%})"
    )
    return GateCheck("majority baseline", holds, reason)


def _change(both: Comparison, name: str) -> str:
    count = both.class_counts[name]
    return f"{both.first.recall[name]:.0%} to {both.second.recall[name]:.0%} of {count:,} images"


def _listed(texts: Sequence[str]) -> str:
    shown = ", ".join(texts[:5])
    return f"{shown} and {len(texts) - 5} others" if len(texts) > 5 else shown
