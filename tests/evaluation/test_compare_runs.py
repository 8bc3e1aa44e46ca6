"""Two runs side by side: what differs, and whether it is more than noise."""

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
    """A run on the same images as `trained`, with other settings."""
    return trained_runs.get("longer", num_epochs=3, seed=1, batch_size=32)


def rewritten(run: Run, folder: Path, **files: object) -> Run:
    """A copy of a run with other JSON files, or without those that are None."""
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


def answering(run: Run, folder: Path, right: np.ndarray, fingerprint: str = "f" * 64) -> Run:
    """A run that named just these of many images rightly."""
    labels = np.arange(len(right)) % 10
    answers = Answers(fingerprint, labels, np.where(right, labels, (labels + 1) % 10))
    return rewritten(run, folder, answers=answers.to_json())


def test_a_run_keeps_its_answers(trained: Run, drawn: Dataset) -> None:
    answers = Answers.read(trained)
    assert answers
    assert answers.fingerprint == drawn.test.fingerprint
    np.testing.assert_array_equal(answers.labels, drawn.test.labels)
    probabilities = Run.open(trained.path).predictor().predict_images(drawn.test.images)
    np.testing.assert_array_equal(answers.predicted, probabilities.argmax(axis=1))


def test_kept_answers_say_what_asking_again_says(trained: Run, longer: Run, drawn: Dataset) -> None:
    kept = compare_runs(trained, longer)
    again = compare_runs(trained, longer, drawn.test)
    assert kept.comparison
    assert again.comparison
    assert kept.comparison == again.comparison
    assert kept.verdict == again.verdict
    accuracies = trained.info["test_accuracy"], longer.info["test_accuracy"]
    assert (kept.first.figures.accuracy, kept.second.figures.accuracy) == accuracies
    gain = (kept.comparison.num_only_second - kept.comparison.num_only_first) / 20
    assert gain == pytest.approx(accuracies[1] - accuracies[0])


def test_settings_that_differ(trained: Run, longer: Run) -> None:
    both = compare_runs(trained, longer)
    assert both.differing == {"seed": (0, 1), "num_epochs": (2, 3), "batch_size": (64, 32)}
    assert compare_runs(trained, trained).differing == {}
    assert both.first.model_bytes == (trained.path / "model.onnx").stat().st_size
    config = trained.read_json("config.json")
    del config["mixing"]
    assert RunFigures.read(trained, "x").config != config


def test_settings_that_one_does_not_have(trained: Run, tmp_path: Path) -> None:
    config = trained.read_json("config.json")
    config["distilled_from"] = "wide"
    mixing = config.pop("mixing")
    other = rewritten(trained, tmp_path / "other", config=config)
    assert compare_runs(trained, other).differing == {
        "mixing": (mixing, None),
        "distilled_from": (None, "wide"),
    }


@pytest.mark.parametrize(
    ("lost", "won", "said"),
    [
        (10, 40, "b is better than a, beyond noise: b is right about 40 images where a is wrong, and the"),
        (40, 10, "b is worse than a, beyond noise: b is right about 10 images"),
        (20, 30, "No difference beyond noise: b is right about 30 images"),
        (0, 0, "No difference beyond noise: b is right about 0 images"),
        (0, 5, "No difference beyond noise"),
        (0, 6, "b is better than a, beyond noise"),
    ],
)
def test_nobody_calls_noise_an_improvement(
    trained: Run, tmp_path: Path, lost: int, won: int, said: str
) -> None:
    first, second = np.zeros(1000, np.bool_), np.zeros(1000, np.bool_)
    first[:500] = second[:500] = True
    first[500 : 500 + lost] = second[600 : 600 + won] = True
    both = compare_runs(answering(trained, tmp_path / "a", first), answering(trained, tmp_path / "b", second))
    assert both.comparison
    assert both.verdict.startswith(said)
    assert (both.comparison.num_only_first, both.comparison.num_only_second) == (lost, won)
    low, high = both.comparison.interval
    assert f"{low:+.1%} to {high:+.1%} (95 % confidence)" in both.verdict
    assert "McNemar" in both.verdict


def test_other_test_images_are_told(trained: Run, tmp_path: Path) -> None:
    right = np.ones(50, np.bool_)
    a, b = (answering(trained, tmp_path / name, right, name * 64) for name in "ab")
    both = compare_runs(a, b)
    assert both.comparison is None
    assert "tested on different images, a on 50 of drawn:200" in both.verdict
    shorter = answering(trained, tmp_path / "shorter", right[:40], "a" * 64)
    assert compare_runs(a, shorter).comparison is None, "damaged, at the least"


def test_a_run_without_answers(trained: Run, tmp_path: Path, drawn: Dataset) -> None:
    old = rewritten(trained, tmp_path / "old", answers=None)
    both = compare_runs(trained, old)
    assert both.comparison is None
    assert both.verdict == "Nobody knows which is better: old has kept no answers on its test images"
    asked = compare_runs(trained, old, drawn.test).comparison
    assert asked
    assert asked.num_only_first == asked.num_only_second == 0


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
def test_damaged_answers(trained: Run, tmp_path: Path, values: object) -> None:
    bad = rewritten(trained, tmp_path / "bad", answers=values)
    with pytest.raises(ModelFileError, match=r"answers\.json is damaged"):
        compare_runs(trained, bad)


def test_damaged_figures(trained: Run, tmp_path: Path) -> None:
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


def test_images_of_other_classes(trained: Run, longer: Run, drawn: Dataset) -> None:
    strange = drawn.relabel(drawn.labels, tuple("abcdefghij"))
    with pytest.raises(DataError, match="does not know 'a'"):
        compare_runs(trained, longer, strange)


def test_command_line(cifarml: CommandLine, trained: Run, longer: Run, tmp_path: Path) -> None:
    done = cifarml("runs", "compare", trained.path, longer.path)
    assert done.returncode == 0, done.stderr
    for told in ("num_epochs", "On the same 20 test images of drawn:200", "recall of ship",
                 "calibration error", "images/s", "497,538", "model.onnx", "McNemar", "95 %"):  # fmt: skip
        assert told in done.stdout, told
    assert "learning_rate" not in done.stdout, "what is the same is not shown"
    document = json.loads(cifarml("runs", "compare", trained.path, longer.path, "--json").stdout)
    assert [run["name"] for run in document["runs"]] == ["trained", "longer"]
    assert document["differing_settings"]["num_epochs"] == [2, 3]
    assert set(document["comparison"]) >= {"p_value", "gain_interval_95", "num_only_first", "num_images"}

    other = rewritten(trained, tmp_path / "runs" / "other", answers=None)
    told = cifarml("runs", "compare", trained.path, "other").stdout
    assert "Nobody knows which is better: other has kept no answers" in told
    assert "--data" in told
    asked = cifarml("runs", "compare", trained.path, "other", "--data", "drawn:400:9", "-q")
    assert asked.returncode == 0, asked.stderr
    assert "No difference beyond noise" in asked.stdout
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


def test_real_noise(trained: Run, longer: Run) -> None:
    """Twenty test images prove little: only a large gain is told as one."""
    found = compare_runs(trained, longer, load_dataset("drawn:200:7")).comparison
    assert found
    low, high = found.interval
    assert low < found.second.accuracy - found.first.accuracy < high
