"""What all commands print with: answers on standard output, everything else on standard error."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from cifarml.evaluation.metrics import Evaluation

_WIDE = 200  # columns where nobody reads along and lines must not be folded


def console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or standard error."""
    from rich.console import Console

    width = None if (sys.stderr if stderr else sys.stdout).isatty() else _WIDE
    return Console(stderr=stderr, width=width, markup=False, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """Print a line for people on standard error."""
    print(text, file=sys.stderr, flush=True)


class _Notes(logging.Handler):
    """Prints what is logged as plain lines."""

    def emit(self, record: logging.LogRecord) -> None:
        note(self.format(record))


def show_log() -> None:
    """Show what the library itself logs, and nothing of other libraries."""
    logger = logging.getLogger("cifarml")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Notes())
    logger.propagate = False


def print_json(values: object) -> None:
    """Print a JSON document on standard output."""
    print(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False))


def print_plan(steps: Sequence[str], *, json: bool, **about: str) -> None:
    """Print what would be done, step by step; as JSON with what it is about."""
    if json:
        print_json({**about, "steps": list(steps)})
        return
    print("This would be done:")
    for number, step in enumerate(steps, 1):
        print(f"{number}. {step}")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on standard output; columns whose name ends in a space are right-aligned."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=Text(title, "bold") if title else None, title_justify="left")
    for column in columns:
        table.add_column(Text(column.strip()), justify="right" if column.endswith(" ") else "left")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console().print(table)


def shown_path(path: Path) -> str:
    """Return a path as a person here would type it."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def print_evaluation(title: str, evaluation: Evaluation) -> None:
    """Print the figures of an evaluation."""
    print_table(
        title,
        ("class", "images ", "precision ", "recall ", "F1 "),
        [
            (c.name, f"{c.num_images:,}", f"{c.precision:.1%}", f"{c.recall:.1%}", f"{c.f1:.1%}")
            for c in evaluation.classes
        ],
    )
    print(
        f"Accuracy {evaluation.accuracy:.2%}, loss {evaluation.loss:.3f}, on {evaluation.num_images:,} images"
    )


@contextmanager
def hidden_native_noise() -> Iterator[None]:
    """Hide what TensorFlow's native code writes to standard error while it looks at the machine.

    It comes before any log level counts. Where an error ends the block, all of it is shown.
    """
    from cifarml.settings import debugging, hush_tensorflow

    if debugging():
        yield
        return
    hush_tensorflow()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as noise:
        terminal = os.dup(2)
        os.dup2(noise.fileno(), 2)
        try:
            yield
        except BaseException:  # shown and raised again
            noise.seek(0)
            os.write(terminal, noise.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
