"""``cifarml train --resume``, and the termination of a training by a signal."""

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

_IMAGES = ("data", "subset", "subset_seed", "skip_bad")
"""Parameters that replace what the run has stored about its images."""
_TAKEN = {*_IMAGES, "resume", "runs_dir", "target", "json", "quiet"}
"""Parameters that can be combined with --resume."""


def resume_run(context: typer.Context, run: str, runs_dir: Path, *, quiet: bool) -> Run:
    """Resume an unfinished run; its settings are stored in its folder, so that flags can't change them."""
    from cifarml.cli.console import hidden_native_noise
    from cifarml.errors import SettingsError
    from cifarml.progress import show_progress
    from cifarml.run_folders import find_unfinished_run
    from cifarml.train.data_source import Source

    given = {
        name
        for name in context.params
        if (origin := context.get_parameter_source(name)) and origin.name == "COMMANDLINE"
    }
    others = (each for each in context.command.params if each.name in given - _TAKEN)
    if refused := sorted(_flag(each, context.params[str(each.name)]) for each in others):
        raise SettingsError(
            f"{', '.join(refused)} cannot be combined with --resume: a run keeps its settings",
            hint=f"leave {'it' if len(refused) == 1 else 'them'} out, or start a new run without --resume",
        )
    run_dir = find_unfinished_run(run, runs_dir)
    changes = {name: context.params[name] for name in _IMAGES if name in given}
    source = Source(data=changes["data"]) if "data" in changes else Source.read(run_dir)
    with show_progress(quiet=quiet) as on_progress:
        dataset = source.model_copy(update=changes).load(on_progress=on_progress)
        with hidden_native_noise():
            from cifarml.hardware.devices import describe_environment
            from cifarml.train.trainer import resume_training

            describe_environment()
        with explain_termination(run_dir, on_progress) as report:
            return resume_training(run_dir, dataset, on_progress=report)


def _flag(parameter: Any, value: object) -> str:
    """Return the flag that sets a parameter to this value."""
    names = parameter.secondary_opts if value is False and parameter.secondary_opts else parameter.opts
    return str(names[0])


class _Terminated(BaseException):
    """The process received SIGTERM."""


@contextmanager
def explain_termination(run_dir: Path, on_progress: OnProgress) -> Iterator[OnProgress]:
    """End a training on SIGTERM, as clusters and spot machines send it, with a hint how to resume.

    The last checkpoint is on the disk already. The exit code is 143, the shell's for this signal.

    Args:
        run_dir: The run folder.
        on_progress: Receives progress.

    Yields:
        The callback to report progress to instead.
    """
    from cifarml.run_folders import CONFIG, resume_command

    asked: list[object] = []

    def end(*signalled: object) -> None:
        asked.append(signalled)
        raise _Terminated

    def report(progress: Progress) -> None:
        if asked:  # Python drops what is raised in a finaliser
            raise _Terminated
        on_progress(progress)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield report
    except _Terminated:
        began = (run_dir / CONFIG).is_file()
        hint = f"Resume with: {resume_command(run_dir)}" if began else "The training had not begun."
        note(f"Ended by the system. {hint}")
        raise typer.Exit(128 + signal.SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, before)
