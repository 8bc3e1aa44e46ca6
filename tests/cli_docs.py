"""docs/reference/cli.md, made from the live command line: ``python -m tests.cli_docs`` writes it anew."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import mdformat

ROOT = Path(__file__).parents[1]
CLI_DOCS = ROOT / "docs" / "reference" / "cli.md"


def render() -> str:
    """Return the page: Typer's own, with the examples as shell blocks and no HTML in it."""
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
    text = re.sub(r"\*\*Examples\*\*\n\n((?:  .+\n)+)", _examples, text)
    return format_page(html.unescape(text))


def format_page(text: str) -> str:
    """Format Markdown as ``mdformat`` does in this project."""
    options = tomllib.loads((ROOT / ".mdformat.toml").read_text(encoding="utf-8"))
    return mdformat.text(text, options=options, extensions=["gfm", "tables"])


def _examples(match: re.Match[str]) -> str:
    return "**Examples**:\n\n```console\n" + re.sub(r"(?m)^  ", "$ ", match[1]) + "```\n"


if __name__ == "__main__":
    CLI_DOCS.write_text(render(), encoding="utf-8")
