"""docs/cli.md, made from the live command line: ``python -m tests.cli_docs`` writes it anew."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CLI_DOCS = Path(__file__).parents[1] / "docs" / "cli.md"


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
    return html.unescape(text).rstrip() + "\n"


def _examples(match: re.Match[str]) -> str:
    return "**Examples**:\n\n```console\n" + re.sub(r"(?m)^  ", "$ ", match[1]) + "```\n"


if __name__ == "__main__":
    CLI_DOCS.write_text(render(), encoding="utf-8")
