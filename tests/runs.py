"""Trained runs for tests: trained once for all workers, or copied with unique content."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from cifarml import Run, TrainConfig, load_dataset
from cifarml.run import MANIFEST

__all__ = ["MakeRun", "TrainedRuns"]

MakeRun = Callable[[int], Run]
"""Creates a finished run with unique content for each number."""


class TrainedRuns:
    """Read-only runs, each trained once by the first test of any worker that needs it.

    Attributes:
        folder: Folder that all workers of a session share.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder

    @classmethod
    def of_session(cls, base: Path) -> TrainedRuns:
        """Open the runs of this session, given the base temporary folder of this process."""
        return cls((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trained_runs")

    def get(self, name: str, data: str = "drawn:200", **settings: Any) -> Run:
        """Return the run of this name; if it does not exist, train it with these settings."""
        path, description = self.folder / name, self.folder / f"{name}.settings"
        config = TrainConfig(**settings)
        with FileLock(self.folder / f"{name}.lock"):
            if not (path / MANIFEST).exists():
                from cifarml.train.trainer import train_model

                description.write_text(f"{data} {config!r}")
                train_model(config, load_dataset(data), path)
        assert description.read_text() == f"{data} {config!r}", f"{name} was trained with other settings"
        return Run.open(path)
