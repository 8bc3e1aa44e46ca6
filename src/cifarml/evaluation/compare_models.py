"""Two models on the same images: what each reached, and whether the difference is more than noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from cifarml.data.dataset import Dataset
from cifarml.evaluation.evaluate import evaluate_model
from cifarml.evaluation.metrics import Evaluation, measure_reliability
from cifarml.evaluation.statistics import Z_95, mcnemar_p_value
from cifarml.progress import OnProgress, ignore_progress
from cifarml.run import Run, RunLike

_MAX_P_VALUE: Final = 0.05
_HASHES: Final = {"run_sha256", "trained_on"}


@dataclass(frozen=True)
class ModelFigures:
    """What one of two models reached on the images that both were asked about.

    Args:
        name: What it is called, such as ``cifar10:2``.
        run_sha256: Hash of its run.
        trained_on: Fingerprint of the data set that it was trained on; empty where it isn't known.
        accuracy: Share of right labels, 0 to 1.
        loss: Mean cross-entropy, in nats.
        calibration_error: Expected calibration error, 0 to 1.
        recall: For each class, the share of its images that were named rightly.
    """

    name: str
    run_sha256: str
    trained_on: str
    accuracy: float
    loss: float
    calibration_error: float
    recall: Mapping[str, float]

    @classmethod
    def of_run(cls, name: str, run: Run, evaluation: Evaluation, calibration_error: float) -> Self:
        """Return the figures of a run that was evaluated."""
        return cls(
            name,
            run.sha256,
            str(run.info.get("dataset_fingerprint", "")),
            float(evaluation.accuracy),
            float(evaluation.loss),
            float(calibration_error),
            {each.name: float(each.recall) for each in evaluation.classes if each.num_images},
        )


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images: the one in use, and the one that may replace it.

    Args:
        first: The one in use.
        second: The other one.
        data: Where the images are from.
        fingerprint: SHA-256 of the images and labels.
        class_counts: How many images there are of each class.
        num_only_first: How many images only the first names rightly.
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
        """How many images there are."""
        return sum(self.class_counts.values())

    @property
    def p_value(self) -> float:
        """How often chance alone makes two equally good models differ so much."""
        return mcnemar_p_value(self.num_only_first, self.num_only_second)

    @property
    def interval(self) -> tuple[float, float]:
        """What accuracy the second gains, as an interval of 95 % confidence, -1 to 1.

        Wald's with half an image added to each cell (Agresti and Min, Statistics in Medicine 24, 2005).
        """
        first, second, n = self.num_only_first + 0.5, self.num_only_second + 0.5, self.num_images + 2
        gain = (second - first) / n
        margin = Z_95 * math.sqrt(first + second - n * gain**2) / n
        return gain - margin, gain + margin

    @property
    def disagreement(self) -> str:
        """How many images only one of them names rightly, in words."""
        return (
            f"{self.second.name} is right about {self.num_only_second:,} images where {self.first.name} is "
            f"wrong, and the other way round about {self.num_only_first:,}"
        )

    @property
    def p_value_text(self) -> str:
        """What :attr:`p_value` says, in words."""
        return f"chance alone makes such a difference with probability {self.p_value:.2g} (McNemar's test)"

    @property
    def gain_text(self) -> str:
        """What :attr:`interval` says, in words."""
        low, high = self.interval
        return (
            f"The accuracy of {self.second.name} minus that of {self.first.name} is "
            f"{low:+.1%} to {high:+.1%} (95 % confidence)."
        )

    @property
    def summary(self) -> str:
        """Whether one is better than the other, in words; a p-value above 0.05 is taken for noise."""
        how = "better" if self.num_only_second > self.num_only_first else "worse"
        said = f"{self.second.name} is {how} than {self.first.name}, beyond noise"
        if self.p_value > _MAX_P_VALUE:
            said = "No difference beyond noise"
        return f"{said}: {self.disagreement}; {self.p_value_text}. {self.gain_text}"

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return {
            "data": self.data,
            "fingerprint": self.fingerprint,
            "num_images": self.num_images,
            "models": [
                {name: value for name, value in vars(each).items() if name not in _HASHES}
                for each in (self.first, self.second)
            ],
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
        first: The model in use: a run, the path of its folder, or a registered model.
        second: The model that may replace it.
        dataset: The images, all of which are used: pass ``dataset.test`` for the test images only.
        names: Names of the models in the result.
        on_progress: Called after every batch.

    Raises:
        DataError: If there are no images, or images of a class that one of the models doesn't know.
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
