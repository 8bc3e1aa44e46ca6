"""Hyperparameter search: results, budget, kills, concurrent searches and damaged files."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import typer

from cifarml import Dataset, TrainConfig, load_dataset, train_model, tune_model
from cifarml.cli import options
from cifarml.cli.commands.tune import print_result
from cifarml.errors import DataError, SettingsError, TrainingError
from cifarml.model.recipe import Recipe
from cifarml.progress import Progress
from cifarml.train.interrupts import interrupts_delayed, interrupts_noted
from cifarml.train.plan import Plan
from cifarml.tune.study import Study
from cifarml.tune.trials import (
    TuneResult,
    accuracy_by_class,
    baseline_trial,
    encode_bits,
    find_best,
    p_value_of,
)
from tests.conftest import CommandLine
from tests.processes import start_code
from tests.waiting import wait_until

SMALL = TrainConfig(num_epochs=2, widths=(8,), precision="float32")


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """Read the trials of a search with Optuna alone."""
    return optuna.load_study(study_name="cifarml", storage=f"sqlite:///{folder / 'study.db'}").trials


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, drawn: Dataset) -> tuple[TuneResult, list[Progress]]:
    reports: list[Progress] = []
    folder = tmp_path_factory.mktemp("tuning") / "a b#{c}"
    return tune_model(SMALL, drawn, folder, num_trials=3, on_progress=reports.append), reports


def test_search_result(searched: tuple[TuneResult, list[Progress]], drawn: Dataset) -> None:
    result, reports = searched
    assert [trial.number for trial in result.trials] == [0, 1, 2]
    assert [trial.is_own for trial in result.trials] == [True, False, False]
    assert {trial.ended for trial in result.trials} == {"finished"}
    assert result.own == result.trials[0]
    assert result.best.accuracy == max(trial.accuracy or 0 for trial in result.trials)
    assert result.num_validation == 20
    own = Plan.make(SMALL, drawn.split().train).recipe.model_dump()
    assert result.trials[0].settings == {name: own[name] for name in result.trials[0].settings}
    assert set(result.trials[0].settings) <= set(Recipe.model_fields) - {"widths", "num_epochs"}
    assert len({json.dumps(trial.settings) for trial in result.trials}) == 3
    assert result.gain == (result.best.accuracy or 0) - (result.own.accuracy or 0)
    assert 0 <= (result.p_value or 0) <= 1
    assert json.loads(json.dumps(result.to_json()))["best"]["number"] == result.best.number
    assert result.by_class
    assert result.by_class.share == result.best.accuracy
    assert result.to_json()["validation"]["majority_baseline"] == 0.1
    lines = [progress.line[:7] for progress in reports if progress.line]
    assert lines[1:] == ["trial 0", "trial 1", "trial 2"]
    done = [progress.done for progress in reports]
    assert done == sorted(done)


def test_best_settings_reproduce_the_trial(
    searched: tuple[TuneResult, list[Progress]], drawn: Dataset, tmp_path: Path
) -> None:
    best = searched[0].best
    run = train_model(TrainConfig.load(searched[0].settings_file), drawn, tmp_path / "run")
    kept = run.read_json("config.json")
    assert {name: kept[name] for name in best.settings} == best.settings
    assert (kept["widths"], kept["num_epochs"], kept["precision"]) == ([8], 2, "float32")
    assert run.read_json("history.json")["val_accuracy"][-1] == pytest.approx(best.accuracy, abs=0.051)


def test_a_search_is_resumed(searched: tuple[TuneResult, list[Progress]], drawn: Dataset) -> None:
    before, folder = searched[0].trials, searched[0].settings_file.parent
    searched[0].settings_file.unlink()
    same = tune_model(SMALL, drawn, folder, num_trials=3)
    assert same.trials == before, "all trials are done already"
    assert TrainConfig.load(same.settings_file).num_epochs == 2
    more = tune_model(SMALL, drawn, folder, num_trials=4)
    assert more.trials[:3] == before
    assert more.trials[3].settings not in [trial.settings for trial in before]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("preset", {"preset": "tutorial", "widths": None}),
        ("num_epochs", {"num_epochs": 3}),
        ("seed", {"seed": 1}),
        ("set", {"dropout": 0.0}),
    ],
)
def test_another_search_is_refused(
    searched: tuple[TuneResult, list[Progress]], drawn: Dataset, name: str, change: dict[str, Any]
) -> None:
    values: dict[str, Any] = {"num_epochs": 2, "widths": (8,), "precision": "float32"} | change
    with pytest.raises(SettingsError, match=name) as caught:
        tune_model(TrainConfig(**values), drawn, searched[0].settings_file.parent)
    assert "--name" in str(caught.value.hint)


def test_other_images_are_refused(searched: tuple[TuneResult, list[Progress]]) -> None:
    with pytest.raises(SettingsError, match="data is"):
        tune_model(SMALL, load_dataset("drawn:200:1"), searched[0].settings_file.parent)


def test_bad_trials_are_pruned_and_test_images_are_not_needed(drawn: Dataset, tmp_path: Path) -> None:
    """After four perfect trials any real one is pruned, except that of the preset's own settings."""
    config = TrainConfig(num_epochs=4, widths=(4,), precision="float32")
    dataset = drawn.train
    with pytest.raises(TrainingError, match="no trial finished"):  # it creates the file
        tune_model(config, dataset, tmp_path, time_budget_s=1e-9)
    study = optuna.load_study(study_name="cifarml", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert not study.trials
    perfect = {"values": [1.0], "intermediate_values": dict.fromkeys(range(1, 5), 1.0)}
    study.add_trials([optuna.create_trial(**perfect) for _ in range(4)])  # type: ignore[arg-type]
    result = tune_model(config, dataset, tmp_path, num_trials=6)
    *_, own, pruned = result.trials
    assert (own.is_own, own.ended, own.num_epochs) == (True, "finished", 4)
    assert (pruned.is_own, pruned.ended, pruned.num_epochs) == (False, "pruned", 2)
    assert result.best == own
    assert trials_of(tmp_path)[-1].state == optuna.trial.TrialState.PRUNED


def ticking(seconds: float) -> Callable[[], float]:
    """Return a clock that advances by a number of seconds whenever it is read."""
    ticks = itertools.count()
    return lambda: next(ticks) * seconds


def test_the_time_budget_is_kept(
    searched: tuple[TuneResult, list[Progress]], drawn: Dataset, tmp_path: Path
) -> None:
    long = TrainConfig(num_epochs=5000, widths=(4,), precision="float32")
    with pytest.raises(TrainingError, match="one needs about") as caught:
        tune_model(long, drawn, tmp_path, time_budget_s=50, clock=ticking(0.1))
    assert "--time-budget" in str(caught.value.hint)
    (trial,) = trials_of(tmp_path)
    assert (trial.user_attrs["ended"], trial.user_attrs["own"]) == ("out of time", True)
    assert len(trial.intermediate_values) == 2, "it stops as soon as the time per epoch is known"
    folder = searched[0].settings_file.parent
    before = tune_model(SMALL, drawn, folder, num_trials=1).trials  # including those of other tests
    budget_s = 5.0
    more = tune_model(SMALL, drawn, folder, time_budget_s=budget_s, clock=ticking(0.1))
    durations = [trial.duration_s or 0 for trial in more.trials[len(before) :]]
    assert len(durations) >= 1
    assert sum(durations[:-1]) <= 1.1 * budget_s, "no trial starts that would not fit"


def test_a_trial_stops_within_an_epoch_when_the_budget_is_used_up(tmp_path: Path) -> None:
    slow = TrainConfig(num_epochs=3, widths=(64,), batch_size=1, precision="float32")
    with pytest.raises(TrainingError, match="no trial finished in 3 s"):
        tune_model(slow, load_dataset("drawn:1000"), tmp_path, time_budget_s=3, clock=ticking(1.0))
    (trial,) = trials_of(tmp_path)
    assert trial.user_attrs["ended"] == "out of time"
    assert not trial.intermediate_values


def test_out_of_memory_trials(drawn: Dataset, tmp_path: Path) -> None:
    def exhaust(progress: Progress) -> None:
        if "epoch" in progress.detail:
            np.ones(2**60, np.uint8)

    with pytest.raises(TrainingError, match="not enough memory"):
        tune_model(SMALL, drawn, tmp_path, num_trials=1, on_progress=exhaust)
    assert [trial.user_attrs["ended"] for trial in trials_of(tmp_path)] == ["out of memory"]


def test_the_baseline_is_repeated_until_it_finishes(tmp_path: Path) -> None:
    study = Study(tmp_path, {}, pruner=optuna.pruners.NopPruner(), seed=0)
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    for ended in ("out of time", "interrupted", "lost", "finished"):
        trial = study.ask_trial(space, {"x": 0.5})
        assert (trial.params["x"], trial.user_attrs.get("own")) == (0.5, True)
        if ended != "lost":
            study.tell(trial, ended, 0.1 if ended == "finished" else None)
    assert "own" not in study.ask_trial(space, {"x": 0.5}).user_attrs
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "FAIL", "FAIL", "COMPLETE", "RUNNING"]


