"""Accuracy by class: interval, majority baseline, balanced accuracy, and lines about them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cifarml.evaluation.accuracy import AccuracyByClass
from cifarml.evaluation.metrics import Evaluation, evaluate_probabilities
from cifarml.evaluation.statistics import wilson_interval

MAJORITY = AccuracyByClass(("cat", "dog"), (300, 12), (300, 0), (312, 0))
"""Always predicts the larger class."""
BALANCED = AccuracyByClass(tuple("abcdefghij"), (20,) * 10, (15,) * 10, (20,) * 10)


def test_headline_contains_the_interval() -> None:
    low, high = wilson_interval(300, 312)
    assert MAJORITY.headline() == (
        f"Test accuracy 96.2% on 312 images, 95 % interval {low:.1%} to {high:.1%}"
    )
    one = AccuracyByClass(("cat", "dog"), (1, 0), (1, 0), (1, 0))
    assert " 100.0% on 1 test image, " in one.headline("fast, 1 epoch:", "test image")


def test_constant_prediction_is_called_that() -> None:
    assert MAJORITY.majority_baseline == MAJORITY.share == pytest.approx(300 / 312)
    assert MAJORITY.balanced_accuracy == 0.5
    assert MAJORITY.never_predicted == ["dog"]
    assert MAJORITY.majority_p_value == 1
    assert MAJORITY.cautions() == [
        "Majority baseline 96.2% (always 'cat'), balanced accuracy 50.0%",
        "No better than always predicting 'cat' (96.2%)",
        "Never predicted: dog",
        "Uncertain: 12 test images of 'dog' (recall ±25 points, accuracy ±2)",
    ]


def test_normal_case_is_quiet() -> None:
    assert BALANCED.cautions() == []
    assert BALANCED.majority_baseline == 0.1
    assert BALANCED.balanced_accuracy == BALANCED.share == 0.75


@pytest.mark.parametrize(("largest", "shown"), [(30, False), (31, True)])
def test_balanced_accuracy_from_a_ratio_of_one_and_a_half(largest: int, shown: bool) -> None:
    found = AccuracyByClass(("cat", "dog"), (largest, 20), (largest, 19), (largest, 20))
    assert found.is_unbalanced == shown
    assert any("balanced accuracy" in line for line in found.cautions()) == shown


def test_ties_are_compared_with_the_hardest_constant_prediction() -> None:
    """Predicting only the second of two equal classes is no better than a constant."""
    second = AccuracyByClass(("cat", "dog"), (50, 50), (0, 50), (0, 100))
    assert second.majority_p_value == 1
    assert any(line.startswith("No better than always") for line in second.cautions())
    slightly = AccuracyByClass(("cat", "dog"), (50, 50), (10, 50), (10, 90))
    assert any(line.startswith("Not significantly") for line in slightly.cautions()) == (
        slightly.majority_p_value > 0.05
    )


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ((2, 2, 2), "Uncertain: 2 test images per class (recall ±41 points, "),
        ((1, 30, 30), "Uncertain: 1 test image of 'a' (recall ±45 points, "),
        ((5, 12, 30), "Uncertain: 5 to 12 test images in 2 classes (recall ±33 points, "),
    ],
)
def test_few_images(counts: tuple[int, ...], line: str) -> None:
    found = AccuracyByClass(tuple("abc"), counts, counts, counts)
    low, _ = wilson_interval(sum(counts), sum(counts))
    assert f"{line}accuracy ±{50 * (1 - low):.0f})" in found.cautions()


def test_classes_without_images_do_not_count() -> None:
    found = AccuracyByClass(("cat", "dog", "emu"), (40, 40, 0), (30, 30, 0), (40, 40, 0))
    assert found.balanced_accuracy == 0.75
    assert found.never_predicted == []
    assert found.cautions() == ["Without test images: emu"]
    single = AccuracyByClass(("cat", "dog"), (40, 0), (30, 0), (30, 10))
    assert single.cautions("image") == ["Without images: dog"]


def test_unknown_predictions() -> None:
    found = AccuracyByClass(("cat", "dog"), (30, 30), (30, 0))
    assert "Never predicted correctly: dog" in found.cautions()


@pytest.mark.parametrize("num_classes", [2, 12, 1000])
def test_lines_fit_into_80_columns(num_classes: int) -> None:
    names = tuple(f"class {number} with a long name" for number in range(num_classes))
    counts = tuple(1 + number % 37 for number in range(num_classes))
    nothing = (0,) * num_classes
    found = AccuracyByClass(names, counts, nothing, (sum(counts), *nothing[1:]))
    assert all(len(line) < 80 for line in [found.headline(), *found.cautions()])
    assert (
        f"({num_classes - 1:,} of {num_classes:,} classes)" in " ".join(found.cautions()) or num_classes < 5
    )


def test_json_of_an_evaluation() -> None:
    labels = np.array([0] * 30 + [1] * 2)
    evaluation = evaluate_probabilities(np.eye(2, dtype=np.float32)[labels * 0], labels, ("cat", "dog"))
    document = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert document["accuracy"] == document["majority_baseline"] == 0.9375
    assert document["balanced_accuracy"] == 0.5
    assert document["never_predicted"] == ["dog"]
    assert document["majority_class"] == "cat"
    assert document["accuracy_interval_95"] == pytest.approx(wilson_interval(30, 32))


def test_evaluation_of_an_old_run_has_the_same_figures() -> None:
    labels = np.array([0] * 30 + [1] * 2)
    evaluation = evaluate_probabilities(np.eye(2, dtype=np.float32)[labels], labels, ("cat", "dog"))
    new = evaluation.by_class.to_json()
    old = {name: value for name, value in evaluation.to_json().items() if name not in new}
    assert Evaluation.from_json(old).by_class == evaluation.by_class


@pytest.mark.parametrize("confusion", [[], [[1]], [[0, 0], [0, 0]], [[1, -1], [0, 1]], [1, 2]])
def test_damaged_confusion_matrix(confusion: object) -> None:
    labels = np.array([0, 1])
    evaluation = evaluate_probabilities(np.eye(2, dtype=np.float32), labels, ("cat", "dog"))
    with pytest.raises(ValueError, match="confusion matrix"):
        Evaluation.from_json(evaluation.to_json() | {"confusion": confusion})
