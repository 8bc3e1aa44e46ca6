"""Whether one model may replace another: what is asked of it, and why, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from cifarml.evaluation.compare_models import Comparison

BEYOND_NOISE: Final = "better, not by chance"
"""Name of the check by McNemar's test."""


@dataclass(frozen=True)
class GateLimits:
    """How much is asked of a model that shall replace another one.

    Args:
        max_p_value: A gain that chance alone makes more often is taken for noise.
        max_class_loss: Of its recall a class may lose so much, as a share.
        max_calibration_loss: The expected calibration error may grow by so much, as a share.
    """

    max_p_value: float = 0.05
    max_class_loss: float = 0.10
    max_calibration_loss: float = 0.02


class GateCheck(NamedTuple):
    """One thing that is asked.

    Attributes:
        name: What.
        holds: Whether it is so.
        reason: Why, in words.
    """

    name: str
    holds: bool
    reason: str


def check_gate(comparison: Comparison, limits: GateLimits | None = None) -> list[GateCheck]:
    """Check whether the second model may replace the first: it may if all checks hold."""
    limits = limits or GateLimits()
    return [
        _same_images(comparison),
        _beyond_noise(comparison, limits.max_p_value),
        _no_class_loses(comparison, limits.max_class_loss),
        _calibration(comparison, limits.max_calibration_loss),
    ]


def _same_images(both: Comparison) -> GateCheck:
    reason = f"both were asked about the same {both.num_images:,} images ({both.fingerprint[:12]})"
    if both.first.trained_on != both.second.trained_on:
        reason += "; they were trained on different ones, so see to it that these are new to both"
    return GateCheck("same test images", both.num_images > 0, reason)


def _beyond_noise(both: Comparison, max_p_value: float) -> GateCheck:
    if both.num_only_second <= both.num_only_first:
        return GateCheck(BEYOND_NOISE, holds=False, reason=f"{both.disagreement}: that is no gain")
    holds = both.p_value <= max_p_value
    where = "beyond" if holds else "within"
    return GateCheck(BEYOND_NOISE, holds, f"{both.disagreement}: {where} the noise, as {both.p_value_text}")


def _no_class_loses(both: Comparison, max_loss: float) -> GateCheck:
    losses = {name: both.first.recall[name] - both.second.recall[name] for name in both.class_counts}
    worst = max(losses, key=losses.__getitem__)
    too_much = [name for name, loss in losses.items() if loss > max_loss + 1e-9]
    if too_much:
        told = _listed([f"{name} ({_change(both, name)})" for name in too_much])
        reason = f"more than {max_loss:.0%} of recall is lost by {told}"
    elif losses[worst] > 0:
        reason = f"the most is lost by {worst} ({_change(both, worst)}); {max_loss:.0%} is allowed"
    else:
        reason = "no class loses anything"
    return GateCheck("no class loses", not too_much, reason)


def _calibration(both: Comparison, max_loss: float) -> GateCheck:
    before, after = both.first.calibration_error, both.second.calibration_error
    told = f"its confidence is off by {after:.1%} on average, that of {both.first.name} by {before:.1%}"
    return GateCheck("calibration no worse", after - before <= max_loss, told)


def _change(both: Comparison, name: str) -> str:
    of = both.class_counts[name]
    return f"{both.first.recall[name]:.0%} to {both.second.recall[name]:.0%} of {of:,} images"


def _listed(texts: Sequence[str]) -> str:
    shown = ", ".join(texts[:5])
    return f"{shown} and {len(texts) - 5} others" if len(texts) > 5 else shown
