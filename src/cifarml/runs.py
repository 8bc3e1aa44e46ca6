"""The run folders on this machine: which there are, and what came of each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from cifarml.bundle import MANIFEST, Bundle
from cifarml.errors import ModelFileError

__all__ = ["RunSummary", "find_run", "list_runs", "new_run_dir"]

CONFIG: Final = "config.json"
METRICS: Final = "metrics.json"
HISTORY: Final = "history.json"


class RunSummary(NamedTuple):
    """A run folder at a glance.

    Attributes:
        name: Its name.
        path: Where it lies.
        state: ``finished``, ``interrupted`` (stopped early, with the model it had), ``unfinished``
            (still running, or killed), ``damaged``, or ``deleted`` where only its log is left.
        info: What its manifest or its log says; empty where it is unfinished or damaged.
    """

    name: str
    path: Path
    state: str
    info: dict[str, Any]


def new_run_dir(runs_dir: Path, preset: str) -> Path:
    """Return the path of a new run folder, named by date, time and preset; it is not made yet."""
    stem = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{preset}"
    path, number = runs_dir / stem, 2
    while path.exists():
        path, number = runs_dir / f"{stem}-{number}", number + 1
    return path


def list_runs(runs_dir: Path) -> list[RunSummary]:
    """List the run folders in a folder, the oldest first; empty where there is none."""
    if not runs_dir.is_dir():
        return []
    paths = [path for path in runs_dir.iterdir() if path.is_dir()]
    known = [path for path in paths if (path / MANIFEST).exists() or (path / CONFIG).exists()]
    return [summarise_run(path) for path in sorted(known, key=lambda path: path.stat().st_ctime_ns)]


def summarise_run(path: Path) -> RunSummary:
    """Look at one run folder."""
    if not (path / MANIFEST).exists():
        return RunSummary(path.name, path, "unfinished", {})
    try:
        bundle = Bundle.open(path)
    except ModelFileError:
        return RunSummary(path.name, path, "damaged", {})
    state = "interrupted" if bundle.info.get("interrupted") else "finished"
    return RunSummary(path.name, path, state, dict(bundle.info))


def find_run(run: str | Path | None, runs_dir: Path) -> Path:
    """Return the folder of a run.

    Args:
        run: A path, the name of a run in ``runs_dir``, or None or ``"latest"`` for the newest run
            with a model.
        runs_dir: Where runs lie.

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
    for path in (Path(run), runs_dir / run):
        if path.exists():
            return path
    raise ModelFileError(
        f"there is no run {str(run)!r}, here or in {runs_dir}", hint="list them with: cifarml runs list"
    )
