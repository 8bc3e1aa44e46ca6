"""Evaluation of a trained model on a data set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cifarml.data.dataset import Dataset
from cifarml.errors import DataError
from cifarml.evaluation.metrics import Evaluation, evaluate_probabilities
from cifarml.predict import Predictor
from cifarml.progress import OnProgress, ignore_progress
from cifarml.run import Run, RunLike


class EvaluatedDataset(NamedTuple):
    """Evaluation of a model on a data set.

    Attributes:
        evaluation: The metrics.
        dataset: The images, with labels numbered as the model numbers its classes.
        probabilities: The model's predictions, float32, shape (N, classes).
    """

    evaluation: Evaluation
    dataset: Dataset
    probabilities: npt.NDArray[np.float32]


def evaluate_model(
    model: Predictor | RunLike, dataset: Dataset, *, on_progress: OnProgress = ignore_progress
) -> EvaluatedDataset:
    """Predict every image of a data set and compare with the labels.

    Args:
        model: A run, the path of its folder, a registered model, or a loaded predictor.
        dataset: The images; their classes are matched with the model's by name. All are used:
            pass ``dataset.test`` for the test images only.
        on_progress: Called after every batch.

    Returns:
        Metrics and predictions.

    Raises:
        DataError: If there are no images, or images of a class that the model doesn't know.
        ModelFileError: If the model is missing or damaged.

    Example:
        >>> evaluate_model("runs/first", load_dataset("cifar10").test).evaluation.accuracy  # doctest: +SKIP
        0.715
    """
    predictor = model if isinstance(model, Predictor) else Run.open(model).predictor()
    unknown = sorted(set(dataset.class_names) - set(predictor.class_names))
    if unknown:
        raise DataError(
            f"the model does not know {', '.join(map(repr, unknown[:5]))}; "
            f"it knows {', '.join(predictor.class_names[:10])}"
        )
    numbers = np.array([predictor.class_names.index(name) for name in dataset.class_names])
    dataset = dataset.relabel(numbers[dataset.labels], predictor.class_names)
    probabilities = predictor.predict_images(dataset.images, on_progress=on_progress)
    evaluation = evaluate_probabilities(probabilities, dataset.labels, predictor.class_names)
    return EvaluatedDataset(evaluation, dataset, probabilities)
