"""``cifarml train --resume``, and the termination of a training by a signal."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cifarml.cli.console import note
from cifarml.errors import SettingsError
from cifarml.progress import OnProgress, Progress

if TYPE_CHECKING:
    from cifarml.train.data_source import Source

_IMAGES = ("data", "subset", "subset_seed", "skip_bad")
"""Parameters that replace what the run has stored about its images."""
_TAKEN = {*_IMAGES, "resume", "runs_dir", "target", "json", "quiet"}
"""Parameters that can be combined with --resume."""


def find_unfinished(context: typer.Context, run: str, runs_dir: Path) -> tuple[Path, Source]:
    """Return the folder of an unfinished run and the source of its images.

    Its settings are stored in its folder, so that only flags about its images are accepted.
    """
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
    return run_dir, source.model_copy(update=changes)


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
    Progress must be reported to the callback that is yielded.
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
