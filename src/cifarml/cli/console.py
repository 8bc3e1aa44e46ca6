"""Console output: results on standard output, everything else on standard error."""

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

from cifarml.environment import check_native_flags
from cifarml.settings import debug_enabled, silence_tensorflow

if TYPE_CHECKING:
    from cifarml.data.dataset import Dataset


def note(text: str) -> None:
    """Print a line on standard error."""
    print(text, file=sys.stderr, flush=True)


def print_notes(dataset: Dataset) -> None:
    """Print on standard error how labels and split were derived, and which image files were not read."""
    for text in dataset.notes:
        note(text)
    note_ignored(dataset)


class _Notes(logging.Handler):
    """Log handler that prints records as plain lines."""

    def emit(self, record: logging.LogRecord) -> None:
        note(self.format(record))


def show_log() -> None:
    """Print the log of cifarml, but not of other libraries, on standard error."""
    logger = logging.getLogger("cifarml")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Notes())
    logger.propagate = False


def note_ignored(dataset: Dataset) -> Dataset:
    """Print which image files of a source were not read, and return the data set."""
    for files in dataset.ignored:
        note(f"Warning: {files}")
        note(f"Hint: {files.hint}")
    return dataset


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
    """Print the steps of a dry run; the JSON also contains the fields ``about``."""
    numbered = (f"{number}. {step}" for number, step in enumerate(steps, 1))
    print_result({**about, "steps": steps}, "Steps (dry run):", *numbered, json=json)


def print_list(
    documents: Sequence[object],
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    empty: str,
    json: bool,
) -> None:
    """Print a list as JSON or as a table; instead of an empty table, print the line ``empty``."""
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
    width = None if sys.stdout.isatty() else 200  # keep lines whole if the output is piped
    Console(width=width, markup=False, highlight=False, soft_wrap=True).print(table)


def shown_time(time: datetime | None) -> str:
    """Format a time in the local time zone, to the minute; an unknown time is an empty string."""
    return f"{time.astimezone():%Y-%m-%d %H:%M}" if time else ""


def shown_path(path: Path) -> str:
    """Format a path relative to the working directory, or absolute if it is outside."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@contextmanager
def suppress_native_output() -> Iterator[None]:
    """Hide the messages of TensorFlow's native code on standard error while it detects devices.

    They are written before log levels take effect. If the block raises an exception, they are shown.
    """
    if debug_enabled():
        yield
        return
    silence_tensorflow()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as captured:
        terminal = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:  # also KeyboardInterrupt
            captured.seek(0)
            os.write(terminal, captured.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def load_tensorflow() -> None:
    """Import TensorFlow and detect the devices, without its startup messages."""
    check_native_flags()
    with suppress_native_output():
        from cifarml.hardware.devices import describe_environment

        describe_environment()