@pytest.mark.parametrize("budget_s", [0, -1, float("nan"), float("inf")])
def test_invalid_budgets(drawn: Dataset, tmp_path: Path, budget_s: float) -> None:
    with pytest.raises(SettingsError, match="time budget"):
        tune_model(SMALL, drawn, tmp_path, time_budget_s=budget_s)
    assert not list(tmp_path.iterdir())


def test_invalid_arguments(drawn: Dataset, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="number of trials"):
        tune_model(SMALL, drawn, tmp_path, num_trials=0)
    with pytest.raises(DataError, match="requires validation images"):
        tune_model(TrainConfig(validation_fraction=0), drawn, tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TrainingError, match="can't write"):
        tune_model(SMALL, drawn, tmp_path / "file")


@pytest.mark.exhaustive
def test_trials_that_diverge_end_the_search_with_the_reason(drawn: Dataset, tmp_path: Path) -> None:
    config = TrainConfig(preset="tutorial", num_epochs=50, learning_rate=100, batch_size=8)
    with pytest.raises(TrainingError, match="diverged"):
        tune_model(config, drawn, tmp_path)
    assert {trial.user_attrs["ended"] for trial in trials_of(tmp_path)} == {"diverged"}


def some_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE studies (study_name TEXT)")
        connection.commit()


