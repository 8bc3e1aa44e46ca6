"""Termination of a training by SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from cifarml.cli.console import note
from cifarml.progress import OnProgress, Progress


class _Terminated(BaseException):
    """SIGTERM was received."""


@contextmanager
def explain_termination(run_dir: Path, on_progress: OnProgress) -> Iterator[OnProgress]:
    """Exit with code 143 and a resume hint on SIGTERM, which clusters and spot machines send.

    The last checkpoint is already on disk.

    Yields:
        The callback for progress, which also exits if the signal handler's exception was lost.
    """
    from cifarml.run_folders import CONFIG, resume_command

    signals: list[object] = []

    def end(*received: object) -> None:
        signals.append(received)
        raise _Terminated

    def report(progress: Progress) -> None:
        if signals:  # Python ignores exceptions raised in a finalizer
            raise _Terminated
        on_progress(progress)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield report
    except _Terminated:
        started = (run_dir / CONFIG).is_file()
        hint = f"Resume with: {resume_command(run_dir)}" if started else "The training had not started."
        note(f"Terminated by SIGTERM. {hint}")
        raise typer.Exit(128 + signal.SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, before)
