"""Classification metrics and calibration error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from cifarml.errors import DataError
from cifarml.evaluation.accuracy import AccuracyByClass


class ClassMetrics(NamedTuple):
    """Metrics of one class; undefined ones (no images, or never predicted) are 0."""

    name: str
    num_images: int
    precision: float
    recall: float
    f1: float


class Evaluation(NamedTuple):
    """Metrics of a model on labelled images.

    Attributes:
        accuracy: Accuracy, 0 to 1.
        loss: Mean cross-entropy, in nats.
        num_images: Number of images.
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
        """Mean F1 of the classes."""
        return float(np.mean([metrics.f1 for metrics in self.classes]))

    @property
    def by_class(self) -> AccuracyByClass:
        """Interval, majority baseline and balanced accuracy."""
        return AccuracyByClass(
            tuple(metrics.name for metrics in self.classes),
            tuple(self.confusion.sum(axis=1).tolist()),
            tuple(np.diag(self.confusion).tolist()),
            tuple(self.confusion.sum(axis=0).tolist()),
        )

    def to_json(self) -> dict[str, object]:
        """Return the metrics as plain JSON values."""
        return {
            "accuracy": self.accuracy,
            **self.by_class.to_json(),
            "loss": self.loss,
            "macro_f1": self.macro_f1,
            "num_images": self.num_images,
            "classes": [metrics._asdict() for metrics in self.classes],
            "confusion": self.confusion.tolist(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Restore an evaluation from the result of :meth:`to_json`."""
        classes = tuple(ClassMetrics(**metrics) for metrics in values["classes"])
        confusion = np.array(values["confusion"], np.int64)
        if confusion.shape != (len(classes), len(classes)) or confusion.min() < 0 or not confusion.any():
            raise ValueError("expected a count for each pair of classes in the confusion matrix")
        return cls(values["accuracy"], values["loss"], values["num_images"], classes, confusion)


def evaluate_probabilities(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], class_names: tuple[str, ...]
) -> Evaluation:
    """Compute metrics from predicted probabilities and true labels.

    Args:
        probabilities: float32, shape (N, classes), rows that sum to 1.
        labels: int64, shape (N,), N at least 1.
        class_names: The classes, in the order of the labels.

    Raises:
        DataError: If there are no images, or the shapes do not match.
    """
    num_classes = len(class_names)
    if not len(labels) or probabilities.shape != (len(labels), num_classes):
        raise DataError(
            f"an evaluation requires images, and a probability for each of {num_classes} classes. "
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
    """Accuracy by bin of confidence (reliability diagram); arrays have shape (bins,).

    Attributes:
        num_images: Number of images in each bin, int64.
        confidence: Mean confidence in each bin, 0 to 1, float64; 0 for an empty bin.
        accuracy: Accuracy in each bin, 0 to 1, float64; 0 for an empty bin.
    """

    num_images: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: mean gap between confidence and accuracy, 0 to 1."""
        gaps = np.abs(self.confidence - self.accuracy)
        return float((self.num_images * gaps).sum() / self.num_images.sum())


def measure_reliability(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], *, num_bins: int = 15
) -> Reliability:
    """Measure the accuracy in confidence bins of equal width.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equations 1 to 3; 15 bins as there.

    Args:
        probabilities: float32, shape (N, classes), rows that sum to 1.
        labels: int64, shape (N,), N at least 1.
        num_bins: Number of bins.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    bins = np.clip((confidence * num_bins).astype(np.int64), 0, num_bins - 1)
    count = np.bincount(bins, minlength=num_bins).astype(np.int64)
    some = np.maximum(count, 1)
    return Reliability(
        count, np.bincount(bins, confidence, num_bins) / some, np.bincount(bins, right, num_bins) / some
    )