def other_study(path: Path) -> None:
    optuna.create_study(study_name="theirs", storage=f"sqlite:///{path}")


def truncated_study(path: Path) -> None:
    Study(path.parent, {}, pruner=optuna.pruners.NopPruner(), seed=0)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def corrupt_study(path: Path) -> None:
    Study(path.parent, {}, pruner=optuna.pruners.NopPruner(), seed=0)
    content = bytearray(path.read_bytes())
    content[4096:20480] = np.random.default_rng(0).bytes(16384)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"SQLite format 3\0"),
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(8192)),
        lambda path: path.write_text("[]"),
        Path.mkdir,
        some_database,
        other_study,
        truncated_study,
        corrupt_study,
    ],
)
def test_invalid_study_files(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "study.db"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(TrainingError, match="can't use the search in") as caught:
        Study(tmp_path, {}, pruner=optuna.pruners.NopPruner(), seed=0)
    assert str(path) in caught.value.message
    assert "--name" in str(caught.value.hint)
    assert (path.read_bytes() if path.is_file() else b"") == before


RACE = """
import sys
from pathlib import Path
import optuna
from cifarml.tune.study import Study
study = Study(Path(sys.argv[1]), {"data": 1}, pruner=optuna.pruners.NopPruner(), seed=0)
space = {"x": optuna.distributions.FloatDistribution(0, 1)}
for _ in range(int(sys.argv[2])):
    trial = study.ask_trial(space, {"x": 0.5})
    study.report(trial, 1, trial.params["x"])
    study.tell(trial, "finished", trial.params["x"])
    print(trial.number, trial.params["x"], flush=True)
"""


def test_concurrent_processes_share_a_study_when_one_is_killed(tmp_path: Path) -> None:
    """No finished trial is lost, no two processes get the same trial, and the baseline runs once."""
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    finished: dict[int, float] = {}
    for _ in range(2):
        steady, killed = (
            subprocess.Popen([*command, count], stdout=subprocess.PIPE, text=True) for count in ("6", "10000")
        )
        assert killed.stdout
        lines = [killed.stdout.readline()]
        time.sleep(random.uniform(0, 0.3))
        killed.kill()
        lines += killed.communicate()[0].splitlines()
        lines += steady.communicate(timeout=200)[0].splitlines()
        assert steady.returncode == 0
        for number, x in (line.split() for line in lines if len(line.split()) == 2):
            assert int(number) not in finished
            finished[int(number)] = float(x)
    study = Study(tmp_path, {"data": 1}, pruner=optuna.pruners.NopPruner(), seed=0)
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert [trial.number for trial in study.trials] == list(range(len(study.trials)))
    assert len(finished) >= 2 * 7
    for position, value in finished.items():
        trial = study.trials[position]
        assert trial.state == optuna.trial.TrialState.COMPLETE
        assert trial.value == pytest.approx(value)
    own = [trial for trial in study.trials if trial.user_attrs.get("own") and trial.value is not None]
    assert len(own) == 1
    values = [each.params["x"] for each in study.trials if each.params and "own" not in each.user_attrs]
    assert len(set(values)) == len(values), "no settings are drawn twice"


TUNE = """
from cifarml import TrainConfig, load_dataset, tune_model
config = TrainConfig(num_epochs=2, widths=(8,), precision="float32")
def report(progress):
    if progress.line:
        print(progress.line, flush=True)
result = tune_model(config, load_dataset("drawn:200"), "study", on_progress=report)
print("interrupted", result.interrupted, flush=True)
"""


@pytest.mark.exhaustive
def test_concurrent_searches_with_one_killed_and_one_interrupted(tmp_path: Path, drawn: Dataset) -> None:
    outputs = [tmp_path / "killed", tmp_path / "interrupted"]
    both = [
        start_code(TUNE, env=os.environ, cwd=tmp_path, output=output, errors=output.with_suffix(".errors"))
        for output in outputs
    ]
    for process, output in zip(both, outputs, strict=True):
        wait_until(lambda: " finished " in output.read_text() or not process.is_alive())  # noqa: B023
    for process, how in zip(both, (signal.SIGKILL, signal.SIGINT), strict=True):
        time.sleep(random.uniform(0, 1))
        assert process.pid
        os.kill(process.pid, how)
    for process in both:
        process.join()
    lines = [line for output in outputs for line in output.read_text().splitlines()]
    assert lines[-1] == "interrupted True", "after Ctrl-C, the search returns its result so far"
    reported = {line.split()[1] for line in lines if " finished " in line}
    assert len(reported) == sum(" finished " in line for line in lines) >= 2, "no trial ran twice"
    assert TrainConfig.load(tmp_path / "study" / "best.toml").num_epochs == 2
    kept = {str(trial.number) for trial in trials_of(tmp_path / "study") if trial.value is not None}
    assert reported <= kept
    assert len(kept - reported) <= 1, "the killed process may have stored a trial without reporting it"
    pruned = sum(trial.state.name == "PRUNED" for trial in trials_of(tmp_path / "study"))
    result = tune_model(SMALL, drawn, tmp_path / "study", num_trials=len(kept) + pruned + 1)
    assert {trial.ended for trial in result.trials} <= {"finished", "pruned", "killed", "interrupted"}
    finished = [trial for trial in result.trials if trial.ended == "finished"]
    assert len(finished) >= len(kept)
    assert sum(trial.is_own for trial in finished) == 1
    assert len({json.dumps(trial.settings) for trial in finished}) == len(finished)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1H1M1S", 3661), (" 5m ", 300)],
)
def test_durations(text: str, seconds: float) -> None:
    assert options.seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0m", "-5m", "5 m", "m", "1.5h", "30m1h", "٣m", "9" * 99, "1d", "x" * 999]
)
def test_invalid_durations(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="must be a time such as"):
        options.seconds(text)


