"""Facts about a training that are stored in its run folder."""

from __future__ import annotations

import time

from cifarml.data.dataset import Dataset, DatasetSplits
from cifarml.data.describe import count_classes, list_warnings
from cifarml.evaluation.metrics import Evaluation
from cifarml.train.config import TrainConfig
from cifarml.train.fit import FitResult


def describe_dataset(dataset: Dataset, splits: DatasetSplits) -> dict[str, object]:
    """Return the content of ``dataset.json``."""
    return {
        "origin": dataset.origin,
        "fingerprint": dataset.fingerprint,
        "class_names": dataset.class_names,
        "num_train": len(splits.train),
        "num_validation": len(splits.validation),
        "num_test": len(splits.test),
        "classes": count_classes(splits),
        "warnings": list_warnings(dataset),
        "skipped": [image._asdict() for image in dataset.skipped],
        "ignored": [vars(files) for files in dataset.ignored],
        "notes": dataset.notes,
    }


def describe_training(
    name: str, config: TrainConfig, dataset: Dataset, fitted: FitResult, evaluation: Evaluation
) -> dict[str, object]:
    """Return the facts of the manifest that are known after the evaluation."""
    result = evaluation.by_class
    return {
        "run": name,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "preset": config.preset,
        "num_epochs": len(fitted.history["loss"]),
        "interrupted": fitted.interrupted,
        "dataset": dataset.origin,
        "dataset_fingerprint": dataset.fingerprint,
        "ignored": [vars(files) for files in dataset.ignored],
        "dataset_notes": dataset.notes,
        "training_s": round(fitted.training_s, 3),
        "images_per_second": round(fitted.images_per_second, 1),
        "test_accuracy": evaluation.accuracy,
        "test_loss": evaluation.loss,
        "test_accuracy_interval_95": result.interval,
        "test_majority_baseline": result.majority_baseline,
        "test_balanced_accuracy": result.balanced_accuracy,
        "num_test_images": evaluation.num_images,
    }
