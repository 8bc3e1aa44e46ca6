"""The run folders on this machine: which there are, and what came of each."""

from __future__ import annotations

import itertools
import json
import shlex
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from filelock import FileLock, Timeout

from cifarml.errors import ModelFileError, TrainingError
from cifarml.run import MANIFEST, Run

CONFIG: Final = "config.json"
METRICS: Final = "metrics.json"
HISTORY: Final = "history.json"
REPORT: Final = "report.html"
ANSWERS: Final = "answers.json"

CHECKPOINT: Final = "checkpoint"
"""Folder in an unfinished run: what its training needs to go on; see :mod:`cifarml.train.checkpoint`."""
STATE: Final = "state.zip"
ABOUT: Final = "about.json"
LOCK: Final = "lock"
SOURCE: Final = "source.json"
MAX_ABOUT_BYTES: Final = 8 * 2**20
"""10,000 epochs with four figures each take 1 MB."""


class RunSummary(NamedTuple):
    """A run folder at a glance.

    Attributes:
        name: Its name.
        path: Where it lies.
        state: ``finished``, ``interrupted`` (stopped early, with the model it had), ``training``,
            ``unfinished`` (killed before it was finished), ``damaged``, or ``deleted`` where only its log
            is left.
        info: What its manifest or its log says; while it is not finished, ``num_epochs`` that its last
            checkpoint holds and ``planned_epochs``, as far as its files tell; empty where it is damaged.
    """

    name: str
    path: Path
    state: str
    info: dict[str, Any]


def new_run_dir(runs_dir: Path, preset: str) -> Path:
    """Return the path of a new run folder, named by date, time and preset; it is not made yet."""
    stem = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{preset}"
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(runs_dir / name for name in names if not (runs_dir / name).exists())


def list_runs(runs_dir: Path) -> list[RunSummary]:
    """List the run folders in a folder, the oldest first; empty where there is none."""
    if not runs_dir.is_dir():
        return []
    paths = [path for path in runs_dir.iterdir() if path.is_dir() and not path.name.startswith(".")]
    known = [path for path in paths if (path / MANIFEST).exists() or (path / CONFIG).exists()]
    return [summarise_run(path) for path in sorted(known, key=lambda path: path.stat().st_ctime_ns)]


def summarise_run(path: Path) -> RunSummary:
    """Look at one run folder."""
    if not (path / MANIFEST).exists():
        state = "training" if is_training(path) else "unfinished"
        return RunSummary(path.name, path, state, _read_progress(path))
    try:
        run = Run.open(path)
    except ModelFileError:
        return RunSummary(path.name, path, "damaged", {})
    state = "interrupted" if run.info.get("interrupted") else "finished"
    return RunSummary(path.name, path, state, dict(run.info))


def find_run(run: str | Path | None, runs_dir: Path) -> Path:
    """Return the folder of a run: a path, a name in ``runs_dir``, or the newest with a model.

    The newest is selected by None or ``"latest"``. Raises ModelFileError if there is no such run.
    """
    if run is None or str(run) == "latest":
        usable = [run for run in list_runs(runs_dir) if run.state in {"finished", "interrupted"}]
        if not usable:
            raise ModelFileError(
                f"there is no trained model in {runs_dir.resolve()}",
                hint="train one with: cifarml train --subset 2000",
            )
        return usable[-1].path
    for path in (Path(run), runs_dir / run):
        if path.exists():
            return path
    raise ModelFileError(
        f"there is no run {str(run)!r}, here or in {runs_dir}", hint="list them with: cifarml runs list"
    )


def find_unfinished_run(run: str | Path, runs_dir: Path) -> Path:
    """Return the folder of a run to resume: a path, a name in ``runs_dir``, or ``"latest"``.

    That is the newest one that is neither finished nor being trained.

    Raises:
        ModelFileError: If there is no such run.
        TrainingError: If it is finished, or being trained.
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
    """Raise TrainingError unless a folder holds a run that is not finished."""
    if (path / MANIFEST).exists():
        raise TrainingError(
            f"the run in {path} is finished already",
            f"see it with: cifarml runs show {shlex.quote(str(path))}",
        )
    if not (path / CONFIG).is_file():
        raise TrainingError(
            f"{path} holds no run that could go on: it has no {CONFIG}",
            "list the runs with: cifarml runs list",
        )


def is_training(path: Path) -> bool:
    """Tell whether a process, of any user of this folder, trains the run in it now."""
    lock = path / CHECKPOINT / LOCK
    try:
        if lock.is_file():
            with FileLock(lock, timeout=0):
                pass
    except Timeout:
        return True
    except OSError:  # a folder that can't be written
        pass
    return False


def being_trained(path: Path) -> TrainingError:
    """Return the error for a run that another process trains."""
    return TrainingError(
        f"the run in {path} is being trained by another process",
        hint="let it end, or end it; how far it is: cifarml runs list",
    )


def resume_command(path: Path) -> str:
    """Return what to type to go on with the run in a folder."""
    return f"cifarml train --resume {shlex.quote(str(path))}"


def _read_progress(path: Path) -> dict[str, Any]:
    """Read from the files of an unfinished run how far it is."""
    info = {}
    state = path / CHECKPOINT / STATE
    try:
        with (path / CONFIG).open("rb") as file:
            planned = json.loads(file.read(MAX_ABOUT_BYTES))["num_epochs"]
        if isinstance(planned, int):
            info = {"num_epochs": 0, "planned_epochs": planned}
        if info and state.is_file():  # no pipe
            with zipfile.ZipFile(state) as archive, archive.open(ABOUT) as about:
                reached = json.loads(about.read(MAX_ABOUT_BYTES))["num_epochs"]
            if isinstance(reached, int):
                info["num_epochs"] = reached
    except (OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, zipfile.error):
        pass  # whoever resumes it is told what is wrong
    return info


def shown_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run's config.json says, for a person to read: settings, devices and time budget."""
    machine = config.get("machine", {})
    settings = {name: value for name, value in config.items() if name != "machine"}
    settings["devices"] = machine.get("devices", [])
    if budget := machine.get("time_budget"):
        settings["time_budget_s"] = budget["budget_s"]
    return settings
