"""Progress reporting.

Every long-running function of the library has a parameter ``on_progress``: a callback that receives a
:class:`Progress` at intervals. :func:`show_progress` provides one that draws a progress bar.
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
    """Progress of a task.

    Args:
        task: Name of the task, two or three words.
        done: Completed amount, in ``unit``.
        total: Total amount; None if unknown.
        unit: Unit of the amounts, for example ``"images"`` or ``"bytes"``.
        detail: Current figures, for example ``"epoch 3/30  loss 1.52"``.
        line: Line to print permanently, such as the result of an epoch.
        history: Learning curves at the end of an epoch, by metric name, one value per epoch.
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
    """Do nothing; default of every ``on_progress``."""


@contextmanager
def show_progress(console: Console | None = None, *, quiet: bool = False) -> Iterator[OnProgress]:
    """Show a progress bar in a terminal or notebook, and plain lines elsewhere.

    Args:
        console: Rich console to print to; standard error by default.
        quiet: Show nothing.

    Yields:
        Callback to pass as `on_progress`.

    Example:
        ```python
        with show_progress() as on_progress:
            dataset = load_dataset("drawn:100", on_progress=on_progress)
        ```
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
        redirect_stdout=False,  # stdout may be piped to a file while the bar is on the terminal
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
    """Print permanent lines, the end of each task once, and the progress every 10 s."""
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
