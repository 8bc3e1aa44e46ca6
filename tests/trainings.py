"""Trainings in separate processes, to be killed or interrupted."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cifarml import TrainConfig, load_dataset, resume_training, train_model
from cifarml.progress import Progress
from tests.processes import forking_context
from tests.waiting import wait_until

__all__ = ["Training"]


class Training:
    """Process that trains a run with this TrainConfig, or resumes it if its folder exists.

    Attributes:
        log: File with a line for each Progress, and the traceback of an error.
    """

    def __init__(self, run_dir: Path, data: str, **config: Any) -> None:
        self.log = run_dir.with_suffix(".log")
        self.log.parent.mkdir(exist_ok=True)
        self.log.write_text("")
        self._process = forking_context().Process(target=_train, args=(run_dir, data, config, self.log))
        self._process.start()

    @property
    def pid(self) -> int | None:
        """ID of the process."""
        return self._process.pid

    def lines(self) -> list[str]:
        """Return the lines of the log so far."""
        return self.log.read_text().splitlines()

    def kill_when(self, reached: Callable[[], bool]) -> bool:
        """Kill the process when a condition holds; return False if it ended before."""
        self._wait_for(reached)
        self._process.kill()
        self._process.join()
        return self._process.exitcode == -signal.SIGKILL

    def interrupt_when(self, reached: Callable[[], bool]) -> int | None:
        """Send Ctrl-C when a condition holds, and return the exit code of the process."""
        self._wait_for(reached)
        assert self._process.pid
        os.kill(self._process.pid, signal.SIGINT)
        self._process.join(120)
        return self._process.exitcode

    def _wait_for(self, reached: Callable[[], bool]) -> None:
        wait_until(lambda: reached() or "ended" in self.lines(), every_s=0.001)


def _train(run_dir: Path, data: str, config: dict[str, Any], path: Path) -> None:
    with path.open("a", buffering=1) as log:

        def write_line(progress: Progress) -> None:
            log.write(f"{progress.task} {progress.done} {progress.line}".replace("\n", "; ") + "\n")

        try:
            dataset = load_dataset(data)
            if run_dir.exists():
                resume_training(run_dir, dataset, on_progress=write_line)
            else:
                train_model(TrainConfig(**config), dataset, run_dir, on_progress=write_line)
        except BaseException:
            log.write(traceback.format_exc())
            raise
        finally:
            log.write("ended\n")
