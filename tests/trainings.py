"""Trainings to kill: a process that has imported the trainer forks one for each training it is asked for.

So a kill costs no start of TensorFlow, and what is forked is a process that has never computed anything.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Training", "Trainings", "trainings"]


class Training:
    """A process that trains into a run folder, or goes on there.

    Attributes:
        pid: Of the process.
        log: A file that gets a line for each Progress, and the traceback of an error.
    """

    def __init__(self, server: subprocess.Popen[str], pid: int, log: Path) -> None:
        self._server = server
        self.pid, self.log = pid, log

    def lines(self) -> list[str]:
        """Return what it has told so far."""
        return self.log.read_text().splitlines()

    def kill_when(self, reached: Callable[[], bool]) -> bool:
        """Kill it as soon as something is so; False if it ended before."""
        while not reached() and "ended" not in self.lines():
            time.sleep(0.001)
        os.kill(self.pid, signal.SIGKILL)  # it is there until it is waited for
        return self.wait() == -signal.SIGKILL

    def wait(self) -> int:
        """Let it be buried, and return 0, or the negative number of the signal that ended it."""
        assert self._server.stdin
        assert self._server.stdout
        print("wait", file=self._server.stdin, flush=True)
        return int(self._server.stdout.readline())


class Trainings:
    """Starts trainings, one at a time."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def start(self, run_dir: Path, data: str, **config: Any) -> Training:
        """Train into ``run_dir`` with this TrainConfig, or go on where there is a run already."""
        log = run_dir.with_suffix(".log")
        log.write_text("")
        job = {"run_dir": str(run_dir), "data": data, "config": config, "log": str(log)}
        assert self._server.stdin
        assert self._server.stdout
        print(json.dumps(job), file=self._server.stdin, flush=True)
        return Training(self._server, int(self._server.stdout.readline()), log)


@contextmanager
def trainings() -> Iterator[Trainings]:
    """Run the process that forks them."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.trainings"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    ) as server:
        try:
            yield Trainings(server)
        finally:
            assert server.stdin
            server.stdin.close()


def _train(job: dict[str, Any]) -> None:
    from cifarml import TrainConfig, load_dataset, resume_training, train_model
    from cifarml.progress import Progress

    run_dir = Path(job["run_dir"])
    with Path(job["log"]).open("a", buffering=1) as log:

        def tell(progress: Progress) -> None:
            log.write(f"{progress.task} {progress.done} {progress.line}".replace("\n", "; ") + "\n")

        try:
            dataset = load_dataset(job["data"])
            if run_dir.exists():
                resume_training(run_dir, dataset, on_progress=tell)
            else:
                train_model(TrainConfig(**job["config"]), dataset, run_dir, on_progress=tell)
        except BaseException:
            log.write(traceback.format_exc())
            raise
        finally:
            log.write("ended\n")


def _serve() -> None:
    import cifarml.train.trainer  # noqa: F401 - what each of them needs

    pid = 0
    for line in sys.stdin:
        if line.strip() == "wait":
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
            continue
        pid = os.fork()
        if not pid:
            try:
                _train(json.loads(line))
            finally:
                os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    _serve()
