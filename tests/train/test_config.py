"""Training settings: validation, immutability, and loading from a file."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cifarml import Dataset, Run, TrainConfig, train_model
from cifarml.errors import SettingsError
from cifarml.model.recipe import Recipe
from cifarml.train.plan import Plan
from cifarml.train.time_budget import Speed, TimePlan
from tests.conftest import CommandLine

EVERY = {
    "num_epochs": 1, "batch_size": 50, "optimizer": "rmsprop", "learning_rate": 0.002,
    "learning_rate_decay": 0.01, "warm_up": 0.1, "momentum": 0.5, "weight_decay": 0.001,
    "label_smoothing": 0.2, "widths": [8, 16], "dropout": 0.1, "flip": False, "shift": 1, "cutout": 4,
    "distortion": 0.1, "colour": 0.2, "mixing": 0.3, "pruning": 0.2,
}  # fmt: skip
"""For each hyperparameter, a value that no preset chooses."""


INTEGERS = ("num_epochs", "batch_size", "shift", "cutout", "seed")
FLOATS = (
    "time_budget_s", "validation_fraction", "learning_rate", "learning_rate_decay", "warm_up", "momentum",
    "weight_decay", "label_smoothing", "dropout", "distortion", "colour", "pruning", "mixing",
)  # fmt: skip
NAN, INF = float("nan"), float("inf")
INVALID: dict[str, list[Any]] = {
    **{name: ["3", True, 1.5, NAN, INF, -1, 10**30, 10**5000, [], b"3"] for name in INTEGERS},
    **{name: ["0.1", True, NAN, INF, -INF, -1, 1e30, 10**400, 10**5000, [], b""] for name in FLOATS},
    "preset": ["nothing", "Fast", "", 3, True, ["fast"]],
    "precision": ["float64", 16, True],
    "optimizer": ["adam", 1, False],
    "device": [0, b"gpu", True, "x" * 300],
    "flip": [1, 0, "yes", 0.0],
    "widths": ["x", 64, [0], [-1], [True], ["8"], [8.5], [NAN], [5000], [10**5000], [1] * 5, [[8]], {1: 2}],
}


def test_invalid_values_are_listed_for_each_field() -> None:
    assert set(INVALID) == set(TrainConfig.model_fields)


@pytest.mark.parametrize("name", INVALID)
def test_invalid_values_name_the_field(name: str) -> None:
    required: dict[str, Any] = {"num_epochs": 1, "batch_size": 1, "optimizer": "sgd", "learning_rate": 1}
    for value in INVALID[name]:
        attempts: list[Callable[..., object]] = [
            TrainConfig,
            TrainConfig().changed,
            lambda **values: TrainConfig.model_validate(values),
            lambda **values: TrainConfig().model_copy(update=values),
        ]
        if name in Recipe.model_fields:
            attempts += [
                lambda **values: Recipe(**required | values),
                Recipe(**required).changed,
            ]
        for attempt in attempts:
            with pytest.raises(SettingsError) as caught:
                attempt(**{name: value})
            assert caught.value.message.startswith((f"{name}: ", f"{name}.0: "))
            assert "Received: " in caught.value.message
            assert str(caught.value.hint).startswith(f"{name}: ")
            assert len(caught.value.message) < 300


@pytest.mark.parametrize("settings", [TrainConfig, Recipe])
def test_unknown_names(settings: Any) -> None:
    with pytest.raises(SettingsError, match="there is no setting 'no_such'") as caught:
        settings(no_such=1, num_epochs=1, batch_size=1, optimizer="sgd", learning_rate=1)
    assert "learning_rate" in str(caught.value.hint)
    for wrong, right in (("epochs", "num_epochs"), ("weight_decy", "weight_decay"), ("width", "widths")):
        with pytest.raises(SettingsError) as caught:
            settings.model_validate({wrong: 1})
        assert f"did you mean {right}" in str(caught.value.hint)
    for values in (5, None, "x", [1], {1: 2}):
        with pytest.raises(SettingsError):
            settings.model_validate(values)


def test_every_setting_is_documented() -> None:
    assert re.findall(r"^ {8}(\w+): ", str(TrainConfig.__doc__), re.M)[:-1] == list(TrainConfig.model_fields)


def test_a_recipe_requires_the_fields_that_a_preset_chooses() -> None:
    with pytest.raises(SettingsError, match="batch_size: Field required"):
        Recipe.model_validate({"num_epochs": 1})


def test_settings_are_immutable_in_depth() -> None:
    widths: Any = [1, 2]
    config = TrainConfig(widths=widths, dropout=None)
    widths.append(3)
    assert config.widths == (1, 2)
    assert config == TrainConfig(widths=(1, 2))
    assert hash(config) == hash(TrainConfig(widths=(1, 2)))
    assert config.changes == {"widths": (1, 2)}
    with pytest.raises(SettingsError, match="seed: settings are immutable") as caught:
        setattr(config, "seed", 3)  # noqa: B010 - a type checker refuses the assignment
    assert caught.value.hint == "make a copy: .changed(seed=3)"
    assert config.changed(seed=3) == TrainConfig(widths=(1, 2), seed=3)
    assert config.changed(widths=None) == TrainConfig()
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config


def test_every_hyperparameter_can_be_set_in_a_file(tmp_path: Path, drawn: Dataset) -> None:
    assert set(EVERY) == set(Recipe.model_fields)
    path = tmp_path / "all.toml"
    path.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in EVERY.items()))
    run = train_model(TrainConfig.load(path), drawn, tmp_path / "run")
    kept = run.read_json("config.json")
    assert {name: kept[name] for name in EVERY} == EVERY


def test_a_finished_run_can_be_repeated(narrow: Run, tmp_path: Path, drawn: Dataset) -> None:
    config = TrainConfig.load(narrow.path / "config.json")
    again = train_model(config, drawn, tmp_path / "again")
    assert again.read_json("config.json") == narrow.read_json("config.json")
    other = train_model(TrainConfig.load(narrow.path / "config.json", seed=1), drawn, tmp_path / "other")
    for name in ("loss", "val_loss"):
        before, after, differ = (each.read_json("history.json")[name] for each in (narrow, again, other))
        assert after == pytest.approx(before, rel=1e-3)
        assert differ[0] != pytest.approx(before[0], rel=1e-3), "another seed, other results"


def test_flags_override_the_file(cifarml: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(
        'preset = "fast"\nnum_epochs = 7\nseed = 5\nprecision = "float32"\n'
        "widths = [8]\nlabel_smoothing = 0.3\n"
    )
    done = cifarml(
        *("train", "--data", "drawn:100", "--config", "my.toml", "--epochs", 1, "--name", "r", "--seed", 0)
    )
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "runs" / "r" / "config.json").read_text())
    assert (kept["num_epochs"], kept["seed"]) == (1, 0), "the flags"
    assert (kept["precision"], kept["widths"], kept["label_smoothing"]) == ("float32", [8], 0.3), "the file"


def test_epochs_and_time_budget_override_each_other(tmp_path: Path, drawn: Dataset) -> None:
    path = tmp_path / "best.toml"
    path.write_text("num_epochs = 7\nseed = 5")
    config = TrainConfig.load(path, time_budget_s=60.0)
    assert (config.num_epochs, config.time_budget_s, config.seed) == (None, 60.0, 5)
    path.write_text("time_budget_s = 60")
    assert TrainConfig.load(path, num_epochs=3).changes == {"num_epochs": 3}
    path.write_text("time_budget_s = 60\nnum_epochs = 7")
    with pytest.raises(SettingsError, match="cannot be combined"):
        TrainConfig.load(path)


def test_a_run_with_a_time_budget_can_be_repeated(tmp_path: Path, drawn: Dataset) -> None:
    timing = TimePlan(60.0, 2.0, Speed(1.0, 0.1, 0.0), 2.5)
    config = TrainConfig(time_budget_s=60.0, seed=3)
    plan = Plan.make(config, drawn)._replace(time=timing)
    plan = plan._replace(recipe=plan.recipe.changed(num_epochs=3, widths=(24, 96, 96)))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(plan.to_json()))
    again = TrainConfig.load(path)
    assert (again.time_budget_s, again.num_epochs, again.seed) == (60.0, None, 3)
    assert tuple(again.changes["widths"]) == (24, 96, 96)
    assert TrainConfig.load(path, num_epochs=4).time_budget_s is None


@pytest.mark.parametrize("name", ["a.json", "a.JSON", "a.toml", "a.txt"])
def test_json_by_suffix_else_toml(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text('{"seed": 3}' if name.lower().endswith("json") else "\ufeffseed = 3", encoding="utf-8")
    assert TrainConfig.load(path).seed == 3
    assert TrainConfig.load(path, seed=None, dropout=0.5).changes == {"dropout": 0.5}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", b"", "contains no settings"),
        ("a.toml", b"# nothing\n", "contains no settings"),
        ("a.json", b"", "not valid JSON"),
        ("a.json", b"[1, 2]", "contains no settings"),
        ("a.json", b"{}", "contains no settings"),
        ("a.json", b'{"seed": 1', "not valid JSON"),
        ("a.json", b"[" * 100_000, "not valid JSON"),
        ("a.json", b'{"seed": ' + b"9" * 5000 + b"}", "not valid JSON"),
        ("a.toml", b"seed: 1", "not valid TOML"),
        ("a.toml", b"seed = 1\nseed = 2", "not valid TOML"),
        ("a.toml", b"\x89PNG\r\n\x1a\n\0\0", "not UTF-8"),
        ("a.toml", b"\0\1\2", "not valid TOML"),
        ("a.toml", "preset = 'schön'".encode("latin-1"), "not UTF-8"),
        ("a.toml", b"#" * (2 << 20), "larger than 1 MiB"),
        ("a.toml", b"epochs = 3", "there is no setting 'epochs'"),
        ("a.toml", b"[recipe]\nnum_epochs = 3", "there is no setting 'recipe'"),
        ("a.toml", b"'" + b"x" * 5000 + b"' = 1", "there is no setting 'xxx"),
        ("a.toml", b"label_smoothing = 1.0", "label_smoothing: "),
        ("a.toml", b"label_smoothing = nan", "label_smoothing: "),
        ("a.json", b'{"mixing": NaN}', "mixing: "),
        ("a.json", b'{"dropout": "' + b"9" * 9000 + b'"}', "dropout: "),
        ("a.toml", b"num_epochs = 0", "num_epochs: "),
        ("a.toml", b"num_epochs = true", "num_epochs: "),
        ("a.toml", b"num_epochs = '3'", "num_epochs: "),
        ("a.toml", b"shift = true", "shift: "),
        ("a.toml", b"flip = 1", "flip: "),
        ("a.toml", b"seed = 2024-01-01", "seed: "),
        ("a.toml", b"widths = [1, 2, 3, 4, 5]", "widths: "),
        ("a.toml", b"widths = [0]", "widths.0: "),
        ("a.toml", b"widths = 64", "widths: "),
        ("a.toml", b"optimizer = 'adam'", "optimizer: "),
        ("a.toml", b"preset = 'nothing'", "preset: "),
        ("a.json", b'{"machine": {"time_budget": {"budget_s": "9"}}}', "time_budget_s: "),
        ("a.json", b'{"machine": {"time_budget": {"budget_s": NaN}}}', "time_budget_s: "),
        ("a.toml", b"preset = 'tutorial'\nwidths = [8]", "widths: preset 'tutorial' does not support"),
        ("a.toml", b"preset = 'tutorial'\ndropout = 0.1", "dropout: preset 'tutorial' does not support"),
    ],
    ids=str,
)
def test_invalid_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        TrainConfig.load(path)
    assert str(path) in caught.value.message
    assert message in caught.value.message
    assert len(caught.value.message) < 500 + len(str(path))
    assert caught.value.hint


def test_missing_and_special_files(tmp_path: Path, trained: Run) -> None:
    with pytest.raises(SettingsError, match="there is no file"):
        TrainConfig.load(tmp_path / "nothing.toml")
    with pytest.raises(SettingsError, match="is not a file") as caught:
        TrainConfig.load(trained.path)
    assert "config.json" in str(caught.value.hint)
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(SettingsError, match="is not a file"):
        TrainConfig.load(tmp_path / "pipe.toml")


def test_a_close_name_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("label_smoothin = 0.1")
    with pytest.raises(SettingsError) as caught:
        TrainConfig.load(tmp_path / "a.toml")
    assert caught.value.hint == "did you mean label_smoothing?"


def test_an_invalid_file_creates_no_run(cifarml: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("dropout = 2")
    done = cifarml("train", "--data", "drawn:100", "--config", "a.toml")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("Error: a.toml: dropout: ")
    assert not (tmp_path / "runs").exists()
