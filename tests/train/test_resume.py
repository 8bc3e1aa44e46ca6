"""Resuming: a run killed at any moment gives the same results as an uninterrupted one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import typer

from cifarml import Dataset, Run, TrainConfig, load_dataset, resume_training, train_model
from cifarml.cli.termination import explain_termination
from cifarml.data.save import save_images
from cifarml.errors import ModelFileError, TrainingError
from cifarml.progress import Progress
from cifarml.run_folders import find_unfinished_run, list_runs
from cifarml.train.callbacks.checkpointing import CheckpointCallback
from cifarml.train.checkpoint import Checkpoint
from cifarml.train.config import PresetName
from cifarml.train.data_source import Source
from cifarml.train.network import compile_network
from cifarml.train.plan import Plan
from tests.conftest import CommandLine
from tests.processes import run_on, start_forked
from tests.trainings import Training
from tests.waiting import wait_until

DATA = "drawn:120"
EPOCHS = 4


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset(DATA)


def content(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file except the lock, which is empty."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def figures(run_dir: Path) -> tuple[Any, ...]:
    """Return all results of a finished run that don't depend on time."""
    Run.open(run_dir).verify()
    info = dict(Run.open(run_dir).info)
    for name in ("run", "created", "training_s", "images_per_second"):
        info.pop(name)
    return info, *(json.loads((run_dir / f"{name}.json").read_text()) for name in ("history", "metrics"))


def stop_at(text: str) -> Callable[[Progress], None]:
    """Return an ``on_progress`` that stops training with an error once ``text`` is reported."""

    def stop(progress: Progress) -> None:
        if text in f"{progress.task} {progress.done} {progress.line}":
            raise ZeroDivisionError

    return stop


def begin(run_dir: Path, dataset: Dataset, until: str, **config: Any) -> Path:
    with pytest.raises(ZeroDivisionError):
        train_model(
            TrainConfig(num_epochs=2, **config),
            dataset,
            run_dir,
            source=Source(data=DATA),
            on_progress=stop_at(until),
        )
    return run_dir


@pytest.fixture(scope="module")
def begun_once(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    return begin(tmp_path_factory.mktemp("begun") / "run", dataset, "epoch 2/2", preset="tutorial")


@pytest.fixture
def begun(begun_once: Path, tmp_path: Path) -> Path:
    """An unfinished run with a checkpoint of the first of two epochs."""
    return Path(shutil.copytree(begun_once, tmp_path / "runs" / "begun"))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, begun_once: Path, dataset: Dataset) -> Path:
    """The same run, finished."""
    path = Path(shutil.copytree(begun_once, tmp_path_factory.mktemp("ended") / "run"))
    return resume_training(path, dataset).path


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("preset", "settings"),
    [
        ("fast", {"batch_size": 4, "pruning": 0.3, "widths": (8, 64)}),
        pytest.param("tutorial", {}, marks=pytest.mark.exhaustive),
    ],
)
def test_runs_killed_at_random_moments_are_resumed(
    preset: PresetName, settings: dict[str, Any], tmp_path: Path, dataset: Dataset
) -> None:
    """``fast`` covers data pruning and mixed_bfloat16 (if the processor supports it), and ``tutorial``
    dropout and RMSprop."""
    config = TrainConfig(preset=preset, num_epochs=EPOCHS, **settings)
    whole = train_model(config, dataset, tmp_path / "whole")
    chance = random.Random(preset)
    run_dir = tmp_path / "killed"

    def after(num_lines: int) -> bool:
        time.sleep(chance.uniform(0, 0.01))
        return len(training.lines()) >= num_lines

    moments: list[Callable[[], bool]] = [
        lambda: bool(list(tmp_path.glob(".killed.*"))),  # while the run folder is created
        (run_dir / "config.json").exists,  # before there is a checkpoint
        (run_dir / ".state.zip.partial").exists,  # while a checkpoint is written
        lambda: after(chance.randint(2, 2 * EPOCHS)),
        (run_dir / "history.json").exists,  # while the run is finished
        (run_dir / ".manifest.json.partial").exists,
    ]
    for moment in moments:
        training = Training(run_dir, DATA, **config.model_dump())
        training.kill_when(moment)
        assert "Traceback" not in training.log.read_text()
        if not run_dir.exists():
            assert [run.path for run in list_runs(tmp_path)] == [whole.path]
            continue
        (run,) = [run for run in list_runs(tmp_path) if run.path == run_dir]
        if run.state == "finished":
            break
        assert run.state == "unfinished"
        with pytest.raises(ModelFileError, match="unfinished"):
            Run.open(run_dir)
    else:
        reports: list[Progress] = []
        resume_training(run_dir, dataset, on_progress=reports.append)
        assert not [each for each in reports if "epoch 1/" in each.line], "the first epoch is not repeated"
    assert figures(run_dir) == figures(whole.path)
    assert {path.name for path in run_dir.iterdir()} == {path.name for path in whole.path.iterdir()}


