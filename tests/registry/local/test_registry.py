"""The registry on this machine: MLflow reads it, and nothing half-done is ever seen."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from cifarml import Run
from cifarml.errors import ModelFileError, RegistryError
from cifarml.registry.local.registry import LocalRegistry
from tests.processes import forking_context
from tests.runs import MakeRun


@pytest.fixture
def registry(local_registry: LocalRegistry) -> LocalRegistry:
    return local_registry


def test_mlflow_reads_it(registry: LocalRegistry, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """With MLflow's own client: the run with its metrics by epoch, the versions and their aliases."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    first = make_run(1)
    registry.register(first)
    registry.register(make_run(2))
    registry.delete(registry.register(make_run(3)))
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{registry.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("cifar10")
    assert experiment
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"run1", "run2", "run3"}
    run = runs["run1"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_accuracy"] == first.info["test_accuracy"]
    assert run.data.params["num_epochs"] == "2"
    assert run.data.tags["dataset_fingerprint"] == first.info["dataset_fingerprint"]
    history = first.read_json("history.json")
    for name, values in history.items():
        if name in run.data.metrics:
            found = client.get_metric_history(run.info.run_id, name)
            assert [(each.step, each.value) for each in found] == [
                (epoch, pytest.approx(value)) for epoch, value in enumerate(values, 1)
            ]
            assert run.data.metrics[name] == pytest.approx(values[-1])
    assert set(history) <= set(run.data.metrics)
    model = client.get_registered_model("cifar10")
    assert {alias: str(version) for alias, version in model.aliases.items()} == {"champion": "1"}
    versions = client.search_model_versions("name = 'cifar10'")
    assert sorted(each.version for each in versions) in (["1", "2"], [1, 2])
    assert client.get_model_version_by_alias("cifar10", "champion").run_id == run.info.run_id
    # and what MLflow writes we read
    client.set_registered_model_alias("cifar10", "champion", "2")
    assert registry.get().version == "2"


def test_the_first_use_makes_the_tables(tmp_path: Path, make_run: MakeRun) -> None:
    registry = LocalRegistry(tmp_path / "new" / "registry")
    assert registry.list_models() == []
    assert registry.list_runs() == []
    assert not registry.folder.exists()  # looking makes nothing
    assert registry.register(make_run(1)).version == "1"
    assert [run.name for run in registry.list_runs()] == ["run1"]
    assert registry.ui_command.endswith(f"sqlite:///{registry.folder}/mlflow.db")


def test_log_run_is_safe_to_repeat(registry: LocalRegistry, make_run: MakeRun) -> None:
    first = make_run(1)
    assert registry.log_run(first) == registry.log_run(first)
    registry.register(first)
    (run,) = registry.list_runs()
    assert (run.name, run.path, run.info["run_sha256"]) == ("run1", first.path, first.sha256)
    assert run.info["test_accuracy"] == first.info["test_accuracy"]


def _register(folder: str, path: str) -> None:
    LocalRegistry(folder).register(Run.open(path))


def test_killed_at_random_moments(registry: LocalRegistry, make_run: MakeRun) -> None:
    context = forking_context()
    moments = random.Random(7)
    runs = [make_run(number) for number in range(3)]
    killed = 0
    for number in range(30):
        process = context.Process(target=_register, args=(str(registry.folder), str(runs[number % 3].path)))
        process.start()
        time.sleep(moments.uniform(0, 0.06))
        if process.pid and process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.join()
        for model in registry.list_models():  # what looks registered is
            registry.download(model, registry.folder.parent / f"{number}-{model.version}").verify()
    assert killed
    for run in runs:
        registry.register(run)
    models = registry.list_models()
    assert sorted(model.run_sha256 for model in models) == sorted(run.sha256 for run in runs)
    folder = registry.folder / "models" / "cifar10"
    assert sorted(path.name for path in folder.iterdir()) == sorted(model.version for model in models)


def test_two_processes_register_at_once(registry: LocalRegistry, make_run: MakeRun) -> None:
    context = forking_context()
    work = [make_run(number) for number in (1, 1, 2, 2)]
    processes = [
        context.Process(target=_register, args=(str(registry.folder), str(run.path))) for run in work
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert [model.version for model in registry.list_models()] == ["1", "2"]


def test_damaged_files_are_found_and_put_back(
    registry: LocalRegistry, make_run: MakeRun, tmp_path: Path
) -> None:
    model = registry.register(make_run(1))
    (registry.folder / "models" / "cifar10" / "1" / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(ModelFileError, match="changed") as caught:
        registry.download(model, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert caught.value.hint
    shutil.rmtree(registry.folder / "models" / "cifar10" / "1")
    with pytest.raises(ModelFileError, match="damaged") as caught:
        registry.download(model, tmp_path / "copy")
    assert "models register run1" in str(caught.value.hint)
    assert registry.register(make_run(1)) == model
    registry.download(model, tmp_path / "copy").verify()


@pytest.mark.parametrize("content", [b"no database at all", b"", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_database_is_told(registry: LocalRegistry, make_run: MakeRun, content: bytes) -> None:
    (registry.folder / "mlflow.db").write_bytes(content)
    for work in (registry.list_models, registry.list_runs, lambda: registry.register(make_run(1))):
        with pytest.raises(RegistryError, match=r"mlflow\.db") as caught:
            work()
        assert caught.value.hint
    assert (registry.folder / "mlflow.db").read_bytes() == content


def test_a_full_disk_leaves_nothing(registry: LocalRegistry, make_run: MakeRun) -> None:
    registry.register(make_run(1))
    with sqlite3.connect(registry.folder / "mlflow.db") as database:
        size = database.execute("PRAGMA page_count").fetchone()[0]
    database.close()
    connect = registry._database._connect

    def full() -> sqlite3.Connection:
        connection = connect()
        connection.execute(f"PRAGMA max_page_count = {size}")
        return connection

    registry._database._connect = full  # type: ignore[method-assign]

    def fill() -> None:
        for number in range(2, 60):
            registry.register(make_run(number))

    with pytest.raises(RegistryError, match="full") as caught:
        fill()
    assert "room" in str(caught.value.hint)
    registry._database._connect = connect  # type: ignore[method-assign]
    versions = [model.version for model in registry.list_models()]
    folder = registry.folder / "models" / "cifar10"
    registry.register(make_run(1))
    assert sorted(path.name for path in folder.iterdir()) == sorted(versions)


def test_a_folder_that_cannot_be_made(tmp_path: Path, make_run: MakeRun) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError, match="can't write") as caught:
        LocalRegistry(tmp_path / "file" / "registry").register(make_run(1))
    assert "CIFARML_REGISTRY_DIR" in str(caught.value.hint)
