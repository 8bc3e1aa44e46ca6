"""Contract tests of model registries, run against each implementation."""

from __future__ import annotations

import dataclasses
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cifarml import Run
from cifarml.errors import ModelFileError, RegistryError
from cifarml.registry.azure.registry import AzureRegistry
from cifarml.registry.base import ModelRegistry, RegisteredModel, parse_model
from cifarml.registry.local.registry import LocalRegistry
from tests.runs import MakeRun


@pytest.fixture(params=["local", "azure"])
def registry(request: pytest.FixtureRequest) -> ModelRegistry:
    registry: ModelRegistry
    if request.param == "azure":
        request.getfixturevalue("workspace_of_module").reset()
        registry = AzureRegistry()
    else:
        registry = request.getfixturevalue("local_registry")
    return registry


def test_register_and_get(registry: ModelRegistry, make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no model named 'cifar10'") as caught:
        registry.get()
    assert "models register" in str(caught.value.hint)
    first = registry.register(make_run(1))
    assert (first.name, first.version, first.aliases) == ("cifar10", "1", ("champion",))
    assert first.run == "run1"
    assert first.run_sha256 == make_run(1).sha256
    assert first.metrics["test_accuracy"] == make_run(1).info["test_accuracy"]
    assert first.tags["dataset_fingerprint"] == make_run(1).info["dataset_fingerprint"]
    assert first.created_at
    assert first.created_at.tzinfo
    second = registry.register(make_run(2))
    assert (second.version, second.aliases) == ("2", ("challenger",))
    assert registry.register(make_run(1)) == first  # the same content is the same version
    assert registry.get("cifar10") == registry.get("cifar10", "1") == first
    assert registry.get("cifar10", "latest") == registry.get("cifar10", "challenger") == second
    other = registry.register(make_run(1), "pets")
    assert str(other) == "pets:1"
    assert registry.list_models() == [first, second, other]
    assert registry.list_models("cifar10") == [first, second]
    assert registry.list_models("unknown") == []
    with pytest.raises(RegistryError, match=r"no version '7'; it has 1 \(champion\), 2 \(challenger\)"):
        registry.get("cifar10", "7")


def test_concurrent_downloads(registry: ModelRegistry, make_run: MakeRun, tmp_path: Path) -> None:
    """Each process writes its own partial copy; the first complete one stays."""
    model = registry.register(make_run(1))
    with ThreadPoolExecutor() as pool:
        copies = [pool.submit(registry.download, model, tmp_path / "copies" / "copy") for _ in range(3)]
        assert {each.result().sha256 for each in copies} == {model.run_sha256}
    assert [each.name for each in (tmp_path / "copies").iterdir()] == ["copy"]


def test_download(registry: ModelRegistry, make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(1)
    model = registry.register(run)
    shutil.rmtree(run.path)  # the registry has its own copy
    copy = registry.download(model, tmp_path / "copy")
    copy.verify()
    assert copy.sha256 == model.run_sha256
    assert registry.download(model, tmp_path / "copy").path == copy.path
    assert [path.name for path in tmp_path.iterdir() if path.name != "runs"] == ["copy"]
    (tmp_path / "copy" / "model.onnx").write_bytes(b"other")
    with pytest.raises(RegistryError, match="contains other files"):
        registry.download(model, tmp_path / "copy")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RegistryError):
        registry.download(model, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_open(registry: ModelRegistry, make_run: MakeRun) -> None:
    run = make_run(1)
    model = registry.register(run.path)
    for each in (model, registry.get(), registry.list_models()[0], registry.set_alias(model, "best")):
        assert registry.open(each).sha256 == each.open_run().sha256 == run.sha256
        assert Run.open(each).path == registry.open(each).path
    with pytest.raises(RegistryError, match="differ in content"):
        registry.open(dataclasses.replace(model, run_sha256="0" * 64))
    with pytest.raises(RegistryError, match="no version '7'"):
        registry.open(dataclasses.replace(model, version="7"))
    with pytest.raises(RegistryError, match=r"does not come from a registry") as caught:
        Run.open(RegisteredModel("cifar10", "1"))
    assert 'get("cifar10", "1")' in str(caught.value.hint)
    assert isinstance(registry.ui_command, str)


def test_damaged_files_are_not_opened(registry: ModelRegistry, make_run: MakeRun) -> None:
    """The cache fetches them again; in the local registry, registering the run restores them."""
    model = registry.register(make_run(1))
    (model.open_run().path / "model.onnx").write_bytes(b"damaged")
    if isinstance(registry, LocalRegistry):
        with pytest.raises(ModelFileError, match="the files of cifar10:1 are damaged") as caught:
            model.open_run()
        assert "models register" in str(caught.value.hint)
        registry.register(make_run(1))
    model.open_run().verify()


def test_aliases(registry: ModelRegistry, make_run: MakeRun) -> None:
    first, second = registry.register(make_run(1)), registry.register(make_run(2))
    second = registry.set_alias(second)
    assert second.aliases == ("champion",)
    assert registry.get("cifar10", "1").aliases == ()
    assert registry.get() == second
    first = registry.set_alias(first, "best-of-monday")
    assert registry.get("cifar10", "best-of-monday") == first
    for alias in ("", "latest", "v1", "1", "A", "a" * 65, "../x", "a b"):
        with pytest.raises(RegistryError, match="alias"):
            registry.set_alias(first, alias)
    with pytest.raises(RegistryError, match="no model"):
        registry.set_alias(RegisteredModel("cifar10", "9"))


def test_delete(registry: ModelRegistry, make_run: MakeRun) -> None:
    first, second = registry.register(make_run(1)), registry.register(make_run(2))
    with pytest.raises(RegistryError, match="champion"):
        registry.delete(first)
    registry.delete(second)
    assert registry.list_models() == [first]
    with pytest.raises(RegistryError, match="no version '2'"):
        registry.delete(second)
    assert registry.register(make_run(2)).version == "3"  # numbers are never reused


def test_damaged_runs_are_rejected(registry: ModelRegistry, make_run: MakeRun) -> None:
    run = make_run(1)
    (run.path / "model.onnx").write_bytes(b"changed")
    with pytest.raises(ModelFileError, match="changed after training"):
        registry.register(run)
    assert registry.list_models() == []
    with pytest.raises(ModelFileError):
        registry.register(dataclasses.replace(run, path=run.path / "nowhere"))


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "a b", "ä", "x" * 129, "a\0b", "a\n"])
def test_invalid_model_names_are_rejected(registry: ModelRegistry, make_run: MakeRun, name: str) -> None:
    with pytest.raises(RegistryError, match="name must be"):
        registry.register(make_run(1), name)
    with pytest.raises(RegistryError, match="name must be"):
        registry.get(name)
    assert registry.list_models() == []


def test_parse_model() -> None:
    assert parse_model("cifar10:3") == ("cifar10", "3")
    assert parse_model("pets@challenger") == ("pets", "challenger")
    assert parse_model("pets") == ("pets", "champion")
    assert parse_model("3") == ("cifar10", "3")
    assert parse_model("latest") == ("cifar10", "latest")
    for text in ("a:b", "a:0", "a:-1", "a@", "@x", ":3", "a@V", "a:1:2", "a:" + "9" * 20):
        with pytest.raises(RegistryError):
            parse_model(text)