ON_JAX = """
import json, tempfile
from pathlib import Path
from cifarml import TrainConfig, load_dataset, resume_training, train_model
made = tempfile.TemporaryDirectory()
dataset, folder = load_dataset("drawn:200"), Path(made.name)
def config(seed):
    return TrainConfig(num_epochs=3, widths=(8,), batch_size=4, pruning=0.3, seed=seed)
def stop(progress):
    if "epoch 2/3" in progress.line:
        raise ZeroDivisionError
whole, other = (train_model(config(seed), dataset, folder / str(seed)) for seed in (0, 1))
try:
    train_model(config(0), dataset, folder / "cut", on_progress=stop)
except ZeroDivisionError:
    cut = resume_training(folder / "cut", dataset)
print(json.dumps([each.read_json("history.json") for each in (whole, cut, other)]))
"""


@pytest.mark.exhaustive
def test_resuming_on_jax_differs_less_than_two_seeds() -> None:
    whole, cut, other = json.loads(run_on("jax", ON_JAX))
    for name, values in whole.items():
        assert len(values) == len(cut[name]) == 3
        differences = [np.abs(np.subtract(each[name], values)).sum() for each in (cut, other)]
        assert differences[0] <= differences[1], name


@pytest.mark.exhaustive
def test_a_killed_training_keeps_its_time_budget(tmp_path: Path) -> None:
    """The time used before the kill counts; the time until the run is resumed does not."""
    training = Training(tmp_path / "run", "drawn:400", time_budget_s=20)
    assert training.kill_when(lambda: sum("epoch" in line for line in training.lines()) >= 4)
    with zipfile.ZipFile(tmp_path / "run" / "checkpoint" / "state.zip") as state:
        before_s = json.loads(state.read("about.json"))["training_s"]
    began = time.perf_counter()
    run = resume_training(tmp_path / "run", load_dataset("drawn:400"))
    assert before_s < run.info["training_s"] < before_s + time.perf_counter() - began
    assert not run.info["interrupted"]


def test_a_run_without_a_checkpoint_restarts(begun: Path, ended: Path, dataset: Dataset) -> None:
    (begun / "checkpoint" / "state.zip").unlink()
    assert list_runs(begun.parent)[0].info == {"num_epochs": 0, "planned_epochs": 2}
    resume_training(begun, dataset)
    assert figures(begun) == figures(ended)


def test_a_run_with_all_epochs_is_finished_without_training(
    tmp_path: Path, dataset: Dataset, ended: Path
) -> None:
    run_dir = begin(tmp_path / "run", dataset, "writing the run 1", preset="tutorial")
    (run_dir / "model.keras").write_bytes(b"half of ")
    reports: list[Progress] = []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))  # writes fail, as on a full disk
    try:
        with pytest.raises(TrainingError, match="can't write the run folder") as caught:
            resume_training(run_dir, dataset)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value.hint).endswith(f"cifarml train --resume {run_dir}")
    assert list_runs(tmp_path)[0].state == "unfinished"
    resume_training(run_dir, dataset, on_progress=reports.append)
    assert not [each for each in reports if each.task == "training" and each.done]
    assert figures(run_dir) == figures(ended)


def test_a_run_killed_before_its_manifest_is_renamed(ended: Path, tmp_path: Path, dataset: Dataset) -> None:
    run_dir = Path(shutil.copytree(ended, tmp_path / "run"))
    (run_dir / "manifest.json").rename(run_dir / ".manifest.json.partial")
    assert list_runs(tmp_path)[0].state == "unfinished"
    reports: list[Progress] = []
    resume_training(run_dir, dataset, on_progress=reports.append)
    assert reports == []
    assert content(run_dir) == content(ended)


