"""Runs of newer versions, and paths with ``~``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import cifarml as api
from cifarml import LocalRegistry, Run, TrainConfig, load_dataset, resume_training
from cifarml.errors import ModelFileError
from cifarml.paths import expand_home
from cifarml.run import write_json
from cifarml.run_folders import find_run, list_runs
from cifarml.train.data_source import Source
from tests.conftest import CommandLine
from tests.runs import MakeRun


def change_manifest(run: Run, **values: object) -> None:
    path = run.path / "manifest.json"
    write_json(path, json.loads(path.read_bytes()) | values)


@pytest.mark.parametrize("found", ["cifarml-run/2", "cifarml-run/10", "cifarml-run/1.1"])
def test_run_of_newer_format(make_run: MakeRun, found: str) -> None:
    run = make_run(1)
    change_manifest(run, format=found, class_names={"new": "form"})
    with pytest.raises(ModelFileError, match="by a newer version of cifarml") as caught:
        Run.open(run.path)
    assert found in caught.value.message
    assert "damaged" not in caught.value.message
    assert caught.value.hint == "pip install --upgrade cifarml"
    assert [each.state for each in list_runs(run.path.parent)] == ["newer"]


@pytest.mark.parametrize("found", ["cifarml-run/0", "other/2", 2, None])
def test_run_of_unknown_format_is_damaged(make_run: MakeRun, found: object) -> None:
    run = make_run(1)
    change_manifest(run, format=found)
    with pytest.raises(ModelFileError, match="damaged"):
        Run.open(run.path)
    assert [each.state for each in list_runs(run.path.parent)] == ["damaged"]


def test_registered_run_of_newer_format(tmp_path: Path, make_run: MakeRun) -> None:
    registry = LocalRegistry(tmp_path / "registry")
    model = registry.register(make_run(1))
    change_manifest(model.open_run(), format="cifarml-run/2")
    with pytest.raises(ModelFileError, match="by a newer version") as caught:
        registry.open(model)
    assert "damaged" not in caught.value.message


def test_unfinished_run_of_newer_version(tmp_path: Path, trained: Run) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    (run / "manifest.json").unlink()
    (run / "checkpoint").mkdir()
    environment = json.loads((run / "environment.json").read_bytes())
    environment["packages"]["cifarml"] = "99.1.0"
    write_json(run / "environment.json", environment)
    write_json(run / "config.json", {"num_epochs": 2, "setting_of_the_future": 1})
    write_json(run / "checkpoint" / "source.json", {"data": "drawn:200", "of_the_future": 1})
    with pytest.raises(ModelFileError, match=r"newer version of cifarml: 99\.1\.0"):
        resume_training(run, load_dataset("drawn:200"))
    with pytest.raises(ModelFileError, match=r"newer version of cifarml: 99\.1\.0"):
        Source.read(run)


def test_home_is_expanded_in_the_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_run: MakeRun
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run = make_run(1)
    assert Run.open("~/runs/run1") == run
    assert find_run("~/runs/run1", Path("none")) == run.path
    assert TrainConfig.load("~/runs/run1/config.json").seed == 0
    registry = LocalRegistry("~/registry")
    assert registry.folder == tmp_path / "registry"
    assert registry.download(registry.register("~/runs/run1"), Path("~/copy")).path == tmp_path / "copy"
    from cifarml.data.save import save_images

    dataset = load_dataset("drawn:40")
    save_images(dataset, "~/images.zip")
    assert len(load_dataset("~/images.zip")) == 40
    assert len(load_dataset(Path("~/images.zip"))) == 40
    assert api.check_source("~/images.zip").dataset.fingerprint
    run.predictor().predict("~/runs/run1/predictions.png")
    assert expand_home("~no-such-user/x") == Path("~no-such-user/x")


def test_home_is_expanded_on_the_command_line(cifarml: CommandLine, tmp_path: Path, trained: Run) -> None:
    """Cases that no shell expands: quoted, after an equals sign, and in the settings file."""
    shutil.copytree(trained.path, tmp_path / "my runs" / "first")
    home = {"HOME": str(tmp_path)}
    image = "~/my runs/first/predictions.png"
    for arguments in (
        ("predict", image, "--run", "~/my runs/first"),
        ("predict", image, "--run=~/my runs/first"),
        ("predict", image, "--runs-dir=~/my runs"),
        ("evaluate", "~/my runs/first", "--data", "drawn:40", "--output=~/evaluation"),
        ("train", "--config=~/my runs/first/config.json", "--data=~/none"),
    ):
        done = cifarml(*arguments, env=home)
        if arguments[0] == "train":
            assert f"no such folder or archive: {tmp_path / 'none'}" in done.stderr
        else:
            assert done.returncode == 0, done.stderr
    assert (tmp_path / "evaluation" / "predictions.png").exists()
    (tmp_path / "cifarml.toml").write_text('runs_dir = "~/my runs"')
    assert cifarml("runs", "show", "first", env=home).returncode == 0
