"""``cifarml train --resume``, and what a training says when it is asked to end."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from cifarml.cli.console import note

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cifarml.progress import OnProgress, Progress
    from cifarml.run import Run

__all__ = ["resume_run", "saying_how_to_go_on"]

_TAKEN = {
    "resume": "",
    "data": "data",
    "subset": "subset",
    "subset_seed": "subset_seed",
    "skip_bad": "skip_bad",
    "runs_dir": "",
    "target": "",
    "json": "",
    "quiet": "",
}
"""Flags that --resume takes, and what they replace of what the run has kept."""


def resume_run(context: typer.Context, run: str, runs_dir: Path, *, quiet: bool) -> Run:
    """Go on with an unfinished run; what it does stands in its folder, so that flags can't change it."""
    from cifarml.cli.console import hidden_native_noise
    from cifarml.errors import SettingsError
    from cifarml.progress import show_progress
    from cifarml.run_folders import find_unfinished_run
    from cifarml.train.data_source import Source

    given = {
        name
        for name in context.params
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }
    others = (each for each in context.command.params if each.name in given - set(_TAKEN))
    if refused := sorted(_flag(each, context.params[str(each.name)]) for each in others):
        raise SettingsError(
            f"a run goes on as it was begun. Received: --resume with {', '.join(refused)}",
            hint=f"leave {'it' if len(refused) == 1 else 'them'} out, or train anew without --resume",
        )
    run_dir = find_unfinished_run(run, runs_dir)
    changes: dict[str, Any] = {_TAKEN[name]: context.params[name] for name in given if _TAKEN[name]}
    kept = Source(data=changes["data"]) if "data" in changes else Source.read(run_dir)
    with show_progress(quiet=quiet) as on_progress:
        dataset = kept.model_copy(update=changes).load(on_progress=on_progress)
        with hidden_native_noise():
            from cifarml.hardware.devices import describe_environment
            from cifarml.train.trainer import resume_training

            describe_environment()
        with saying_how_to_go_on(run_dir, on_progress) as tell:
            return resume_training(run_dir, dataset, on_progress=tell)


def _flag(parameter: Any, value: object) -> str:
    """Return what was typed for a parameter to get this value."""
    names = parameter.secondary_opts if value is False and parameter.secondary_opts else parameter.opts
    return str(names[0])


class _Terminated(BaseException):
    """The system wants this process to end."""


@contextmanager
def saying_how_to_go_on(run_dir: Path, on_progress: OnProgress) -> Iterator[OnProgress]:
    """While a run is trained: end on SIGTERM, as clusters and spot machines send it, and say what to do next.

    The last checkpoint is on the disk already. The exit code is 143, the shell's for this signal.

    Args:
        run_dir: The run folder.
        on_progress: Where progress is told.

    Yields:
        What to tell progress to instead.
    """
    from cifarml.run_folders import CONFIG, resume_command

    asked: list[object] = []

    def end(*signalled: object) -> None:
        asked.append(signalled)
        raise _Terminated

    def tell(progress: Progress) -> None:
        if asked:  # Python drops what is raised in a finaliser
            raise _Terminated
        on_progress(progress)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield tell
    except _Terminated:
        began = (run_dir / CONFIG).is_file()
        go_on = f"Go on with: {resume_command(run_dir)}" if began else "The training had not begun."
        note(f"Ended by the system. {go_on}")
        raise typer.Exit(128 + signal.SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, before)
