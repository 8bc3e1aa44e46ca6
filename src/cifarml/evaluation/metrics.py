"""How good predictions are: the figures of a run and of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from cifarml.errors import DataError


class ClassMetrics(NamedTuple):
    """Figures of one class; 0 where a figure has no meaning (nothing of that class, or never predicted)."""

    name: str
    num_images: int
    precision: float
    recall: float
    f1: float


class Evaluation(NamedTuple):
    """Figures of a model on a set of labelled images.

    Attributes:
        accuracy: Share of right labels, 0 to 1.
        loss: Mean cross-entropy, in nats.
        num_images: How many images were asked.
        classes: Precision, recall and F1 of each class, in the order of the labels.
        confusion: int64, shape (classes, classes): row is the true label, column the predicted one.
    """

    accuracy: float
    loss: float
    num_images: int
    classes: tuple[ClassMetrics, ...]
    confusion: npt.NDArray[np.int64]

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes."""
        return float(np.mean([metrics.f1 for metrics in self.classes]))

    def to_json(self) -> dict[str, object]:
        """Return the figures as plain JSON values."""
        return {
            "accuracy": self.accuracy,
            "loss": self.loss,
            "macro_f1": self.macro_f1,
            "num_images": self.num_images,
            "classes": [metrics._asdict() for metrics in self.classes],
            "confusion": self.confusion.tolist(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_json` gave."""
        classes = tuple(ClassMetrics(**metrics) for metrics in values["classes"])
        confusion = np.array(values["confusion"], np.int64)
        return cls(values["accuracy"], values["loss"], values["num_images"], classes, confusion)


def evaluate_probabilities(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], class_names: tuple[str, ...]
) -> Evaluation:
    """Compare predicted probabilities with the true labels.

    Args:
        probabilities: float32, shape (N, classes), rows that add up to 1.
        labels: int64, shape (N,), N at least 1.
        class_names: The classes, in the order of the labels.

    Raises:
        DataError: If there are no images, or the shapes don't fit.
    """
    num_classes = len(class_names)
    if not len(labels) or probabilities.shape != (len(labels), num_classes):
        raise DataError(
            f"an evaluation needs images, and a probability for each of {num_classes} classes. "
            f"Received: {len(labels)} labels, probabilities of shape {probabilities.shape}"
        )
    predicted = probabilities.argmax(axis=1)
    confusion = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    confusion = confusion.reshape(num_classes, num_classes).astype(np.int64)
    right = np.diag(confusion)
    precision = right / np.maximum(confusion.sum(axis=0), 1)
    recall = right / np.maximum(confusion.sum(axis=1), 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return Evaluation(
        accuracy=float(right.sum() / len(labels)),
        loss=float(-np.log(np.maximum(of_truth, 1e-7)).mean()),
        num_images=len(labels),
        classes=tuple(
            ClassMetrics(name, int(count), float(p), float(r), float(f))
            for name, count, p, r, f in zip(
                class_names, confusion.sum(axis=1), precision, recall, f1, strict=True
            )
        ),
        confusion=confusion,
    )


class Reliability(NamedTuple):
    """How often a model is right, by how sure it is; every array is of shape (bins,).

    Attributes:
        num_images: int64: how many images fall into each bin of confidence.
        confidence: float64: their mean confidence, 0 to 1; 0 where there are none.
        accuracy: float64: the share of them that is named rightly; 0 where there are none.
    """

    num_images: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: the mean gap between confidence and accuracy, 0 to 1."""
        gaps = np.abs(self.confidence - self.accuracy)
        return float((self.num_images * gaps).sum() / self.num_images.sum())


def measure_reliability(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], *, num_bins: int = 15
) -> Reliability:
    """Measure how often a model is right, in bins of confidence of equal width.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equations 1 to 3; 15 bins as there.

    Args:
        probabilities: float32, shape (N, classes), rows that add up to 1.
        labels: int64, shape (N,), N at least 1.
        num_bins: How many bins of confidence.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    bins = np.clip((confidence * num_bins).astype(np.int64), 0, num_bins - 1)
    count = np.bincount(bins, minlength=num_bins).astype(np.int64)
    some = np.maximum(count, 1)
    return Reliability(
        count, np.bincount(bins, confidence, num_bins) / some, np.bincount(bins, right, num_bins) / some
    )
