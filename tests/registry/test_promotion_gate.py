"""Promotion gate: McNemar's test, recall per class, calibration, concurrent promotion."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from cifarml import Dataset, Run, load_dataset
from cifarml.cifar10 import CLASS_NAMES
from cifarml.errors import DataError, GateError, ModelFileError, RegistryError
from cifarml.evaluation.compare_models import Comparison, ModelFigures, compare_on_dataset
from cifarml.evaluation.metrics import measure_reliability
from cifarml.registry.local.registry import LocalRegistry
from cifarml.registry.promotion import compare_models, promote_if_better
from cifarml.registry.promotion_gate import GateLimits, check_gate
from cifarml.registry.run_record import RunRecord
from cifarml.run import MANIFEST, write_manifest
from tests.conftest import CommandLine
from tests.runs import TrainedRuns


@pytest.fixture(scope="module")
def test_images() -> Dataset:
    return load_dataset("drawn:1000:5")


@pytest.fixture(scope="session")
def good(trained_runs: TrainedRuns) -> Run:
    """Trained run with a much higher accuracy than `trained`."""
    return trained_runs.get("good", "drawn:800", num_epochs=4, widths=(16, 32, 32))


def comparison_of(only_first: int, only_second: int, *, num_images: int = 1000) -> Comparison:
    figures = ModelFigures("m:1", "a" * 64, "f" * 64, 0.5, 1.0, 0.05, {"cat": 0.6, "dog": 0.4})
    gain = (only_second - only_first) / num_images
    second = dataclasses.replace(figures, name="m:2", run_sha256="b" * 64, accuracy=0.5 + gain)
    counts = {"cat": num_images // 2, "dog": num_images - num_images // 2}
    return Comparison(figures, second, "here", "c" * 64, counts, only_first, only_second)


def failed(comparison: Comparison, limits: GateLimits | None = None) -> list[str]:
    return [check.name for check in check_gate(comparison, limits) if not check.holds]


def binomial_p(won: int, lost: int) -> float:
    n = won + lost
    tail = sum(math.comb(n, k) for k in range(min(won, lost) + 1)) / 2**n
    return min(1.0, 2.0 * float(tail))


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (0, 1), (5, 5), (3, 12), (40, 70), (0, 6), (200, 150)])
def test_p_value(lost: int, won: int) -> None:
    """Two-sided exact binomial test: twice the smaller tail at probability 0.5."""
    assert comparison_of(lost, won).p_value == pytest.approx(binomial_p(won, lost), rel=1e-9)


def test_interval() -> None:
    low, high = comparison_of(30, 70).interval
    assert low < 0.04 < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(100 - 1.6) / 1000, rel=0.02)
    wide = comparison_of(3, 7, num_images=100).interval
    assert wide[0] < 0 < wide[1]
    assert comparison_of(0, 0).interval[0] < 0 < comparison_of(0, 0).interval[1]


@pytest.mark.parametrize(
    ("lost", "won", "verdict"),
    [
        (10, 30, "significantly better"),
        (10, 15, "not significantly better"),
        (15, 10, "not better"),
        (5, 5, "not better"),
    ],
)
def test_accuracy_check(lost: int, won: int, verdict: str) -> None:
    check = check_gate(comparison_of(lost, won))[1]
    assert check.reason.startswith(f"{verdict}: ")
    assert check.holds == (verdict == "significantly better")
    assert f"correct on {won} images" in check.reason


def test_false_positive_rate() -> None:
    """Equally good models pass in at most 1 of 40 cases: half of the significance level of 1 in 20."""
    rng = np.random.default_rng(7)
    wins = rng.binomial(100, 0.5, size=2000)
    passed = sum(not failed(comparison_of(100 - int(won), int(won))) for won in wins)
    assert passed / 2000 < 0.025 + 3 * math.sqrt(0.025 / 2000)


def test_recall_check() -> None:
    both = comparison_of(10, 60)
    second = dataclasses.replace(both.second, recall={"cat": 0.8, "dog": 0.29})
    worse = dataclasses.replace(both, second=second)
    assert failed(worse) == ["recall per class"]
    (reason,) = (check.reason for check in check_gate(worse) if not check.holds)
    assert "dog (40% to 29% of 500 images)" in reason
    assert failed(worse, GateLimits(max_class_loss=0.11)) == []
    assert failed(both, GateLimits(max_class_loss=0)) == [], "equal recall passes"


def test_calibration_check() -> None:
    both = comparison_of(10, 60)
    off = dataclasses.replace(both, second=dataclasses.replace(both.second, calibration_error=0.08))
    assert failed(off) == ["calibration"]
    assert failed(off, GateLimits(max_calibration_loss=0.04)) == []


def test_majority_baseline_check() -> None:
    """A model that always predicts the largest class beats a poor champion, but is not promoted."""
    both = comparison_of(10, 60)
    counts = {"cat": 900, "dog": 100}
    first = dataclasses.replace(both.first, accuracy=0.85, recall={"cat": 0.944, "dog": 0.0})
    constant = dataclasses.replace(both.second, accuracy=0.9, recall={"cat": 1.0, "dog": 0.0})
    worse = dataclasses.replace(both, first=first, second=constant, class_counts=counts)
    assert failed(worse) == ["majority baseline"]
    reason = check_gate(worse)[-1].reason
    assert "m:2 is no better (90.0%, balanced accuracy 50.0%) than always predicting 'cat' (90.0%)" in reason
    assert worse.summary.endswith("No better than always predicting 'cat' (90.0%): m:1 and m:2.")
    assert failed(both) == []


def test_different_training_data_is_reported() -> None:
    both = comparison_of(10, 60)
    other = dataclasses.replace(both, second=dataclasses.replace(both.second, trained_on="e" * 64))
    assert "training data differ" in check_gate(other)[0].reason
    assert "training data differ" not in check_gate(both)[0].reason


def test_calibration_error() -> None:
    """Confidence 0.8 has error 0 at an accuracy of 80 %, and error 0.2 at 100 %."""

    def calibration_error(probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
        return measure_reliability(probabilities, labels).calibration_error

    confident = np.tile(np.array([[0.8, 0.2]], np.float32), (10, 1))
    assert calibration_error(confident, np.array([0] * 8 + [1] * 2)) == pytest.approx(0, abs=1e-6)
    assert calibration_error(confident, np.zeros(10, np.int64)) == pytest.approx(0.2, abs=1e-6)
    certain = np.tile(np.array([[1.0, 0.0]], np.float32), (10, 1))
    assert calibration_error(certain, np.ones(10, np.int64)) == pytest.approx(1.0)
    two_bins = np.concatenate([confident, certain])
    assert calibration_error(two_bins, np.zeros(20, np.int64)) == pytest.approx(0.1, abs=1e-6)


def test_gate_with_trained_models(good: Run, trained: Run, test_images: Dataset) -> None:
    both = compare_on_dataset(trained, good, test_images, names=("old", "new"))
    assert both.second.accuracy - both.first.accuracy == pytest.approx(
        (both.num_only_second - both.num_only_first) / both.num_images
    )
    assert both.num_images == len(test_images)
    assert check_gate(both)[1].holds
    json.dumps(both.to_json(), allow_nan=False)
    same = compare_on_dataset(good, good, test_images)
    assert (same.num_only_first, same.num_only_second, same.p_value) == (0, 0, 1.0)
    assert failed(same) == ["accuracy"]


@pytest.mark.filterwarnings("ignore")  # SQLAlchemy warns about its use by MLflow
def test_promotion_logs_a_comparison_run(good: Run, trained: Run, test_images: Dataset) -> None:
    registry = LocalRegistry()
    old, new = registry.register(trained), registry.register(good)
    limits = GateLimits(max_class_loss=1, max_calibration_loss=1)
    done = promote_if_better(registry, new, test_images, limits=limits)
    assert registry.get("cifar10", "champion").version == new.version
    assert done.comparison is not None
    compare_models(registry, old, new, test_images)
    from mlflow import MlflowClient

    registry.update_mlflow()
    client = MlflowClient(f"sqlite:///{registry.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("cifar10")
    assert experiment
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'comparison'")
    assert [run.info.run_name for run in runs] == ["cifar10:1 and cifar10:2"], (
        "repeating it logs no second run"
    )
    metrics = runs[0].data.metrics
    assert metrics["cifar10_1/accuracy"] == pytest.approx(done.comparison.first.accuracy)
    assert metrics["cifar10_2/accuracy"] == pytest.approx(done.comparison.second.accuracy)
    assert metrics["p_value"] == pytest.approx(done.comparison.p_value)
    assert {f"cifar10_2/recall_{name}" for name in CLASS_NAMES} <= set(metrics)
    assert len(registry.list_runs()) == 2, "comparisons are not training runs"

    with pytest.raises(GateError, match="not better") as caught:
        promote_if_better(registry, old, test_images)
    assert "cifar10:2 remains champion" in caught.value.message
    assert registry.get("cifar10", "champion").version == new.version
    assert promote_if_better(registry, new, test_images).comparison is None, "already champion"


class ConcurrentlyPromoted(LocalRegistry):
    """Registry in which another version is promoted during the comparison."""

    def insert_run(self, run: RunRecord) -> str:
        run_id = super().insert_run(run)
        self.set_alias(self.get("cifar10", "3"))
        return run_id


def test_concurrent_promotion_is_detected(good: Run, trained: Run, tmp_path: Path) -> None:
    registry = ConcurrentlyPromoted()
    registry.register(trained)
    new = registry.register(good)
    shutil.copytree(good.path, tmp_path / "third")
    (tmp_path / "third" / MANIFEST).unlink()
    (tmp_path / "third" / "history.json").write_text("{}")
    third = registry.register(write_manifest(tmp_path / "third", good.class_names, dict(good.info)))
    assert third.version == "3"
    limits = GateLimits(max_class_loss=1, max_calibration_loss=1)
    with pytest.raises(RegistryError, match="cifar10:3 became champion"):
        promote_if_better(registry, new, load_dataset("drawn:1000:5"), limits=limits)
    assert registry.get("cifar10", "champion").version == "3"


def test_invalid_comparisons(trained: Run, drawn: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        compare_on_dataset(trained, trained, drawn.take(np.array([], np.int64)))
    unknown = dataclasses.replace(drawn, class_names=tuple("abcdefghij"))
    with pytest.raises(DataError, match="has no class 'a'"):
        compare_on_dataset(trained, trained, unknown)
    registry = LocalRegistry()
    model = registry.register(trained)
    second = registry.set_alias(model, "challenger")
    with pytest.raises(RegistryError):
        compare_models(registry, model, dataclasses.replace(model, version="9"), drawn)
    (registry.folder / "models" / "cifar10" / "1" / "model.onnx").write_bytes(b"gone")
    with pytest.raises(ModelFileError):
        compare_models(registry, model, second, drawn)


def run_ok(cifarml: CommandLine, *arguments: object) -> str:
    done = cifarml(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_compare_and_promote_commands(cifarml: CommandLine, good: Run, trained: Run) -> None:
    for run in (trained, good):
        run_ok(cifarml, "models", "register", run.path)
    data: Sequence[object] = ("--data", "drawn:2000:5", "-q")
    output = run_ok(cifarml, "models", "compare", "champion", "challenger", *data)
    for part in ("recall of ship", "95 % confidence", "McNemar", "calibration"):
        assert part in output
    document = json.loads(run_ok(cifarml, "models", "compare", "1", "2", *data, "--json"))
    assert [each["name"] for each in document["models"]] == ["cifar10:1", "cifar10:2"]
    assert {"name", "holds", "reason"} == set(document["checks"][0])

    wrong = cifarml("models", "promote", "2", "--if-better", "--alias", "best")
    assert wrong.returncode == 1
    assert "--if-better --alias best" in wrong.stderr
    run_ok(cifarml, "models", "promote", "2")
    refused = cifarml("models", "promote", "1", "--if-better", *data)
    assert refused.returncode == 1
    assert "cifar10:2 remains champion" in refused.stderr
    assert "cifarml models promote cifar10:1" in refused.stderr


def test_runs_list_shows_logged_runs(cifarml: CommandLine, trained: Run, tmp_path: Path) -> None:
    copy = Run.open(shutil.copytree(trained.path, tmp_path / "elsewhere" / "trained"))
    run_ok(cifarml, "models", "register", copy.path)
    (found,) = json.loads(run_ok(cifarml, "runs", "list", "--json"))
    assert (found["name"], found["state"]) == ("trained", "finished")
    assert found["test_accuracy"] == pytest.approx(trained.info["test_accuracy"])
    assert found["path"] == str(copy.path.resolve())
    assert "trained" in run_ok(cifarml, "runs", "list")
    shutil.rmtree(copy.path)
    assert json.loads(run_ok(cifarml, "runs", "list", "--json"))[0]["state"] == "deleted"
    assert json.loads(run_ok(cifarml, "runs", "list", "--runs-dir", "runs", "--json")) == []
