"""Generator of docs/reference/cli.md from the live command line: ``python -m tests.cli_docs`` writes it."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import mdformat
import typer.main

from cifarml.cli.main import app

ROOT = Path(__file__).parents[1]
CLI_DOCS = ROOT / "docs" / "reference" / "cli.md"
MANY_OPTIONS = 8
"""Options of commands with more are listed by panel, as in ``--help``."""


def render() -> str:
    """Return Typer's reference page, with options by panel, examples as shell blocks, and no HTML."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "cli.md")
        command = [sys.executable, "-m", "typer", "cifarml.cli.main", "utils", "docs"]
        environment = os.environ | {"COLUMNS": "100", "TERM": "dumb"}
        subprocess.run(
            [*command, "--name", "cifarml", "--output", output],
            env=environment,
            check=True,
            capture_output=True,
        )
        text = output.read_text(encoding="utf-8")
    text = re.sub(r"<span style=\"font-weight: bold\">(.*?)</span>", r"**\1**", text)
    text = re.sub(r"(?ms)^#+ `cifarml([^`]*)`\n.*?(?=^#|\Z)", _list_by_panel, text)
    text = re.sub(r"\*\*Examples\*\*\n\n((?:  .+\n)+)", _examples, text)
    return format_page(html.unescape(text))


def _list_by_panel(section: re.Match[str]) -> str:
    command: Any = typer.main.get_command(app)
    for name in section[1].split():
        command = command.commands[name]
    options = [each for each in command.params if each.param_type_name == "option"]
    if len(options) <= MANY_OPTIONS:
        return section[0]
    before, _, listed = section[0].partition("**Options**:\n\n")
    *lines, help_line = listed.strip().splitlines()
    panels: dict[str, list[str]] = {}
    for option, line in zip(options, lines, strict=True):
        panels.setdefault(option.rich_help_panel or "Options", []).append(line)
    panels.setdefault("Options", []).append(help_line)
    return before + "".join(f"**{name}**:\n\n{chr(10).join(panels[name])}\n\n" for name in panels)


def format_page(text: str) -> str:
    """Format Markdown as ``mdformat`` does in this project."""
    options = tomllib.loads((ROOT / ".mdformat.toml").read_text(encoding="utf-8"))
    return mdformat.text(text, options=options, extensions=["gfm", "tables"])


def _examples(match: re.Match[str]) -> str:
    return "**Examples**:\n\n```console\n" + re.sub(r"(?m)^  ", "$ ", match[1]) + "```\n"


if __name__ == "__main__":
    CLI_DOCS.write_text(render(), encoding="utf-8")
