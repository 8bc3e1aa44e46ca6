"""What long work tells while it runs.

Every function of the library that can take long has a parameter ``on_progress``: a function that is
called with a :class:`Progress` now and then. :func:`show_progress` makes one that draws a bar.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Progress:
    """How far some work is.

    Args:
        task: What is being done, two or three words.
        done: How much is done, in ``unit``.
        total: How much there is in all; None while nobody knows.
        unit: What is counted, for example ``"images"`` or ``"bytes"``.
        detail: Figures that go with it, for example ``"epoch 3/30  loss 1.52"``.
        line: A line worth keeping, such as the result of an epoch; printed once.
        history: At the end of an epoch the curves so far, by name, a value an epoch.
    """

    task: str
    done: int
    total: int | None
    unit: str = "images"
    detail: str = ""
    line: str = ""
    history: Mapping[str, Sequence[float]] | None = None


OnProgress = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Do nothing: the default of every ``on_progress``."""


@contextmanager
def show_progress(console: Console | None = None, *, quiet: bool = False) -> Iterator[OnProgress]:
    """Show progress as a bar in a terminal or notebook, as plain lines elsewhere.

    Args:
        console: Where to draw; standard error when left out.
        quiet: Draw nothing.

    Yields:
        A function to pass as ``on_progress``.

    Example:
        >>> from cifarml import load_dataset, show_progress
        >>> with show_progress() as on_progress:
        ...     dataset = load_dataset("drawn:100", on_progress=on_progress)
    """
    if quiet:
        yield ignore_progress
        return
    from rich.console import Console

    console = console or Console(stderr=True)
    if console.is_terminal or console.is_jupyter:
        with _bar(console) as update:
            yield update
    else:
        yield _print_lines(console)


@contextmanager
def _bar(console: Console) -> Iterator[OnProgress]:
    from rich import progress as rich
    from rich.text import Text

    class Speed(rich.ProgressColumn):
        def render(self, task: rich.Task) -> Text:
            speed = task.finished_speed or task.speed
            if not speed or task.fields["unit"] == "s":
                return Text("")
            if task.fields["unit"] == "bytes":
                return Text(f"{speed / 1e6:.1f} MB/s", style="dim")
            return Text(f"{speed:,.0f} {task.fields['unit']}/s", style="dim")

    tasks: dict[str, rich.TaskID] = {}
    with rich.Progress(
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(bar_width=24),
        rich.TaskProgressColumn(),
        rich.TextColumn("{task.fields[detail]}", markup=False),
        Speed(),
        rich.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console,
        redirect_stdout=False,  # answers may be piped into a file while the bar is on the terminal
    ) as bars:

        def update(progress: Progress) -> None:
            if progress.line:
                bars.console.print(progress.line, markup=False, highlight=False)
            if progress.task not in tasks:
                tasks[progress.task] = bars.add_task(progress.task, total=None, detail="", unit="")
            bars.update(
                tasks[progress.task],
                completed=progress.done,
                total=progress.total,
                detail=progress.detail,
                unit=progress.unit,
            )

        yield update


def _print_lines(console: Console) -> OnProgress:
    """Print kept lines, the end of each task once, and every 10 s how far it is."""
    last: dict[str, float] = {}
    ended: set[str] = set()

    def update(progress: Progress) -> None:
        if progress.line:
            console.print(progress.line, markup=False, highlight=False)
            return
        now = time.monotonic()
        started = last.setdefault(progress.task, now)
        ends = progress.done == progress.total
        if (ends and progress.task not in ended) or now - started >= 10:
            last[progress.task] = now
            total = f" of {progress.total:,}" if progress.total and not ends else ""
            detail = f"  {progress.detail}" if progress.detail else ""
            text = f"{progress.task}: {progress.done:,}{total} {progress.unit}{detail}"
            console.print(text, markup=False, highlight=False)
        (ended.add if ends else ended.discard)(progress.task)

    return update
