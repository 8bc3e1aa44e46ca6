"""Trainings to kill, each in a process of its own."""

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
    """A process that trains into a run folder with this TrainConfig, or goes on where there is a run already.

    Attributes:
        log: A file that gets a line for each Progress, and the traceback of an error.
    """

    def __init__(self, run_dir: Path, data: str, **config: Any) -> None:
        self.log = run_dir.with_suffix(".log")
        self.log.parent.mkdir(exist_ok=True)
        self.log.write_text("")
        self._process = forking_context().Process(target=_train, args=(run_dir, data, config, self.log))
        self._process.start()

    def lines(self) -> list[str]:
        """Return what it has told so far."""
        return self.log.read_text().splitlines()

    def kill_when(self, reached: Callable[[], bool]) -> bool:
        """Kill it as soon as something is so; False if it ended before."""
        self._wait_for(reached)
        self._process.kill()
        self._process.join()
        return self._process.exitcode == -signal.SIGKILL

    def interrupt_when(self, reached: Callable[[], bool]) -> int | None:
        """Send it Ctrl-C as soon as something is so, and return the exit code that it ends with."""
        self._wait_for(reached)
        assert self._process.pid
        os.kill(self._process.pid, signal.SIGINT)
        self._process.join(120)
        return self._process.exitcode

    def _wait_for(self, reached: Callable[[], bool]) -> None:
        wait_until(lambda: reached() or "ended" in self.lines(), every_s=0.001)


def _train(run_dir: Path, data: str, config: dict[str, Any], path: Path) -> None:
    with path.open("a", buffering=1) as log:

        def tell(progress: Progress) -> None:
            log.write(f"{progress.task} {progress.done} {progress.line}".replace("\n", "; ") + "\n")

        try:
            dataset = load_dataset(data)
            if run_dir.exists():
                resume_training(run_dir, dataset, on_progress=tell)
            else:
                train_model(TrainConfig(**config), dataset, run_dir, on_progress=tell)
        except BaseException:
            log.write(traceback.format_exc())
            raise
        finally:
            log.write("ended\n")
