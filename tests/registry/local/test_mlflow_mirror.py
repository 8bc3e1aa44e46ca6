"""MLflow mirror of the local registry: content, interrupted and concurrent updates, damaged database."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from cifarml.doctor import Check, run_checks
from cifarml.errors import RegistryError
from cifarml.registry.local import mlflow_mirror
from cifarml.registry.local.mlflow_mirror import mirror_failure, update_mirror
from cifarml.registry.local.registry import LocalRegistry
from cifarml.settings import Settings
from tests.processes import forking_context, run_new
from tests.runs import MakeRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.filterwarnings("ignore")  # SQLAlchemy warns about its use by MLflow


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def empty_mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow database without runs; MLflow takes seconds to create its tables."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    client_of(path).search_experiments()
    return path


@pytest.fixture
def registry(own_cache: Path, empty_mirror: Path) -> LocalRegistry:
    folder = own_cache / "registry"
    folder.mkdir()
    shutil.copyfile(empty_mirror, folder / "mlflow.db")
    return LocalRegistry()


def client_of(path: Path) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{path}", f"sqlite:///{path}")


def read_mirror(registry: LocalRegistry) -> tuple[MlflowClient, dict[str, Any]]:
    """Return the MLflow client and its runs by name, after checking that no name occurs twice."""
    client = client_of(registry.folder / "mlflow.db")
    experiment = client.get_experiment_by_name("cifar10")
    assert experiment
    found = list(client.search_runs([experiment.experiment_id]))
    runs = {str(run.info.run_name): run for run in found}
    assert len(runs) == len(found)
    return client, runs


def check_versions(registry: LocalRegistry, client: MlflowClient) -> None:
    """Check that MLflow has the same version numbers, aliases and runs as the registry."""
    for name in {model.name for model in registry.list_models()}:
        models = {int(model.version): model for model in registry.list_models(name)}
        versions = {int(each.version): each for each in client.search_model_versions(f"name = '{name}'")}
        assert sorted(versions) == sorted(models)
        for number, version in versions.items():
            assert version.tags["run_sha256"] == models[number].run_sha256
            assert client.get_run(version.run_id or "").data.tags["run_sha256"] == models[number].run_sha256
        aliases = {a: int(n) for a, n in client.get_registered_model(name).aliases.items()}
        assert aliases == {alias: n for n, model in models.items() for alias in model.aliases}


def test_mlflow_shows_runs_and_versions(registry: LocalRegistry, make_run: MakeRun) -> None:
    """Runs have metrics by epoch; version numbers are equal despite two deleted versions."""
    first = make_run(1)
    registry.register(first)
    for number in (2, 3):
        registry.delete(registry.register(make_run(number)))
    registry.register(make_run(4))
    registry.register(make_run(4), "pets")
    update_mirror(registry.folder)
    client, runs = read_mirror(registry)
    assert set(runs) == {"run1", "run2", "run3", "run4"}
    check_versions(registry, client)
    run = runs["run1"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_accuracy"] == first.info["test_accuracy"]
    assert run.data.params["num_epochs"] == "2"
    assert run.data.tags["dataset_fingerprint"] == first.info["dataset_fingerprint"]
    history = first.read_json("history.json")
    for name, values in history.items():
        found = client.get_metric_history(run.info.run_id, name)
        expected: list[object] = [(epoch, pytest.approx(value)) for epoch, value in enumerate(values, 1)]
        assert [(each.step, each.value) for each in found] == expected
        assert run.data.metrics[name] == pytest.approx(values[-1])

    registry.set_alias(registry.get("cifar10", "4"))
    registry.set_alias(registry.get("cifar10", "4"), "best")
    update_mirror(registry.folder)
    check_versions(registry, client)
    registry.set_alias(registry.get("cifar10", "1"))
    registry.delete(registry.get("cifar10", "4"))
    registry.register(make_run(5))
    update_mirror(registry.folder)
    client, runs = read_mirror(registry)
    check_versions(registry, client)
    assert len(runs) == 5


def test_versions_of_others_are_not_changed(registry: LocalRegistry, make_run: MakeRun) -> None:
    """A tag identifies the mirrored versions if another program has used their numbers."""
    client = client_of(registry.folder / "mlflow.db")
    client.create_registered_model("cifar10")
    client.create_model_version("cifar10", "file:///elsewhere")
    client.set_registered_model_alias("cifar10", "theirs", "1")
    registry.register(make_run(1))
    update_mirror(registry.folder)
    versions = {int(each.version): each for each in client.search_model_versions("name = 'cifar10'")}
    assert versions[1].source == "file:///elsewhere"
    assert versions[2].tags["cifarml_version"] == "1"
    client.delete_model_version("cifar10", "2")
    client.delete_run(versions[2].run_id or "")
    client.delete_experiment(client.get_experiment_by_name("cifar10").experiment_id)  # type: ignore[union-attr]
    registry.register(make_run(2))
    update_mirror(registry.folder)
    versions = {int(each.version): each for each in client.search_model_versions("name = 'cifar10'")}
    shown = {number: each.tags.get("cifarml_version") for number, each in versions.items()}
    assert shown == {1: None, 3: "1", 4: "2"}
    aliases = {alias: int(number) for alias, number in client.get_registered_model("cifar10").aliases.items()}
    assert aliases == {"theirs": 1, "champion": 3, "challenger": 4}


def kill_before(step: int, folder: str) -> None:
    """Update the mirror, and kill this process before the ``step``-th database statement."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    statements = 0

    def count_statements(*_: object) -> None:
        nonlocal statements
        statements += 1
        if statements == step:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", count_statements)
    event.listen(Engine, "commit", count_statements)
    update_mirror(Path(folder))


