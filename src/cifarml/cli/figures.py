"""Console output about data sets and accuracies, with what an accuracy alone would hide."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cifarml.cli.console import note, print_notes, print_table
from cifarml.progress import OnProgress, Progress

if TYPE_CHECKING:
    from cifarml.data.dataset import Dataset
    from cifarml.evaluation.compare_models import ModelFigures
    from cifarml.evaluation.metrics import Evaluation
    from cifarml.train.config import TrainConfig


def print_data(dataset: Dataset, source: str, config: TrainConfig | None, on_progress: OnProgress) -> None:
    """Print the classes, the splits if the settings are known, the notes, and the check's warnings."""
    from cifarml.data.describe import describe_classes, describe_splits, list_warnings

    lines = [describe_classes(dataset)]
    if config is not None:
        splits = dataset.split(validation_fraction=config.validation_fraction, seed=config.seed)
        lines.append(describe_splits(splits))
    on_progress(Progress("reading images", len(dataset), len(dataset), line="\n".join(lines)))
    print_notes(dataset)
    if warnings := list_warnings(dataset):
        for warning in warnings:
            note(f"Warning: {warning}")
        note(f"Details: {shlex.join(['cifarml', 'data', 'check', source])}")


def print_evaluation(title: str, evaluation: Evaluation) -> None:
    """Print the metrics of an evaluation."""
    print_table(
        title,
        ("class", "images ", "precision ", "recall ", "F1 "),
        [
            (c.name, f"{c.num_images:,}", f"{c.precision:.1%}", f"{c.recall:.1%}", f"{c.f1:.1%}")
            for c in evaluation.classes
        ],
    )
    result = evaluation.by_class
    print(f"{result.headline('Accuracy')}; loss {evaluation.loss:.3f}")
    for line in result.cautions("image"):
        print(line)


def figure_rows(figures: Sequence[ModelFigures], names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return table rows with the metrics of models side by side, including the recall of each class.

    The majority baseline, the balanced accuracy and the classes that are never predicted are shown if they
    say more than the accuracy.
    """
    from cifarml.data.describe import list_items, shorten
    from cifarml.evaluation.accuracy import interval_text

    known = [each.by_class for each in figures if each.by_class]
    judged = known if len(known) == len(figures) else []
    rows = [("95 % interval", *(interval_text(each.interval) for each in judged))] if judged else []
    if any(each.is_unbalanced for each in judged):
        rows.append(("majority baseline", *(f"{each.majority_baseline:.2%}" for each in judged)))
        rows.append(("balanced accuracy", *(f"{each.balanced_accuracy:.2%}" for each in judged)))
    missed = [[shorten(name) for name in each.never_predicted] for each in judged]
    if any(missed):
        rows.append(("never predicted", *(list_items("", each, end=", ...", width=24) for each in missed)))
    return [
        ("accuracy", *(f"{each.accuracy:.2%}" for each in figures)),
        *rows,
        ("loss", *(f"{each.loss:.3f}" for each in figures)),
        ("calibration error", *(f"{each.calibration_error:.1%}" for each in figures)),
        *(
            (f"recall of {name}", *(f"{e.recall[name]:.1%}" if name in e.recall else "" for e in figures))
            for name in names
        ),
    ]


def accuracy_cells(metrics: Mapping[str, Any], *, balanced: bool) -> list[str]:
    """Return the cells of a table with the test accuracy of a run and, if wanted, its balanced accuracy."""
    names = ["test_accuracy", *["test_balanced_accuracy"] * balanced]
    return [f"{metrics[name]:.1%}" if name in metrics else "" for name in names]


def accuracy_columns(shown: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the columns of :func:`accuracy_cells`: with balanced accuracy if it differs from accuracy."""
    differs = any(
        abs(each["test_accuracy"] - each["test_balanced_accuracy"]) >= 0.01
        for each in shown
        if "test_accuracy" in each and "test_balanced_accuracy" in each
    )
    return ["test accuracy ", *["balanced "] * differs]


def interval_rows(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return the table row with the interval of a test accuracy, if the number of images is known."""
    from cifarml.evaluation.accuracy import interval_text
    from cifarml.evaluation.statistics import wilson_interval

    if not metrics.get("num_test_images") or "test_accuracy" not in metrics:
        return []
    count = round(metrics["num_test_images"])
    interval = wilson_interval(metrics["test_accuracy"] * count, count)
    return [("test_accuracy_interval_95", interval_text(interval))]


def no_better(name: str, metrics: Mapping[str, Any]) -> list[str]:
    """Return a line if always predicting the largest class would reach this test accuracy."""
    baseline = metrics.get("test_majority_baseline", 0.0)
    if metrics.get("test_accuracy", 1.0) > baseline:
        return []
    return [f"{name} is no better than always predicting the largest class ({baseline:.1%})"]
