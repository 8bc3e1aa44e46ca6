"""Training settings from a file: what is asked, what wins, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

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
"""A value for each setting of a recipe that no preset chooses."""


def test_every_setting_of_a_recipe_can_be_set(tmp_path: Path, drawn: Dataset) -> None:
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
        assert differ[0] != pytest.approx(before[0], rel=1e-3), "the seed decides"


def test_flags_win_over_the_file(cifarml: CommandLine, tmp_path: Path) -> None:
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


def test_epochs_and_time_replace_each_other(tmp_path: Path, drawn: Dataset) -> None:
    path = tmp_path / "best.toml"
    path.write_text("num_epochs = 7\nseed = 5")
    config = TrainConfig.load(path, time_budget_s=60.0)
    assert (config.num_epochs, config.time_budget_s, config.seed) == (None, 60.0, 5)
    path.write_text("time_budget_s = 60")
    assert TrainConfig.load(path, num_epochs=3).changes == {"num_epochs": 3}
    path.write_text("time_budget_s = 60\nnum_epochs = 7")
    with pytest.raises(SettingsError, match="by itself"):
        TrainConfig.load(path)


def test_a_run_with_a_time_budget_can_be_repeated(tmp_path: Path, drawn: Dataset) -> None:
    timing = TimePlan(60.0, 2.0, Speed(1.0, 0.1, 0.0), 2.5)
    config = TrainConfig.make(time_budget_s=60.0, seed=3)
    plan = Plan.make(config, drawn)._replace(time=timing)
    plan = plan._replace(recipe=plan.recipe.changed(num_epochs=3, widths=(24, 96, 96)))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(plan.to_json()))
    again = TrainConfig.load(path)
    assert (again.time_budget_s, again.num_epochs, again.seed) == (60.0, None, 3)
    assert tuple(again.changes["widths"]) == (24, 96, 96)
    assert TrainConfig.load(path, num_epochs=4).time_budget_s is None


@pytest.mark.parametrize("name", ["a.json", "a.JSON", "a.toml", "a.txt"])
def test_json_by_its_name_else_toml(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text('{"seed": 3}' if name.lower().endswith("json") else "\ufeffseed = 3", encoding="utf-8")
    assert TrainConfig.load(path).seed == 3
    assert TrainConfig.load(path, seed=None, dropout=0.5).changes == {"dropout": 0.5}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", b"", "holds no settings"),
        ("a.toml", b"# nothing\n", "holds no settings"),
        ("a.json", b"", "not valid JSON"),
        ("a.json", b"[1, 2]", "holds no settings"),
        ("a.json", b"{}", "holds no settings"),
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
        ("a.toml", b"preset = 'tutorial'\nwidths = [8]", "takes no widths"),
        ("a.toml", b"preset = 'tutorial'\ndropout = 0.1", "no dropout"),
    ],
    ids=str,
)
def test_files_that_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        TrainConfig.load(path)
    assert str(path) in caught.value.message
    assert message in caught.value.message
    assert len(caught.value.message) < 500 + len(str(path))
    assert caught.value.hint


def test_what_is_no_file(tmp_path: Path, trained: Run) -> None:
    with pytest.raises(SettingsError, match="there is no file"):
        TrainConfig.load(tmp_path / "nothing.toml")
    with pytest.raises(SettingsError, match="is not a file") as caught:
        TrainConfig.load(trained.path)
    assert "config.json" in str(caught.value.hint)
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(SettingsError, match="is not a file"):
        TrainConfig.load(tmp_path / "pipe.toml")


def test_a_close_name_is_offered(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("label_smoothin = 0.1")
    with pytest.raises(SettingsError) as caught:
        TrainConfig.load(tmp_path / "a.toml")
    assert caught.value.hint == "did you mean label_smoothing?"


def test_nothing_is_made_of_a_file_that_is_refused(cifarml: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("dropout = 2")
    done = cifarml("train", "--data", "drawn:100", "--config", "a.toml")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("Error: a.toml: dropout: ")
    assert not (tmp_path / "runs").exists()
