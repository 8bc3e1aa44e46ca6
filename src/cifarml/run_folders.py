"""Discovery and states of the run folders on this machine."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import time
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

from filelock import FileLock, Timeout

from cifarml.errors import ModelFileError, TrainingError
from cifarml.locks import holder
from cifarml.paths import expand_home
from cifarml.run import MANIFEST, Run, newer_error

CONFIG: Final = "config.json"
METRICS: Final = "metrics.json"
HISTORY: Final = "history.json"
REPORT: Final = "report.html"
ANSWERS: Final = "answers.json"
ENVIRONMENT: Final = "environment.json"

CHECKPOINT: Final = "checkpoint"
"""Folder in an unfinished run with the state for resuming; see :mod:`cifarml.train.checkpoint`."""
STATE: Final = "state.zip"
ABOUT: Final = "about.json"
LOCK: Final = "lock"
SOURCE: Final = "source.json"
MAX_ABOUT_BYTES: Final = 8 * 2**20
"""Size limit of about.json; 10,000 epochs with four metrics each take 1 MB."""


class RunSummary(NamedTuple):
    """Summary of a run folder.

    Attributes:
        name: Name of the folder.
        path: Path of the folder.
        state: ``finished``, ``interrupted`` (stopped early, with the model at that time), ``training``,
            ``unfinished`` (killed before it was finished), ``damaged``, ``newer`` (written by a newer version
            of cifarml), or ``deleted`` if only its log remains.
        info: Entries of the manifest or the log. For a run that is not finished, ``num_epochs`` of its last
            checkpoint and ``planned_epochs``, if known; empty if the run is damaged.
    """

    name: str
    path: Path
    state: str
    info: dict[str, Any]


def new_run_dir(runs_dir: Path, preset: str) -> Path:
    """Return an unused path for a run folder, named by date, time and preset; it is not created."""
    stem = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{preset}"
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(runs_dir / name for name in names if not (runs_dir / name).exists())


def list_runs(runs_dir: Path) -> list[RunSummary]:
    """List the run folders in a folder, oldest first; empty if the folder does not exist."""
    if not runs_dir.is_dir():
        return []
    paths = [path for path in runs_dir.iterdir() if path.is_dir() and not path.name.startswith(".")]
    known = [path for path in paths if (path / MANIFEST).exists() or (path / CONFIG).exists()]
    return [summarise_run(path) for path in sorted(known, key=lambda path: path.stat().st_ctime_ns)]


def summarise_run(path: Path) -> RunSummary:
    """Summarise one run folder."""
    if not (path / MANIFEST).exists():
        state = "training" if is_training(path) else "unfinished"
        return RunSummary(path.name, path, state, _read_progress(path))
    try:
        run = Run.open(path)
    except ModelFileError as error:
        return RunSummary(path.name, path, "newer" if error.newer else "damaged", {})
    state = "interrupted" if run.info.get("interrupted") else "finished"
    return RunSummary(path.name, path, state, dict(run.info))


def find_run(run: str | Path | None, runs_dir: Path) -> Path:
    """Return the folder of a run.

    Args:
        run: A path, a name in ``runs_dir``, or None or ``"latest"`` for the newest run with a model.
        runs_dir: The folder of the run folders.

    Raises:
        ModelFileError: If there is no such run.
    """
    if run is None or str(run) == "latest":
        usable = [run for run in list_runs(runs_dir) if run.state in {"finished", "interrupted"}]
        if not usable:
            raise ModelFileError(
                f"there is no trained model in {runs_dir.resolve()}",
                hint="train one with: cifarml train --subset 2000",
            )
        return usable[-1].path
    for path in (expand_home(run), runs_dir / run):
        if path.exists():
            return path
    raise ModelFileError(
        f"there is no run {str(run)!r}, here or in {runs_dir}", hint="list them with: cifarml runs list"
    )


def find_unfinished_run(run: str | Path, runs_dir: Path) -> Path:
    """Return the folder of a run to resume.

    Args:
        run: A path, a name in ``runs_dir``, or ``"latest"`` for the newest run that is neither finished nor
            being trained.
        runs_dir: The folder of the run folders.

    Raises:
        ModelFileError: If there is no such run.
        TrainingError: If the run is finished, or another process is training it.
    """
    if str(run) == "latest":
        unfinished = [each for each in list_runs(runs_dir) if each.state == "unfinished"]
        if not unfinished:
            raise TrainingError(
                f"there is no unfinished run in {runs_dir.resolve()}", "list them with: cifarml runs list"
            )
        return unfinished[-1].path
    path = find_run(run, runs_dir)
    check_unfinished(path)
    if is_training(path):
        raise being_trained(path)
    return path


def check_unfinished(path: Path) -> None:
    """Raise TrainingError unless the folder contains an unfinished run."""
    if (path / MANIFEST).exists():
        raise TrainingError(
            f"can't resume the run in {path}: it is already finished",
            f"show it with: cifarml runs show {shlex.quote(str(path))}",
        )
    if not (path / CONFIG).is_file():
        raise TrainingError(
            f"{path} is not a run that can be resumed: it has no {CONFIG}",
            "list runs with: cifarml runs list",
        )


def is_training(path: Path) -> bool:
    """Return whether any process is training the run in this folder now."""
    lock = path / CHECKPOINT / LOCK
    try:
        if lock.is_file():
            with FileLock(lock, timeout=0):
                pass
    except Timeout:
        return True
    except OSError:  # the folder is not writable
        pass
    return False


def being_trained(path: Path) -> TrainingError:
    """Return the error for a run that another process is training."""
    return TrainingError(
        f"the run in {path} is being trained by {holder(FileLock(path / CHECKPOINT / LOCK))}",
        hint="wait until it ends, or stop it; show its progress with: cifarml runs list",
    )


def check_version(path: Path) -> None:
    """Raise a ModelFileError if a newer version of cifarml has started the run in a folder."""
    try:
        with (path / ENVIRONMENT).open("rb") as file:
            started_with = json.loads(file.read(MAX_ABOUT_BYTES))["packages"]["cifarml"]
        if _numbers(started_with) > _numbers(version("cifarml")):
            raise newer_error(f"the run in {path}", f"{started_with}, this is {version('cifarml')}")
    except (OSError, ValueError, LookupError, TypeError):
        return  # the caller reports a damaged folder


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def resume_command(path: Path) -> str:
    """Return the command that resumes the run in a folder."""
    return f"cifarml train --resume {shlex.quote(str(path))}"


def _read_progress(path: Path) -> dict[str, Any]:
    """Read the progress of an unfinished run from its files."""
    info = {}
    state = path / CHECKPOINT / STATE
    try:
        with (path / CONFIG).open("rb") as file:
            planned = json.loads(file.read(MAX_ABOUT_BYTES))["num_epochs"]
        if isinstance(planned, int):
            info = {"num_epochs": 0, "planned_epochs": planned}
        if info and state.is_file():  # a pipe would block
            with zipfile.ZipFile(state) as archive, archive.open(ABOUT) as about:
                reached = json.loads(about.read(MAX_ABOUT_BYTES))["num_epochs"]
            if isinstance(reached, int):
                info["num_epochs"] = reached
    except (OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, zipfile.error):
        pass  # resuming the run reports the error
    return info


def shown_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings, devices and time budget of a run's config.json for display."""
    machine = config.get("machine", {})
    settings = {name: value for name, value in config.items() if name != "machine"}
    settings["devices"] = machine.get("devices", [])
    if budget := machine.get("time_budget"):
        settings["time_budget_s"] = budget["budget_s"]
    return settings
