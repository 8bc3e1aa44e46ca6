"""Accuracies of the command line: 300 drawings of ships against 12 of cats, where a constant gives 93.8 %."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from cifarml import Dataset, Run, TrainConfig, load_dataset
from cifarml.data.save import save_images
from cifarml.run import MANIFEST, write_json, write_manifest
from tests.conftest import CommandLine
from tests.runs import TrainedRuns

NEW_IN_INFO = ("test_accuracy_interval_95", "test_majority_baseline", "test_balanced_accuracy")
NEW_IN_TEST = (
    "accuracy_interval_95", "majority_class", "majority_baseline", "majority_p_value", "balanced_accuracy",
    "never_predicted",
)  # fmt: skip
LINES = (
    "93.8% on 32 images, 95 % interval 79.9% to 98.3%",
    "Majority baseline 93.8% (always 'ship'), balanced accuracy 50.0%",
    "No better than always predicting 'ship' (93.8%)",
    "Never predicted: cat",
)


@pytest.fixture(scope="module")
def unbalanced() -> Dataset:
    """270 + 30 ships and 10 + 2 cats; two of the test images are copies of training images."""
    drawn = load_dataset("drawn:4000")
    ships, cats = (
        np.flatnonzero((drawn.labels == drawn.class_names.index(name)) & ~drawn.is_test)
        for name in ("ship", "cat")
    )
    chosen = drawn.take(np.concatenate([cats[:12], ships[:300]]))
    images = chosen.images.copy()
    images[[12, 13]] = images[[300, 301]]
    is_test = np.isin(np.arange(312), [0, 1, *range(12, 42)])
    return dataclasses.replace(
        chosen.relabel((np.arange(312) >= 12).astype(np.int64), ("cat", "ship")),
        images=images, is_test=is_test, origin="unbalanced.zip",
    )  # fmt: skip


@pytest.fixture(scope="module")
def constant(trained_runs: TrainedRuns, unbalanced: Dataset) -> Run:
    """Run that always predicts the larger class, since it was trained for one epoch."""
    path = trained_runs.folder / "constant"
    with FileLock(f"{path}.lock"):
        if not (path / MANIFEST).exists():
            from cifarml.train.trainer import train_model

            train_model(TrainConfig(num_epochs=1), unbalanced, path)
    return Run.open(path)


def without_new_keys(run: Run, folder: Path) -> Run:
    """Return a copy of a run as an earlier version wrote it."""
    shutil.copytree(run.path, folder)
    (folder / MANIFEST).unlink()
    metrics, data = run.read_json("metrics.json"), run.read_json("dataset.json")
    for name in NEW_IN_TEST:
        del metrics["test"][name]
    for name in ("classes", "warnings"):
        del data[name]
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "dataset.json", data)
    info = {name: value for name, value in run.info.items() if name not in NEW_IN_INFO}
    return write_manifest(folder, run.class_names, info)


def run_ok(cifarml: CommandLine, *arguments: object) -> str:
    done = cifarml(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_train(cifarml: CommandLine, unbalanced: Dataset, tmp_path: Path) -> None:
    save_images(unbalanced, tmp_path / "unbalanced.zip")
    train = ("train", "--data", "unbalanced.zip", "--epochs", 1)
    done = cifarml(*train, "--name", "first")
    assert done.returncode == 0, done.stderr
    for line in LINES:
        assert line in done.stdout
    assert "Uncertain: 2 test images of 'cat' (recall ±41 points, accuracy ±9)" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    before, _, _ = done.stderr.partition("fast: 1 epoch of")
    assert [*before.splitlines()][1:] == [
        "2 classes: cat 10, ship 270",
        "unbalanced.zip: 2 classes; 252 training, 28 validation, 32 test images",
        "split by folders: training 'train'; test 'test'",
        "Warning: 2 images are in both train and test",
        "Warning: imbalanced classes: 'ship' has 270 training images, 'cat' only 10",
        "Details: cifarml data check unbalanced.zip",
    ]
    assert cifarml("data", "check", "unbalanced.zip").returncode == 1

    quiet = cifarml(*train, "--name", "second", "--quiet", "--json")
    assert "Warning: 2 images are in both train and test" in quiet.stderr, "warnings are not progress"
    document = json.loads(quiet.stdout)
    assert document["classes"] == [
        {"name": "cat", "train": 9, "validation": 1, "test": 2},
        {"name": "ship", "train": 243, "validation": 27, "test": 30},
    ]
    assert document["test_never_predicted"] == ["cat"]
    assert document["test_majority_baseline"] == document["test_accuracy"] == 0.9375
    assert document["test_balanced_accuracy"] == 0.5
    assert len(document["warnings"]) == 2


def test_balanced_classes_are_quiet(cifarml: CommandLine, trained: Run) -> None:
    """With 2 test images per class, only the few images are mentioned, and what is never predicted."""
    shown = run_ok(cifarml, "evaluate", trained.path, "--data", "drawn:400", "--split", "all")
    after = shown[shown.index("Accuracy") :].splitlines()
    assert ", 95 % interval " in after[0]
    assert not any("baseline" in line or "Uncertain" in line for line in after)


def test_evaluate(cifarml: CommandLine, constant: Run, unbalanced: Dataset, tmp_path: Path) -> None:
    save_images(unbalanced, tmp_path / "unbalanced.zip")
    arguments = ("evaluate", constant.path, "--data", "unbalanced.zip", "-q")
    shown = run_ok(cifarml, *arguments, "-o", "out")
    for line in LINES:
        assert line in shown
    document = json.loads(cifarml(*arguments, "--json").stdout)
    assert set(NEW_IN_TEST) < set(document)
    assert document["never_predicted"] == ["cat"]
    assert not document["seen_in_training"]
    seen = run_ok(cifarml, *arguments, "--split", "all")
    assert "The model was trained on these images" in seen


def test_show_and_list(cifarml: CommandLine, constant: Run, trained: Run, tmp_path: Path) -> None:
    for run in (constant, trained):
        shutil.copytree(run.path, tmp_path / "runs" / run.path.name)
    shown = cifarml("runs", "show", "constant").stdout
    for line in LINES:
        assert line in shown
    listed = run_ok(cifarml, "runs", "list", "--runs-dir", "runs")
    row = next(line for line in listed.splitlines() if line.strip().startswith("constant "))
    assert row.split()[2:4] == ["93.8%", "50.0%"]
    assert "constant is no better than always predicting the largest class (93.8%)" in listed
    shutil.rmtree(tmp_path / "runs" / "constant")
    assert "balanced" not in run_ok(cifarml, "runs", "list", "--runs-dir", "runs")

    for command in (["register", constant.path], ["list"], ["show"], ["promote", "1"]):
        shown = cifarml("models", *command).stdout
        assert "cifar10:1 is no better than always predicting the largest class (93.8%)" in shown
    assert "79.9% to 98.3%" in cifarml("models", "show").stdout
    metrics = json.loads(cifarml("models", "show", "--json").stdout)["metrics"]
    assert (metrics["test_majority_baseline"], metrics["test_balanced_accuracy"]) == (0.9375, 0.5)


def test_compare(cifarml: CommandLine, constant: Run) -> None:
    shown = cifarml("runs", "compare", constant.path, constant.path).stdout
    for part in ("95 % interval", "majority baseline", "balanced accuracy", "never predicted"):
        assert part in shown
    assert "No better than always predicting 'ship' (93.8%): " in shown
    document = json.loads(cifarml("runs", "compare", constant.path, constant.path, "--json").stdout)
    assert document["comparison"]["majority_baseline"] == 0.9375
    assert document["comparison"]["models"][0]["never_predicted"] == ["cat"]


def test_old_run_folders(cifarml: CommandLine, constant: Run, tmp_path: Path) -> None:
    old = without_new_keys(constant, tmp_path / "runs" / "old")
    shown = cifarml("runs", "show", "old").stdout
    for line in LINES:
        assert line in shown, "from the confusion matrix"
    assert "old" in run_ok(cifarml, "runs", "list", "--runs-dir", "runs")
    both = cifarml("runs", "compare", "old", constant.path)
    assert both.returncode == 0, both.stderr
    assert "balanced accuracy" in both.stdout
    assert cifarml("models", "register", old.path).returncode == 0
    assert cifarml("models", "list").returncode == cifarml("models", "show").returncode == 0


def test_damaged_metrics_are_an_error(cifarml: CommandLine, constant: Run, tmp_path: Path) -> None:
    bad = without_new_keys(constant, tmp_path / "bad")
    metrics = bad.read_json("metrics.json")
    metrics["test"]["confusion"] = [[1]]
    write_json(bad.path / "metrics.json", metrics)
    write_manifest(bad.path, bad.class_names, dict(bad.info))
    done = cifarml("runs", "show", bad.path)
    assert done.returncode == 1
    assert "are damaged" in done.stderr


def test_report(constant: Run) -> None:
    page = constant.read("report.html").decode()
    classes, warning = "2 classes: cat 10, ship 270", "Data: 2 images are in both train and test"
    for part in ("majority baseline", "balanced accuracy", "Never predicted: cat", classes, warning):
        assert part in page