def test_update_after_a_killed_update(registry: LocalRegistry, make_run: MakeRun, tmp_path: Path) -> None:
    registry.register(make_run(1))
    registry.delete(registry.register(make_run(2)))
    registry.register(make_run(3))
    killed = 0
    for step in (50, 90, 130, 170):
        process = forking_context().Process(target=kill_before, args=(step, str(registry.folder)))
        process.start()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    assert killed >= 3
    update_mirror(registry.folder)
    client, runs = read_mirror(registry)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert set(runs) == {"run1", "run2", "run3"}
    check_versions(registry, client)


@pytest.mark.exhaustive
def test_update_after_a_killed_creation(own_cache: Path, make_run: MakeRun) -> None:
    registry = LocalRegistry()
    registry.register(make_run(1))
    process = forking_context().Process(target=kill_before, args=(60, str(registry.folder)))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (registry.folder / "mlflow.db").exists()
    registry.update_mlflow()
    client, runs = read_mirror(registry)
    assert set(runs) == {"run1"}
    check_versions(registry, client)
    assert not list(registry.folder.glob(".mlflow.partial"))


@pytest.mark.exhaustive
def test_concurrent_updates(registry: LocalRegistry, make_run: MakeRun) -> None:
    for number in (1, 2):
        registry.register(make_run(number))
    command = [sys.executable, "-P", "-m", mlflow_mirror.__name__, str(registry.folder)]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    client, runs = read_mirror(registry)
    assert set(runs) == {"run1", "run2"}
    check_versions(registry, client)


def test_damaged_database_is_reported(registry: LocalRegistry, make_run: MakeRun, empty_mirror: Path) -> None:
    database = registry.folder / "mlflow.db"
    database.write_bytes(b"not a database")
    model = registry.register(make_run(1))
    with pytest.raises(RegistryError, match="not a database") as caught:
        registry.update_mlflow()
    assert "mlflow.db away" in str(caught.value.hint)
    assert registry.list_models() == [model]
    assert database.read_bytes() == b"not a database"
    assert "not a database" in str(mirror_failure(registry.folder))

    def stop_at_mlflow(check: Check) -> None:
        if check.name == "mlflow":  # skip the slow checks after it
            raise InterruptedError(check.status)

    with pytest.raises(InterruptedError, match="warning"):
        run_checks(Settings(registry_dir=registry.folder), on_check=stop_at_mlflow)
    shutil.copyfile(empty_mirror, database)
    registry.update_mlflow()
    assert mirror_failure(registry.folder) is None
    check_versions(registry, read_mirror(registry)[0])


def find_updates(folder: Path) -> list[psutil.Process]:
    """Return the processes that update the mirror in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in process.cmdline() and mlflow_mirror.__name__ in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_command_starts_an_update(registry: LocalRegistry, make_run: MakeRun, tmp_path: Path) -> None:
    env = os.environ | {"CIFARML_MLFLOW_MIRROR": "true"}
    done = run_new("models", "register", str(make_run(1).path), env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    started = find_updates(registry.folder)
    assert started or (registry.folder / "mlflow.json").exists()
    psutil.wait_procs(started)
    check_versions(registry, read_mirror(registry)[0])
    done = run_new("models", "list", env=env, cwd=tmp_path)
    assert registry.ui_command in done.stdout
    assert not find_updates(registry.folder)  # nothing has changed

    registry.register(make_run(2))
    off = os.environ | {"CIFARML_MLFLOW_MIRROR": "false"}
    assert "mlflow" not in run_new("models", "list", env=off, cwd=tmp_path).stdout
    assert not find_updates(registry.folder)
