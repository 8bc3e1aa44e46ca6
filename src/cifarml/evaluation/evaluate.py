"""Evaluate a trained model on a data set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cifarml.data.dataset import Dataset
from cifarml.errors import DataError, ModelFileError
from cifarml.evaluation.metrics import Evaluation, evaluate_probabilities
from cifarml.predict import Predictor
from cifarml.progress import OnProgress, ignore_progress
from cifarml.run import Run, RunLike
from cifarml.run_folders import METRICS


class EvaluatedDataset(NamedTuple):
    """Result of evaluating a model on a data set.

    Attributes:
        evaluation: The metrics.
        dataset: The images, with labels in the order of the model's classes.
        probabilities: The model's predictions, float32, shape (N, classes).
    """

    evaluation: Evaluation
    dataset: Dataset
    probabilities: npt.NDArray[np.float32]


def evaluate_model(
    model: Predictor | RunLike, dataset: Dataset, *, on_progress: OnProgress = ignore_progress
) -> EvaluatedDataset:
    """Evaluate a model on every image of a data set.

    Args:
        model: A run, the path of its folder, a registered model, or a loaded predictor.
        dataset: The images; classes are matched with those of the model by name. All images are used; pass
            `dataset.test` for the test images only.
        on_progress: Called after every batch.

    Returns:
        Metrics and predicted probabilities.

    Raises:
        DataError: If there are no images, or images of a class that the model was not trained on.
        ModelFileError: If the model is missing or damaged.

    Example:
        ```python
        result = evaluate_model("runs/first", load_dataset("cifar10").test)
        print(result.evaluation.accuracy, result.evaluation.macro_f1)
        ```
    """
    predictor = model if isinstance(model, Predictor) else Run.open(model).predictor()
    unknown = sorted(set(dataset.class_names) - set(predictor.class_names))
    if unknown:
        raise DataError(
            f"the model has no class {', '.join(map(repr, unknown[:5]))}; "
            f"its classes are {', '.join(predictor.class_names[:10])}"
        )
    numbers = np.array([predictor.class_names.index(name) for name in dataset.class_names])
    dataset = dataset.relabel(numbers[dataset.labels], predictor.class_names)
    probabilities = predictor.predict_images(dataset.images, on_progress=on_progress)
    evaluation = evaluate_probabilities(probabilities, dataset.labels, predictor.class_names)
    return EvaluatedDataset(evaluation, dataset, probabilities)


def stored_evaluation(run: Run) -> Evaluation:
    """Read the evaluation on the test images that a run folder contains.

    Raises:
        ModelFileError: If it is missing, changed or damaged.
    """
    metrics = run.read_json(METRICS)
    try:
        return Evaluation.from_json(metrics["test"])
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelFileError(f"the metrics in {run.path} are damaged: {error!r}") from error
