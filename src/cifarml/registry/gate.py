"""Whether one model is better than another: asked about the same pictures, and told in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.stats import binomtest

from cifarml.bundle import Bundle
from cifarml.data.dataset import Dataset
from cifarml.evaluate import evaluate_model
from cifarml.metrics import calibration_error
from cifarml.predict import Predictor
from cifarml.progress import OnProgress, ignore_progress

__all__ = [
    "BEYOND_NOISE",
    "Comparison",
    "GateCheck",
    "GateLimits",
    "ModelFigures",
    "check_gate",
    "compare_bundles",
]

BEYOND_NOISE: Final = "better, not by chance"
"""Name of the check by McNemar's test."""

_Z_95: Final = 1.959964
"""Quantile of the normal distribution for an interval of 95 %."""


@dataclass(frozen=True)
class ModelFigures:
    """What one of two models reached on the pictures that both were asked about.

    Args:
        name: What it is called, such as ``cifar10:2``.
        bundle_sha256: Hash of its bundle.
        trained_on: Fingerprint of the data set that it was trained on; empty where it isn't known.
        accuracy: Share of right labels, 0 to 1.
        loss: Mean cross-entropy, in nats.
        calibration_error: Expected calibration error, 0 to 1.
        recall: For each class, the share of its pictures that were named rightly.
    """

    name: str
    bundle_sha256: str
    trained_on: str
    accuracy: float
    loss: float
    calibration_error: float
    recall: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """Two models on the same pictures: the one in use, and the one that may replace it.

    Args:
        first: The one in use.
        second: The other one.
        data: Where the pictures are from.
        fingerprint: SHA-256 of the pictures and labels.
        class_counts: How many pictures there are of each class.
        num_only_first: How many pictures only the first names rightly.
        num_only_second: How many only the second.
    """

    first: ModelFigures
    second: ModelFigures
    data: str
    fingerprint: str
    class_counts: Mapping[str, int]
    num_only_first: int
    num_only_second: int

    @property
    def num_images(self) -> int:
        """How many pictures there are."""
        return sum(self.class_counts.values())

    @property
    def p_value(self) -> float:
        """How often chance alone makes two equally good models differ so much.

        McNemar's test in its exact form (McNemar, Psychometrika 12, 1947; for classifiers: Dietterich,
        Neural Computation 10(7), 1998).
        """
        differing = self.num_only_first + self.num_only_second
        return float(binomtest(self.num_only_second, differing).pvalue) if differing else 1.0

    @property
    def interval(self) -> tuple[float, float]:
        """What accuracy the second gains, as an interval of 95 % confidence, -1 to 1.

        Wald's with half a picture added to each cell (Agresti and Min, Statistics in Medicine 24, 2005).
        """
        first, second, n = self.num_only_first + 0.5, self.num_only_second + 0.5, self.num_images + 2
        gain = (second - first) / n
        margin = _Z_95 * math.sqrt(first + second - n * gain**2) / n
        return gain - margin, gain + margin

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return {
            "data": self.data,
            "fingerprint": self.fingerprint,
            "num_images": self.num_images,
            "models": [
                {
                    "name": each.name,
                    "accuracy": each.accuracy,
                    "loss": each.loss,
                    "calibration_error": each.calibration_error,
                    "recall": dict(each.recall),
                }
                for each in (self.first, self.second)
            ],
            "num_only_first": self.num_only_first,
            "num_only_second": self.num_only_second,
            "p_value": self.p_value,
            "gain_interval_95": list(self.interval),
        }


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


def compare_bundles(
    first: Bundle,
    second: Bundle,
    dataset: Dataset,
    *,
    names: tuple[str, str] = ("first", "second"),
    on_progress: OnProgress = ignore_progress,
) -> Comparison:
    """Ask two models about the same pictures.

    Args:
        first: The model in use.
        second: The model that may replace it.
        dataset: The pictures, all of which are used: pass ``dataset.test`` for the test pictures alone.
        names: What the models are called.
        on_progress: Called after every batch.

    Raises:
        DataError: If there are no pictures, or of a class that one of the models doesn't know.
        ModelFileError: If a model is damaged.
    """
    figures, right = [], []
    for name, bundle in zip(names, (first, second), strict=True):
        done = evaluate_model(Predictor.load(bundle.path), dataset, on_progress=on_progress)
        right.append(done.probabilities.argmax(axis=1) == done.dataset.labels)
        recall = {each.name: each.recall for each in done.evaluation.classes if each.num_images}
        figures.append(
            ModelFigures(
                name,
                bundle.sha256,
                str(bundle.info.get("dataset_fingerprint", "")),
                done.evaluation.accuracy,
                done.evaluation.loss,
                calibration_error(done.probabilities, done.dataset.labels),
                recall,
            )
        )
    counts = zip(dataset.class_names, dataset.class_counts().tolist(), strict=True)
    return Comparison(
        first=figures[0],
        second=figures[1],
        data=dataset.origin,
        fingerprint=dataset.fingerprint,
        class_counts={name: count for name, count in counts if count},
        num_only_first=int(np.sum(right[0] & ~right[1])),
        num_only_second=int(np.sum(right[1] & ~right[0])),
    )


def check_gate(comparison: Comparison, limits: GateLimits | None = None) -> list[GateCheck]:
    """Say whether the second model may replace the first: it may where all checks hold.

    Args:
        comparison: What both reached.
        limits: How much is asked.
    """
    limits = limits or GateLimits()
    return [
        _same_pictures(comparison),
        _beyond_noise(comparison, limits.max_p_value),
        _no_class_loses(comparison, limits.max_class_loss),
        _calibration(comparison, limits.max_calibration_loss),
    ]


def _same_pictures(both: Comparison) -> GateCheck:
    reason = f"both were asked about the same {both.num_images:,} pictures ({both.fingerprint[:12]})"
    if both.first.trained_on != both.second.trained_on:
        reason += "; they were trained on different ones, so see to it that these are new to both"
    return GateCheck("same test pictures", both.num_images > 0, reason)


def _beyond_noise(both: Comparison, max_p_value: float) -> GateCheck:
    won, lost, p_value = both.num_only_second, both.num_only_first, both.p_value
    told = (
        f"{both.second.name} is right about {won:,} pictures where {both.first.name} is wrong, and the other "
        f"way round about {lost:,}"
    )
    if won <= lost:
        return GateCheck(BEYOND_NOISE, holds=False, reason=f"{told}: that is no gain")
    chance = f"chance alone makes such a difference with probability {p_value:.2g} (McNemar's test)"
    if p_value > max_p_value:
        return GateCheck(BEYOND_NOISE, holds=False, reason=f"{told}: within the noise, as {chance}")
    return GateCheck(BEYOND_NOISE, holds=True, reason=f"{told}: beyond the noise, as {chance}")


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
    return f"{both.first.recall[name]:.0%} to {both.second.recall[name]:.0%} of {of:,} pictures"


def _listed(texts: Sequence[str]) -> str:
    shown = ", ".join(texts[:5])
    return f"{shown} and {len(texts) - 5} others" if len(texts) > 5 else shown
