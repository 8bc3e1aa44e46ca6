"""Comparison of two models on the same images, with a significance test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np

from cifarml.data.dataset import Dataset
from cifarml.evaluation.accuracy import AccuracyByClass
from cifarml.evaluation.evaluate import evaluate_model
from cifarml.evaluation.metrics import Evaluation, measure_reliability
from cifarml.evaluation.statistics import Z_95, mcnemar_p_value
from cifarml.progress import OnProgress, ignore_progress
from cifarml.run import Run, RunLike

_MAX_P_VALUE: Final = 0.05
_INTERNAL: Final = {"run_sha256", "trained_on", "by_class"}


@dataclass(frozen=True)
class ModelFigures:
    """Metrics of one of two compared models.

    Args:
        name: Display name, such as ``cifar10:2``.
        run_sha256: Hash of the model's run.
        trained_on: Fingerprint of its training data set; empty if unknown.
        accuracy: Accuracy, 0 to 1.
        loss: Mean cross-entropy, in nats.
        calibration_error: Expected calibration error, 0 to 1.
        recall: Recall of each class, 0 to 1.
        by_class: Counts of each class, with the interval and the baseline of the accuracy; None if unknown.
    """

    name: str
    run_sha256: str
    trained_on: str
    accuracy: float
    loss: float
    calibration_error: float
    recall: Mapping[str, float]
    by_class: AccuracyByClass | None = field(default=None, repr=False)

    @classmethod
    def of_run(cls, name: str, run: Run, evaluation: Evaluation, calibration_error: float) -> Self:
        """Collect the metrics of an evaluated run."""
        return cls(
            name,
            run.sha256,
            str(run.info.get("dataset_fingerprint", "")),
            float(evaluation.accuracy),
            float(evaluation.loss),
            float(calibration_error),
            {each.name: float(each.recall) for each in evaluation.classes if each.num_images},
            evaluation.by_class,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as plain JSON values, without hashes."""
        derived = self.by_class.to_json() if self.by_class else {}
        return {name: value for name, value in vars(self).items() if name not in _INTERNAL} | derived


@dataclass(frozen=True)
class Comparison:
    """Comparison of two models on the same images, usually champion and challenger.

    Args:
        first: Metrics of the current model (champion).
        second: Metrics of its possible replacement (challenger).
        data: Source of the images.
        fingerprint: SHA-256 of the images and labels.
        class_counts: Number of images of each class.
        num_only_first: Number of images that only the first model classifies correctly.
        num_only_second: Number of images that only the second model classifies correctly.
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
        """Number of compared images."""
        return sum(self.class_counts.values())

    @property
    def majority_class(self) -> str:
        """Class with the most images."""
        return max(self.class_counts, key=self.class_counts.__getitem__)

    @property
    def majority_baseline(self) -> float:
        """Accuracy of always predicting the class with the most images, 0 to 1."""
        return self.class_counts[self.majority_class] / self.num_images

    @property
    def p_value(self) -> float:
        """p-value of McNemar's exact test."""
        return mcnemar_p_value(self.num_only_first, self.num_only_second)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the accuracy gain of the second model, -1 to 1.

        Wald interval with half an image added to each cell (Agresti and Min, Statistics in Medicine 24,
        2005).
        """
        first, second, n = self.num_only_first + 0.5, self.num_only_second + 0.5, self.num_images + 2
        gain = (second - first) / n
        margin = Z_95 * math.sqrt(first + second - n * gain**2) / n
        return gain - margin, gain + margin

    @property
    def disagreement(self) -> str:
        """Sentence with the number of images that only one of the models classifies correctly."""
        return (
            f"{self.second.name} is correct on {self.num_only_second:,} images that {self.first.name} gets "
            f"wrong, {self.first.name} on {self.num_only_first:,} that {self.second.name} gets wrong"
        )

    @property
    def p_value_text(self) -> str:
        """p-value and name of the test, for display."""
        return f"p = {self.p_value:.2g} (McNemar's test)"

    @property
    def gain_text(self) -> str:
        """Sentence with the confidence interval of the accuracy gain."""
        low, high = self.interval
        return (
            f"Accuracy gain of {self.second.name} over {self.first.name}: "
            f"{low:+.1%} to {high:+.1%} (95 % confidence interval)."
        )

    @property
    def summary(self) -> str:
        """Verdict on which model is better, if any; differences are significant up to p = 0.05."""
        relation = "better" if self.num_only_second > self.num_only_first else "worse"
        verdict = f"{self.second.name} is significantly {relation} than {self.first.name}"
        if self.p_value > _MAX_P_VALUE:
            verdict = "No significant difference"
        return f"{verdict}: {self.disagreement}; {self.p_value_text}. {self.gain_text}{self._flattering()}"

    def _flattering(self) -> str:
        """Return a sentence on the models that a constant prediction equals; empty without any."""
        baseline = self.majority_baseline
        names = [each.name for each in (self.first, self.second) if each.accuracy <= baseline]
        if not names:
            return ""
        return (
            f" No better than always predicting {self.majority_class!r} ({baseline:.1%}): "
            f"{' and '.join(dict.fromkeys(names))}."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values."""
        return {
            "data": self.data,
            "fingerprint": self.fingerprint,
            "num_images": self.num_images,
            "majority_baseline": self.majority_baseline,
            "models": [each.to_json() for each in (self.first, self.second)],
            "num_only_first": self.num_only_first,
            "num_only_second": self.num_only_second,
            "p_value": self.p_value,
            "gain_interval_95": list(self.interval),
        }


def compare_on_dataset(
    first: RunLike,
    second: RunLike,
    dataset: Dataset,
    *,
    names: tuple[str, str] = ("first", "second"),
    on_progress: OnProgress = ignore_progress,
) -> Comparison:
    """Compare the predictions of two models on the same images.

    Args:
        first: The current model: a run, the path of its folder, or a registered model.
        second: Its possible replacement.
        dataset: The images, all of which are used; pass ``dataset.test`` for the test images only.
        names: Display names of the models.
        on_progress: Called after every batch.

    Raises:
        DataError: If there are no images, or images of a class that one of the models was not trained on.
        ModelFileError: If a model is damaged.
    """
    figures, right = [], []
    for name, run in zip(names, (Run.open(first), Run.open(second)), strict=True):
        done = evaluate_model(run, dataset, on_progress=on_progress)
        right.append(done.probabilities.argmax(axis=1) == done.dataset.labels)
        reliability = measure_reliability(done.probabilities, done.dataset.labels)
        figures.append(ModelFigures.of_run(name, run, done.evaluation, reliability.calibration_error))
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
