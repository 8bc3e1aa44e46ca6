"""Local registry: atomicity, concurrency, damaged files, symbolic links."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cifarml import Run
from cifarml.errors import ModelFileError, RegistryError
from cifarml.registry.local.registry import LocalRegistry
from cifarml.run import write_json, write_manifest
from tests.processes import forking_context
from tests.runs import MakeRun

Work = Callable[[LocalRegistry, Path], object]


@pytest.fixture
def registry(local_registry: LocalRegistry) -> LocalRegistry:
    return local_registry


def small_run(path: Path) -> Path:
    """Create a run of a single file, since it is copied often."""
    path.mkdir(parents=True)
    write_json(path / "extra.json", path.name)
    return write_manifest(path, ("cat", "dog"), {"run": path.name, "test_accuracy": 0.5}).path


def register(registry: LocalRegistry, run: Path) -> object:
    return registry.register(Run.open(run))


def promote(registry: LocalRegistry, _: Path) -> object:
    return registry.set_alias(registry.get("cifar10", "2"))


def delete(registry: LocalRegistry, _: Path) -> None:
    registry.delete(registry.get("cifar10", "2"))


def test_first_write_creates_the_folder(
    tmp_path: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFARML_MLFLOW_MIRROR", "true")
    registry = LocalRegistry(tmp_path / "new" / "registry")
    assert registry.list_models() == []
    assert registry.list_runs() == []
    registry.start_mirror()
    assert not registry.folder.exists()  # reading creates no files
    assert registry.register(make_run(1)).version == "1"
    assert [run.name for run in registry.list_runs()] == ["run1"]
    assert registry.ui_command.endswith(f"sqlite:///{registry.folder}/mlflow.db")


def test_log_run_is_idempotent(registry: LocalRegistry, make_run: MakeRun) -> None:
    first = make_run(1)
    assert registry.log_run(first) == registry.log_run(first)
    registry.register(first)
    (run,) = registry.list_runs()
    assert (run.name, run.path, run.info["run_sha256"]) == ("run1", first.path, first.sha256)
    assert run.info["test_accuracy"] == first.info["test_accuracy"]


def kill_before(step: int, work: Work, folder: str, run: str) -> None:
    """Run ``work``, and kill this process before the ``step``-th change of the file system."""
    changes = 0

    def count_changes(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal changes
        writes = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if writes or event in {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}:
            changes += 1
            if changes == step:
                os.kill(os.getpid(), signal.SIGKILL)

    registry = LocalRegistry(folder)
    sys.addaudithook(count_changes)
    work(registry, Path(run))


@pytest.mark.parametrize(("work", "num_changes"), [(register, 9), (promote, 3), (delete, 6)])
def test_operations_are_atomic_when_killed(
    registry: LocalRegistry, work: Work, num_changes: int, tmp_path: Path
) -> None:
    """Listed versions are complete, no earlier version is lost, and repeating the operation completes it."""
    first, second, run, other = (small_run(tmp_path / f"run{number}") for number in range(4))
    for each in (first, second):
        register(registry, each)
    expected = LocalRegistry(shutil.copytree(registry.folder, tmp_path / "expected"))
    before = expected.list_models()
    work(expected, run)
    after = expected.list_models()
    step, exit_code = 0, None
    while exit_code != 0:
        step += 1
        tried = LocalRegistry(shutil.copytree(registry.folder, tmp_path / f"at-{step}"))
        process = forking_context().Process(
            target=kill_before, args=(step, work, str(tried.folder), str(run))
        )
        process.start()
        process.join()
        exit_code = process.exitcode
        assert exit_code in {0, -signal.SIGKILL}
        found = [(model.version, model.aliases) for model in tried.list_models()]
        assert found in [[(model.version, model.aliases) for model in each] for each in (before, after)]
        for model in tried.list_models():
            tried.download(model, tmp_path / f"at-{step}-{model.version}").verify()
        if work is not delete or tried.list_models() == before:
            work(tried, run)
        found = [(model.version, model.aliases) for model in tried.list_models()]
        assert found == [(model.version, model.aliases) for model in after]
        folders = [path.name for path in (tried.folder / "models" / "cifar10").iterdir()]
        assert sorted(folders) == [model.version for model in after]
        assert tried.register(Run.open(other)).version == ("4" if work is register else "3")
    assert step > num_changes


def register_in(folder: str, run: str) -> None:
    register(LocalRegistry(folder), Path(run))


def test_two_processes_register_at_once(registry: LocalRegistry, make_run: MakeRun) -> None:
    context = forking_context()
    work = [make_run(number) for number in (1, 1, 2, 2)]
    processes = [
        context.Process(target=register_in, args=(str(registry.folder), str(run.path))) for run in work
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert [model.version for model in registry.list_models()] == ["1", "2"]


def test_registering_restores_damaged_files(
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


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{", "not JSON"),
        ('"version": "1"', '"version": "../../1"'),
        ('"version": "1"', '"version": "2"'),
        ('"version": "1"', '"version": 1'),
        ('"name": "cifar10"', '"name": ".."'),
        ('"champion"', '"v1"'),
        ('"challenger"', '"champion"'),
        ('"highest"', '"other"'),
    ],
)
def test_damaged_index_is_reported(registry: LocalRegistry, make_run: MakeRun, old: str, new: str) -> None:
    for number in (1, 2):
        registry.register(make_run(number))
    index = registry.folder / "index.json"
    damaged = index.read_text().replace(old, new, 1)
    index.write_text(damaged)
    for work in (registry.list_models, registry.get, lambda: registry.register(make_run(1))):
        with pytest.raises(RegistryError, match=r"index\.json") as caught:
            work()
        assert caught.value.hint
    assert index.read_text() == damaged


def test_missing_index_is_rebuilt_from_the_folders(registry: LocalRegistry, make_run: MakeRun) -> None:
    for number in (1, 2, 3):
        registry.register(make_run(number))
    registry.delete(registry.get("cifar10", "2"))
    before = registry.list_models()
    (registry.folder / "index.json").unlink()
    (registry.folder / "models" / "mine").mkdir()
    for model, found in zip(before, registry.list_models(), strict=True):
        assert (found.name, found.version, found.metrics) == (model.name, model.version, model.metrics)
        assert (found.run, found.tags, found.aliases) == (model.run, model.tags, ())
    registry.set_alias(registry.get("cifar10", "1"))
    assert registry.register(make_run(4)).aliases == ("challenger",)
    assert registry.get("cifar10", "latest").version == "4"


def test_damaged_run_record_is_reported(registry: LocalRegistry, make_run: MakeRun) -> None:
    registry.log_run(make_run(1))
    (record,) = (registry.folder / "runs").iterdir()
    content = json.loads(record.read_bytes())
    for damaged in (
        "",
        "[]",
        json.dumps(content | {"run_id": "../x"}),
        json.dumps(content | {"tags": {"a": 1}}),
    ):
        record.write_text(damaged)
        with pytest.raises(RegistryError, match=record.name) as caught:
            registry.list_runs()
        assert "move it away" in str(caught.value.hint)


def test_symbolic_links_are_not_followed(registry: LocalRegistry, make_run: MakeRun, tmp_path: Path) -> None:
    for number in (1, 2):
        registry.register(make_run(number))
    second = registry.get("cifar10", "2")
    models = registry.folder / "models"
    outside = tmp_path / "outside"
    shutil.move(models / "cifar10", outside)
    (models / "cifar10").symlink_to(outside)
    partial = outside / f".{'0' * 64}.partial"
    partial.mkdir()
    before = sorted(outside.rglob("*"))
    for work in (
        lambda: registry.delete(second),
        lambda: registry.download(second, tmp_path / "copy"),
        lambda: registry.register(make_run(3)),
    ):
        with pytest.raises(RegistryError, match="link") as caught:
            work()
        assert caught.value.hint
    assert sorted(outside.rglob("*")) == before


def limit_files(num_bytes: int, work: Work, folder: str, run: str) -> None:
    """Run ``work`` with a limit on file sizes, which must raise an error with a hint."""
    registry = LocalRegistry(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
    with pytest.raises(RegistryError, match="can't write") as caught:
        work(registry, Path(run))
    assert "free disk space" in str(caught.value.hint)


@pytest.mark.parametrize("work", [register, promote, delete])
def test_full_disk_changes_nothing(registry: LocalRegistry, work: Work, tmp_path: Path) -> None:
    first, second, run = (small_run(tmp_path / f"run{number}") for number in range(3))
    for each in (first, second):
        register(registry, each)
    before = registry.list_models()
    arguments = (100, work, str(registry.folder), str(run))
    process = forking_context().Process(target=limit_files, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert registry.list_models() == before
    register(registry, first)
    assert sorted(path.name for path in (registry.folder / "models" / "cifar10").iterdir()) == ["1", "2"]


def test_folder_that_cannot_be_created(tmp_path: Path, make_run: MakeRun) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError, match="can't write") as caught:
        LocalRegistry(tmp_path / "file" / "registry").register(make_run(1))
    assert "CIFARML_REGISTRY_DIR" in str(caught.value.hint)
