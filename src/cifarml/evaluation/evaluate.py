"""How a finished model does on a data set that it was not trained on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cifarml.data.dataset import Dataset
from cifarml.errors import DataError
from cifarml.evaluation.metrics import Evaluation, evaluate_probabilities
from cifarml.predict import Predictor
from cifarml.progress import OnProgress, ignore_progress

__all__ = ["EvaluatedDataset", "evaluate_model"]


class EvaluatedDataset(NamedTuple):
    """The outcome of an evaluation.

    Attributes:
        evaluation: The figures.
        dataset: The images asked about, their labels numbered as the model numbers its classes.
        probabilities: What the model answered, float32, shape (N, classes).
    """

    evaluation: Evaluation
    dataset: Dataset
    probabilities: npt.NDArray[np.float32]


def evaluate_model(
    predictor: Predictor, dataset: Dataset, *, on_progress: OnProgress = ignore_progress
) -> EvaluatedDataset:
    """Ask a model about every image of a data set and compare with the labels.

    Args:
        predictor: The model.
        dataset: The images; their classes are matched with the model's by name. All are used:
            pass ``dataset.test`` for the test images alone.
        on_progress: Called after every batch.

    Returns:
        Figures and answers.

    Raises:
        DataError: If there are no images, or of a class that the model doesn't know.
    """
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