def test_a_full_disk(begun: Path, ended: Path, dataset: Dataset) -> None:
    """The error names the cause, the previous checkpoint is kept, and no partial file remains."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = content(begun)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(TrainingError, match="File too large") as caught:
            resume_training(begun, dataset)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert content(begun) == before
    resume = f"free disk space or fix the permissions, then resume with: cifarml train --resume {begun}"
    assert caught.value.hint == resume
    resume_training(begun, dataset)
    assert figures(begun) == figures(ended)


def test_too_little_memory(begun: Path, dataset: Dataset) -> None:
    def exhaust(_: Progress) -> None:
        np.ones(2**60, np.uint8)

    with pytest.raises(TrainingError, match="not enough memory") as caught:
        resume_training(begun, dataset, on_progress=exhaust)
    assert str(begun) in str(caught.value.hint)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="requires a folder that not even root can write")
def test_a_folder_that_cannot_be_written(dataset: Dataset) -> None:
    with pytest.raises(TrainingError, match="can't write the run folder /sys/kernel/run: ") as caught:
        train_model(TrainConfig(preset="tutorial", num_epochs=1), dataset, "/sys/kernel/run")
    hint = str(caught.value.hint)
    assert "--runs-dir" in hint
    assert "--resume" not in hint, "there is nothing to resume"


def test_other_images_are_refused(begun: Path) -> None:
    before = content(begun)
    with pytest.raises(TrainingError, match="other images than those of drawn:130") as caught:
        resume_training(begun, load_dataset("drawn:130"))
    assert "--data SOURCE" in str(caught.value.hint)
    assert content(begun) == before


def test_a_finished_run_is_unchanged(ended: Path, dataset: Dataset, tmp_path: Path) -> None:
    before = content(ended)
    for run in (ended, str(ended), Run.open(ended)):
        with pytest.raises(TrainingError, match="already finished"):
            resume_training(run, dataset)
    with pytest.raises(TrainingError, match="already finished"):
        find_unfinished_run(ended, tmp_path)
    assert content(ended) == before
    assert not (ended / "checkpoint").exists()


def test_other_folders_are_unchanged(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "mine" / "checkpoint").mkdir(parents=True)
    (tmp_path / "mine" / "checkpoint" / "weights").write_text("other data")
    for path in (tmp_path / "mine", tmp_path / "none"):
        with pytest.raises(TrainingError, match=r"no config\.json"):
            resume_training(path, dataset)
    assert content(tmp_path / "mine") == {"checkpoint/weights": hashlib.sha256(b"other data").hexdigest()}
    assert not (tmp_path / "none").exists()


def test_a_run_that_is_being_trained_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    training = Training(tmp_path / "alive", DATA, num_epochs=10_000)
    wait_until(training.lines)  # the folder exists shortly before it is locked
    try:
        assert list_runs(tmp_path)[0].state == "training"
        with pytest.raises(
            TrainingError, match=rf"being trained by (process {training.pid}|another process)"
        ):
            resume_training(tmp_path / "alive", dataset)
        with pytest.raises(
            TrainingError, match=rf"being trained by (process {training.pid}|another process)"
        ):
            find_unfinished_run("alive", tmp_path)
        with pytest.raises(TrainingError, match="no unfinished run"):
            find_unfinished_run("latest", tmp_path)
    finally:
        assert training.kill_when(lambda: True)
    assert find_unfinished_run("latest", tmp_path) == tmp_path / "alive"


def rewrite(state: Path, change: Callable[[dict[str, bytes]], object], **settings: Any) -> None:
    with zipfile.ZipFile(state) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(state, "w", **settings) as archive:
        for name, value in members.items():
            archive.writestr(name, value)


def about(**values: Any) -> Callable[[Path], object]:
    def change(members: dict[str, bytes]) -> None:
        members["about.json"] = json.dumps(json.loads(members["about.json"]) | values).encode()

    return lambda state: rewrite(state, change)


def put(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Replace the checkpoint by something else."""

    def change(state: Path) -> None:
        state.unlink()
        make(state)

    return change


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    """Change a file of the run."""

    def change(state: Path) -> None:
        path = state.parent.parent / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("/tmp/cifarml-was-here",)


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Hostile()], dtype=object), allow_pickle=True)
    return file.getvalue()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda state: state.write_bytes(b""), "can't be used"),
    "text": (lambda state: state.write_text("epoch 3"), "can't be used"),
    "cut": (lambda state: state.write_bytes(state.read_bytes()[:-100_000]), "can't be used"),
    "cut in front": (lambda state: state.write_bytes(state.read_bytes()[100:]), "can't be used"),
    "a folder": (put(Path.mkdir), "it is not a file"),
    "a pipe": (put(os.mkfifo), "it is not a file"),
    "a pickle": (lambda state: state.write_bytes(pickle.dumps(Hostile())), "can't be used"),
    "a pickle within": (lambda state: rewrite(state, lambda m: m.update({"3": pickled()})), "can't be used"),
    "far too large": (lambda state: os.truncate(state, 2**40), "too large for this network"),
    "a zip bomb": (
        lambda state: rewrite(
            state, lambda m: m.update({"about.json": b" " * 2**24}), compression=zipfile.ZIP_DEFLATED
        ),
        "about.json is too large or compressed",
    ),
    "an extra file": (lambda state: rewrite(state, lambda m: m.update(x=b"")), "variables of this network"),
    "a missing variable": (lambda state: rewrite(state, lambda m: m.pop("4")), "variables of this network"),
    "shorter": (lambda state: rewrite(state, lambda m: m.update({"4": m["4"][:-4]})), "can't be used"),
    "invalid JSON": (lambda state: rewrite(state, lambda m: m.update({"about.json": b"{"})), "Invalid JSON"),
    "deep JSON": (lambda state: rewrite(state, lambda m: m.update({"about.json": b"[" * 9**6})), "JSON"),
    "NaN seconds": (about(training_s=float("nan")), "training_s: Input should be a finite number"),
    "NaN history": (about(history={"loss": [float("nan")]}), "history"),
    "no epochs": (about(num_epochs=0, history={}), "num_epochs"),
    "few epochs": (about(history={"loss": [1.0], "accuracy": []}), "a value for each epoch"),
    "unknown": (about(run="rm -rf"), "run: Extra"),
    "other format": (about(format="cifarml-checkpoint/1"), "another version of cifarml wrote it"),
    "other shapes": (about(variables=[["float32", [10**12]]]), "have other shapes"),
    "other plan": (about(plan={"preset": "fast"}), "other settings"),
    "NaN plan": (about(plan={"learning_rate": float("nan")}), "other settings"),
    "other images": (about(fingerprint="0" * 64), "other images"),
    "other keras": (about(made_with={"backend": "tensorflow", "keras": "3.1.0"}), "requires .*keras 3.1.0"),
    "other backend": (about(made_with={"backend": "jax"}), "requires backend jax"),
    "other settings": (edit("config.json", '"seed": 0', '"seed": 1'), "other settings"),
    "other preset": (edit("config.json", "tutorial", "fast"), "can't be used"),
    "an unknown setting": (edit("config.json", '"seed"', '"speed": 3, "seed"'), "speed"),
    "invalid settings": (edit("config.json", "{", "[{"), "is damaged"),
    "no fingerprint": (edit("dataset.json", "fingerprint", "finger"), "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_and_hostile_checkpoints(kind: str, begun: Path, dataset: Dataset) -> None:
    damage, message = DAMAGE[kind]
    damage(begun / "checkpoint" / "state.zip")
    before = content(begun) if kind != "far too large" else {}
    with pytest.raises(TrainingError, match=message) as caught:
        resume_training(begun, dataset)
    assert caught.value.hint
    assert (content(begun) if before else {}) == before
    assert not Path("/tmp/cifarml-was-here").exists()
    assert [run.state for run in list_runs(begun.parent)] == ["unfinished"], "the run is still listed"


def test_mutated_checkpoints(begun: Path, dataset: Dataset) -> None:
    """With any bytes changed, a checkpoint is either refused or read as it was written."""
    splits = dataset.split()
    config = TrainConfig(preset="tutorial", num_epochs=2)
    plan = Plan.make(config, splits.train)
    network = compile_network(plan, plan.batches(splits.train))
    state = begun / "checkpoint" / "state.zip"
    whole = state.read_bytes()
    with Checkpoint(begun) as checkpoint:
        reached = checkpoint.load(network, plan, dataset.fingerprint)
        weights = network.get_weights()
        chance = random.Random(6)
        refused = 0
        for _ in range(60):
            mutated = bytearray(whole)
            # Most bytes are weights; the metadata is at both ends of the file.
            place = chance.choice(
                [chance.randrange(3000), -chance.randrange(1, 3000), chance.randrange(len(whole))]
            )
            for offset in range(chance.randint(1, 4)):
                mutated[(place + offset) % len(whole)] = chance.randrange(256)
            state.write_bytes(mutated)
            try:
                assert checkpoint.load(network, plan, dataset.fingerprint) == reached
            except TrainingError:
                refused += 1
            for value, expected in zip(network.get_weights(), weights, strict=True):
                np.testing.assert_array_equal(value, expected)
    assert refused > 30


def test_a_checkpoint_contains_all_state(begun: Path, dataset: Dataset) -> None:
    """Weights, running statistics, dropout seeds, momentum, and the step count."""
    splits = dataset.split()
    plan = Plan.make(TrainConfig(preset="tutorial", num_epochs=2), splits.train)
    keras.utils.set_random_seed(99)
    network = compile_network(plan, plan.batches(splits.train))
    with Checkpoint(begun) as checkpoint:
        reached = checkpoint.load(network, plan, dataset.fingerprint)
    assert reached.num_epochs == 1
    assert reached.training_s > 0
    assert int(network.optimizer.iterations) == 3
    seeds = [np.asarray(each).tolist() for each in network.variables if "seed_generator" in each.path]
    assert len(seeds) == 3
    assert all(drawn > 0 for _, drawn in seeds), "dropout continues its random sequence"


def test_checkpoints_take_a_small_share_of_the_time() -> None:
    now, saved = [0.0], []

    def save() -> None:
        now[0] += 0.3
        saved.append(True)

    callback = CheckpointCallback(save, clock=lambda: now[0])
    callback.set_params({"epochs": 100})
    callback.set_model(keras.Sequential())
    callback.model.stop_training = False
    for epoch in range(100):
        now[0] += 1.0
        callback.on_epoch_end(epoch)
    assert len(saved) == 8, "after the first epoch, the last, and every 15 s in between"


def test_a_diverging_training_names_the_step(tmp_path: Path, dataset: Dataset) -> None:
    config = TrainConfig(preset="tutorial", num_epochs=50, learning_rate=10, batch_size=8)
    with pytest.raises(TrainingError, match=r"diverged in epoch \d+ \(step [\d,]+\): the loss is") as caught:
        train_model(config, dataset, tmp_path / "run")
    assert "--learning-rate 1e+00" in str(caught.value.hint)
    with pytest.raises(ModelFileError, match="unfinished"):
        Run.open(tmp_path / "run")


def test_no_secret_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    url = "https://account.blob.core.windows.net/images/a.zip"
    for data, kept in (
        (f"{url}?sv=2024-01-01&sig=secret", url),
        ("images.zip", str(tmp_path / "images.zip")),
        ("drawn:200", "drawn:200"),
        ("cifar10", "cifar10"),
    ):
        source = Source(data=data, subset=50, subset_seed=3, skip_bad=True)
        source.write(tmp_path)
        assert Source.read(tmp_path) == source.model_copy(update={"data": kept})
    (tmp_path / "checkpoint" / "source.json").write_text('{"data": 3}')
    with pytest.raises(TrainingError, match="can't read the source of the images") as caught:
        Source.read(tmp_path)
    assert "--data" in str(caught.value.hint)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_sigterm_in_a_finaliser(begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Python drops an exception raised in a finaliser; the next progress report raises it again."""

    class Held:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def train(run_dir: Path) -> None:
        with explain_termination(run_dir, lambda _: None) as report:
            held = Held()
            del held
            report(Progress("training", 1, 2))

    for run_dir, printed in ((begun, "Resume with: "), (tmp_path / "none", "The training had not started.")):
        with pytest.raises(typer.Exit) as caught:
            train(run_dir)
        assert caught.value.exit_code == 143
        assert printed in capsys.readouterr().err


def test_command_line(cifarml: CommandLine, tmp_path: Path, dataset: Dataset) -> None:
    """A run is ended by SIGTERM, listed, refused with other flags, and resumed from another folder."""
    save_images(dataset, tmp_path / "images.zip")
    flags = ["--data", "images.zip", "--preset", "tutorial", "--epochs", "8", "--name", "one"]
    errors = tmp_path / "errors"
    process = start_forked(
        *("train", *flags), env=os.environ, cwd=tmp_path, output=tmp_path / "output", errors=errors
    )
    wait_until(lambda: not process.is_alive() or "epoch 2/8" in errors.read_text())
    process.terminate()
    process.join(120)
    assert process.exitcode == 143
    error = errors.read_text()
    assert "Resume with: cifarml train --resume runs/one" in error
    assert "Traceback" not in error
    listed = cifarml("runs", "list").stdout
    assert "unfinished" in listed
    assert "/8" in listed
    assert "Resume one with: cifarml train --resume runs/one" in listed
    refused = cifarml("train", "--resume", "one", "--epochs", 3, "--seed", 0, "--config", "a", "--no-wait")
    assert refused.returncode == 1
    assert "--config, --epochs, --no-wait, --seed cannot be combined with --resume" in refused.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = cifarml("train", "--resume", "latest", "--runs-dir", tmp_path / "runs", "--json", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert "resuming after epoch" in done.stderr
    assert json.loads(done.stdout)["num_epochs"] == 8
    config = TrainConfig(preset="tutorial", num_epochs=8)
    whole = train_model(config, load_dataset(tmp_path / "images.zip"), tmp_path / "whole")
    resumed, expected = figures(tmp_path / "runs" / "one"), figures(whole.path)
    assert resumed[1:] == expected[1:]
