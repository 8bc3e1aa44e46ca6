"""What all commands print with: answers on standard output, everything else on standard error."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifarml.settings import debug_enabled, silence_tensorflow

if TYPE_CHECKING:
    from cifarml.evaluation.compare_models import ModelFigures
    from cifarml.evaluation.metrics import Evaluation


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
    """Print a JSON document on standard output; paths are absolute, dataclasses are objects."""
    print(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False, default=_json_value))


def _json_value(value: Any) -> object:
    if isinstance(value, Path):
        return str(value.resolve())
    return value.isoformat() if isinstance(value, datetime) else vars(value)


def print_result(document: object, *lines: str, json: bool) -> None:
    """Print a result as JSON for scripts, or as lines for people."""
    if json:
        print_json(document)
    else:
        print(*lines, sep="\n")


def print_plan(steps: Sequence[str], *, json: bool, **about: str) -> None:
    """Print what would be done, step by step; as JSON with what it is about."""
    numbered = (f"{number}. {step}" for number, step in enumerate(steps, 1))
    print_result({**about, "steps": steps}, "This would be done:", *numbered, json=json)


def print_list(
    documents: Sequence[object],
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    empty: str,
    json: bool,
) -> None:
    """Print a list as JSON, as a table, or, if there is nothing, the line that says so."""
    if json or not documents:
        print_result(documents, empty, json=json)
    else:
        print_table("", columns, rows)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on standard output; columns whose name ends in a space are right-aligned."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=Text(title, "bold") if title else None, title_justify="left")
    for column in columns:
        table.add_column(Text(column.strip()), justify="right" if column.endswith(" ") else "left")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 200  # nobody reads along, and lines must not be folded
    Console(width=width, markup=False, highlight=False, soft_wrap=True).print(table)


def shown_time(time: datetime | None) -> str:
    """Return a time in the local time zone, to the minute; nothing if it is unknown."""
    return f"{time.astimezone():%Y-%m-%d %H:%M}" if time else ""


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


def figure_rows(figures: Sequence[ModelFigures], names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the rows of a table with the figures of models side by side, and their recall by class."""
    return [
        ("accuracy", *(f"{each.accuracy:.2%}" for each in figures)),
        ("loss", *(f"{each.loss:.3f}" for each in figures)),
        ("calibration error", *(f"{each.calibration_error:.1%}" for each in figures)),
        *(
            (f"recall of {name}", *(f"{e.recall[name]:.1%}" if name in e.recall else "" for e in figures))
            for name in names
        ),
    ]


@contextmanager
def hidden_native_noise() -> Iterator[None]:
    """Hide what TensorFlow's native code writes to standard error while it looks at the machine.

    It comes before any log level counts. Where an error ends the block, all of it is shown.
    """
    if debug_enabled():
        yield
        return
    silence_tensorflow()
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


def load_tensorflow() -> None:
    """Import TensorFlow and look at the machine, without the noise of either."""
    with hidden_native_noise():
        from cifarml.hardware.devices import describe_environment

        describe_environment()
