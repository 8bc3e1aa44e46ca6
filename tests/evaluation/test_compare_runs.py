"""Comparison of two runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cifarml import Dataset, Run, compare_runs, load_dataset
from cifarml.errors import DataError, ModelFileError
from cifarml.evaluation.compare_runs import Answers, RunFigures
from cifarml.run import MANIFEST, write_json, write_manifest
from tests.conftest import CommandLine
from tests.runs import TrainedRuns


@pytest.fixture(scope="session")
def longer(trained_runs: TrainedRuns) -> Run:
    """Run on the same images as `trained`, with other settings."""
    return trained_runs.get("longer", num_epochs=3, seed=1, batch_size=32)


def rewritten(run: Run, folder: Path, **files: object) -> Run:
    """Return a copy of a run with replaced JSON files, and without those that are None."""
    shutil.copytree(run.path, folder)
    (folder / MANIFEST).unlink()
    info = dict(run.info)
    for name, values in files.items():
        if name == "info":
            assert isinstance(values, dict)
            info |= values
        elif values is None:
            (folder / f"{name}.json").unlink()
        else:
            write_json(folder / f"{name}.json", values)
    return write_manifest(folder, run.class_names, info)


def with_predictions(run: Run, folder: Path, right: np.ndarray, fingerprint: str = "f" * 64) -> Run:
    """Return a copy of a run whose predictions are correct on the given images only."""
    labels = np.arange(len(right)) % 10
    answers = Answers(fingerprint, labels, np.where(right, labels, (labels + 1) % 10))
    return rewritten(run, folder, answers=answers.to_json())


def test_run_stores_its_predictions(trained: Run, drawn: Dataset) -> None:
    answers = Answers.read(trained)
    assert answers
    assert answers.fingerprint == drawn.test.fingerprint
    np.testing.assert_array_equal(answers.labels, drawn.test.labels)
    probabilities = trained.predictor().predict_images(drawn.test.images)
    np.testing.assert_array_equal(answers.predicted, probabilities.argmax(axis=1))


def test_stored_predictions_match_new_ones(trained: Run, longer: Run, drawn: Dataset) -> None:
    stored = compare_runs(trained, longer)
    predicted = compare_runs(trained, longer, drawn.test)
    assert stored.comparison
    assert predicted.comparison
    assert stored.comparison == predicted.comparison
    assert stored.verdict == predicted.verdict
    accuracies = trained.info["test_accuracy"], longer.info["test_accuracy"]
    assert (stored.first.figures.accuracy, stored.second.figures.accuracy) == accuracies
    gain = (stored.comparison.num_only_second - stored.comparison.num_only_first) / 20
    assert gain == pytest.approx(accuracies[1] - accuracies[0])


def test_differing_settings(trained: Run, longer: Run) -> None:
    both = compare_runs(trained, longer)
    assert both.differing == {"seed": (0, 1), "num_epochs": (2, 3), "batch_size": (64, 32)}
    assert compare_runs(trained, trained).differing == {}
    assert both.first.model_bytes == (trained.path / "model.onnx").stat().st_size
    config = trained.read_json("config.json")
    del config["mixing"]
    assert RunFigures.read(trained, "x").config != config


def test_settings_missing_in_one_run(trained: Run, tmp_path: Path) -> None:
    config = trained.read_json("config.json")
    config["distilled_from"] = "wide"
    mixing = config.pop("mixing")
    other = rewritten(trained, tmp_path / "other", config=config)
    assert compare_runs(trained, other).differing == {
        "mixing": (mixing, None),
        "distilled_from": (None, "wide"),
    }


@pytest.mark.parametrize(
    ("lost", "won", "verdict"),
    [
        (
            10,
            40,
            "b is significantly better than a: b is correct on 40 images that a gets wrong, a on 10 that",
        ),
        (40, 10, "b is significantly worse than a: b is correct on 10 images"),
        (20, 30, "No significant difference: b is correct on 30 images"),
        (0, 0, "No significant difference: b is correct on 0 images"),
        (0, 5, "No significant difference"),
        (0, 6, "b is significantly better than a"),
    ],
)
def test_verdict_depends_on_significance(
    trained: Run, tmp_path: Path, lost: int, won: int, verdict: str
) -> None:
    first, second = np.zeros(1000, np.bool_), np.zeros(1000, np.bool_)
    first[:500] = second[:500] = True
    first[500 : 500 + lost] = second[600 : 600 + won] = True
    both = compare_runs(
        with_predictions(trained, tmp_path / "a", first), with_predictions(trained, tmp_path / "b", second)
    )
    assert both.comparison
    assert both.verdict.startswith(verdict)
    assert (both.comparison.num_only_first, both.comparison.num_only_second) == (lost, won)
    low, high = both.comparison.interval
    assert f"{low:+.1%} to {high:+.1%} (95 % confidence interval)" in both.verdict
    assert "McNemar" in both.verdict


def test_runs_with_different_test_images(trained: Run, tmp_path: Path) -> None:
    right = np.ones(50, np.bool_)
    a, b = (with_predictions(trained, tmp_path / name, right, name * 64) for name in "ab")
    both = compare_runs(a, b)
    assert both.comparison is None
    assert "tested on different images, a on 50 of drawn:200" in both.verdict
    shorter = with_predictions(trained, tmp_path / "shorter", right[:40], "a" * 64)
    assert compare_runs(a, shorter).comparison is None


def test_run_without_stored_predictions(trained: Run, tmp_path: Path, drawn: Dataset) -> None:
    old = rewritten(trained, tmp_path / "old", answers=None)
    both = compare_runs(trained, old)
    assert both.comparison is None
    assert both.verdict == "Cannot tell which is better: old has no stored predictions on its test images"
    comparison = compare_runs(trained, old, drawn.test).comparison
    assert comparison
    assert comparison.num_only_first == comparison.num_only_second == 0


@pytest.mark.parametrize(
    "values",
    [
        {"labels": [1], "predicted": [1]},
        {"fingerprint": "f", "labels": [1, 2], "predicted": [1]},
        {"fingerprint": "f", "labels": [[1]], "predicted": [[1]]},
        {"fingerprint": "f", "labels": ["x"], "predicted": ["y"]},
        {"fingerprint": "f", "labels": [10**30], "predicted": [1]},
        {"fingerprint": "f", "labels": None, "predicted": [1]},
        [1, 2],
    ],
)
def test_damaged_predictions(trained: Run, tmp_path: Path, values: object) -> None:
    bad = rewritten(trained, tmp_path / "bad", answers=values)
    with pytest.raises(ModelFileError, match=r"answers\.json is damaged"):
        compare_runs(trained, bad)


def test_damaged_metrics(trained: Run, tmp_path: Path) -> None:
    damages: list[dict[str, object]] = [
        {"metrics": {}},
        {"metrics": [1]},
        {"config": [1]},
        {"info": {"training_s": None}},
    ]
    for number, files in enumerate(damages):
        bad = rewritten(trained, tmp_path / str(number), **files)
        with pytest.raises(ModelFileError, match="are damaged"):
            compare_runs(bad, trained)
    changed = rewritten(trained, tmp_path / "changed")
    (changed.path / "answers.json").write_text("{}")
    with pytest.raises(ModelFileError, match="changed after training"):
        compare_runs(trained, changed)


def test_images_of_unknown_classes(trained: Run, longer: Run, drawn: Dataset) -> None:
    strange = drawn.relabel(drawn.labels, tuple("abcdefghij"))
    with pytest.raises(DataError, match="has no class 'a'"):
        compare_runs(trained, longer, strange)


def test_command_line(cifarml: CommandLine, trained: Run, longer: Run, tmp_path: Path) -> None:
    done = cifarml("runs", "compare", trained.path, longer.path)
    assert done.returncode == 0, done.stderr
    for part in ("num_epochs", "On the same 20 test images of drawn:200", "recall of ship",
                 "calibration error", "images/s", "497,538", "model.onnx", "McNemar", "95 %"):  # fmt: skip
        assert part in done.stdout, part
    assert "learning_rate" not in done.stdout, "equal settings are not shown"
    document = json.loads(cifarml("runs", "compare", trained.path, longer.path, "--json").stdout)
    assert [run["name"] for run in document["runs"]] == ["trained", "longer"]
    assert document["differing_settings"]["num_epochs"] == [2, 3]
    assert set(document["comparison"]) >= {"p_value", "gain_interval_95", "num_only_first", "num_images"}

    other = rewritten(trained, tmp_path / "runs" / "other", answers=None)
    shown = cifarml("runs", "compare", trained.path, "other").stdout
    assert "Cannot tell which is better: other has no stored predictions" in shown
    assert "--data" in shown
    evaluated = cifarml("runs", "compare", trained.path, "other", "--data", "drawn:400:9", "-q")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "No significant difference" in evaluated.stdout
    assert other.path.is_dir()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none", "latest"], 1, "no run 'none'"),
        (["none", "latest", "--subset", 20], 1, "--subset without --data"),
        (["one"], 2, "Missing argument"),
        ([], 2, "Missing argument"),
    ],
)
def test_command_line_errors(cifarml: CommandLine, arguments: list[object], code: int, message: str) -> None:
    done = cifarml("runs", "compare", *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert not done.stdout


def test_interval_contains_the_measured_gain(trained: Run, longer: Run) -> None:
    found = compare_runs(trained, longer, load_dataset("drawn:200:7")).comparison
    assert found
    low, high = found.interval
    assert low < found.second.accuracy - found.first.accuracy < high
