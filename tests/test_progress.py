"""Progress lines without a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from cifarml import show_progress
from cifarml.progress import Progress


def test_end_of_task_is_printed_once() -> None:
    shown = io.StringIO()
    with show_progress(Console(file=shown, width=200)) as on_progress:
        for done in (0, 20, 40, 40, 40):
            on_progress(Progress("tuning", done, 40, unit="s"))
    assert shown.getvalue() == "tuning: 40 s\n"


def test_restarted_task_is_printed_again() -> None:
    shown = io.StringIO()
    with show_progress(Console(file=shown, width=200)) as on_progress:
        for done in (0, 40, 0, 40):
            on_progress(Progress("reading", done, 40))
    assert shown.getvalue() == "reading: 40 images\n" * 2
