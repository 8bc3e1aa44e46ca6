"""Help texts of all commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from cifarml.cli.main import app

WIDTH = 80
LONGEST_SUMMARY = 45
"""Longer summaries are cut in the command line reference."""


def find_commands(command: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """Yield each command and group below a group, with its full name."""
    for name, each in command.commands.items():
        yield " ".join((*path, name)), each
        if hasattr(each, "commands"):
            yield from find_commands(each, *path, name)


ROOT: Any = typer.main.get_command(app)
COMMANDS: dict[str, Any] = dict(find_commands(ROOT))
GROUPS = ["", *(name for name, command in COMMANDS.items() if hasattr(command, "commands"))]


def show_help(name: str) -> str:
    result = CliRunner(env={"COLUMNS": str(WIDTH), "TERM": "dumb"}).invoke(app, [*name.split(), "--help"])
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_help_starts_with_a_short_summary(name: str) -> None:
    summary, *rest = COMMANDS[name].help.splitlines()
    assert summary.endswith(".")
    assert len(summary) <= LONGEST_SUMMARY
    assert max(map(len, rest)) <= WIDTH - 2, "longer lines wrap twice"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_examples(name: str) -> None:
    _, heading, examples = show_help(name).partition(" Examples ")
    assert heading
    assert f" cifarml {name} " in examples


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_examples_are_valid_commands(name: str) -> None:
    command = COMMANDS[name] if name else ROOT
    for line in command.help.partition("[bold]Examples[/bold]\n\n")[2].splitlines():
        used: Any = ROOT
        program, *arguments = shlex.split(line)
        assert program == "cifarml"
        while hasattr(used, "commands"):
            used = used.commands[arguments.pop(0)]
        used.make_context(used.name, arguments)


@pytest.mark.parametrize("name", GROUPS)
def test_overview_shows_whole_summaries(name: str) -> None:
    overview = show_help(name).partition("─ Commands ─")[2]
    rows = {
        row.split()[1]: " ".join(row.split()[2:-1]) for row in overview.splitlines() if row.startswith("│")
    }
    below = {each.split()[-1]: COMMANDS[each] for each in COMMANDS if each.rpartition(" ")[0] == name}
    assert rows == {each: command.help.splitlines()[0] for each, command in below.items()}
    assert rows == {each: command.get_short_help_str() for each, command in below.items()}


@pytest.mark.parametrize(
    ("name", "panels"),
    [
        ("train", ["Arguments", "Options", "Data", "Training", "Machine", "Azure", "Output"]),
        ("tune", ["Arguments", "Options", "Data", "Training", "Machine", "Output"]),
        ("deploy", ["Options", "Rollout", "Azure", "Output"]),
    ],
)
def test_help_groups_flags_in_panels(name: str, panels: list[str]) -> None:
    assert re.findall(r"╭─ (\w+) ─", show_help(name)) == panels