def test_command_line(cifarml: CommandLine, tmp_path: Path) -> None:
    arguments = ("tune", "--data", "drawn:100", "--epochs", 1, "--trials", 1, "--json", "--quiet")
    done = cifarml(*arguments, "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    result = json.loads(done.stdout)
    assert result["best"]["is_own"] is True
    assert Path(result["settings_file"]) == tmp_path / "runs" / "tuning" / "mine" / "best.toml"
    refused = cifarml(*arguments, "--name", "../mine")
    assert refused.returncode == 1
    assert "plain folder name" in refused.stderr


def test_printed_result(
    searched: tuple[TuneResult, list[Progress]], capsys: pytest.CaptureFixture[str]
) -> None:
    result = searched[0]
    assert result.own
    print_result(result)
    out = capsys.readouterr().out
    assert "3 trials finished, 0 stopped early" in out
    assert "the preset's settings" in out
    assert "best.toml" in out.splitlines()[-1]
    best = dataclasses.replace(result.best, is_own=False, accuracy=0.75)
    own = dataclasses.replace(result.own, accuracy=0.5)
    for p_value, verdict in ((0.01, "significant"), (0.2, "not significant")):
        print_result(dataclasses.replace(result, best=best, own=own, p_value=p_value))
        out = capsys.readouterr().out
        assert f"the preset's settings: 50.0%. Gain: 25.0 percentage points, {verdict}" in out
    print_result(dataclasses.replace(result, best=best, own=None, p_value=None))
    assert "have no finished trial" in capsys.readouterr().out


def test_best_trial_that_always_predicts_the_largest_class(
    drawn: Dataset, capsys: pytest.CaptureFixture[str], searched: tuple[TuneResult, list[Progress]]
) -> None:
    labels = (np.arange(len(drawn)) >= 12).astype(np.int64)
    validation = drawn.relabel(labels, ("cat", "ship"))
    trial = optuna.create_trial(value=0.94, user_attrs={"right": encode_bits(labels == 1)})
    by_class = accuracy_by_class(trial, validation)
    assert by_class.num_images == (12, 188)
    assert by_class.num_right == (0, 188)
    print_result(dataclasses.replace(searched[0], by_class=by_class))
    shown = capsys.readouterr().out
    assert "Majority baseline 94.0% (always 'ship'), balanced accuracy 50.0%" in shown
    assert "No better than always predicting 'ship' (94.0%)" in shown
    assert "Never predicted correctly: cat" in shown


def test_p_value() -> None:
    """McNemar's exact test, computed by hand: 10 to 0 images is p = 2 / 2^10, times four other trials."""

    def trial(number: int, right: int) -> optuna.trial.FrozenTrial:
        stored = {"ended": "finished", "right": encode_bits(np.arange(100) < right)}
        made = optuna.create_trial(value=right / 100, user_attrs=stored | ({} if number else {"own": True}))
        made.number = number
        return made

    trials = [trial(number, right) for number, right in enumerate((40, 30, 50, 50, 41))]
    best, own = find_best(trials), baseline_trial(trials)
    assert best is trials[2]
    assert own is trials[0]
    assert p_value_of(best, own, trials) == pytest.approx(4 * 2 / 2**10)
    assert p_value_of(trials[4], own, trials) == 1
    assert p_value_of(own, own, trials) == 1


def test_ctrl_c_is_delayed_during_transactions() -> None:
    steps = []

    def write() -> None:
        with interrupts_delayed(), interrupts_delayed():
            signal.raise_signal(signal.SIGINT)
            steps.append("written")

    with interrupts_noted() as noted:
        with pytest.raises(KeyboardInterrupt):
            write()
        assert steps == ["written"]
        assert len(noted) == 1
        with contextlib.suppress(KeyboardInterrupt):  # as Python drops it in a finaliser
            signal.raise_signal(signal.SIGINT)
        assert len(noted) == 2
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert len(noted) == 2


def test_a_search_outside_the_main_thread(
    searched: tuple[TuneResult, list[Progress]], drawn: Dataset
) -> None:
    folder = searched[0].settings_file.parent
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(tune_model, SMALL, drawn, folder, num_trials=1).result().own == searched[0].own
