"""``cifarml serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cifarml.cli import options
from cifarml.cli.commands.deploy import find_model
from cifarml.cli.console import note
from cifarml.cli.target import local_registry


def serve(
    model: options.Model = "cifar10@champion",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; a free one for 0.")] = 0,
    runs_dir: options.RunsDir = None,
) -> None:
    """Serve a model in the foreground, on 127.0.0.1, until Ctrl-C.

    Nothing is kept: each start makes a new key. An endpoint that outlives its command is made by
    cifarml deploy.

    [bold]Examples[/bold]

      cifarml serve
      cifarml serve --model cifar10:2 --port 8080
    """
    import tempfile

    from cifarml.deploy.local.foreground import serve_model

    registry = local_registry()
    found = find_model(registry, model, runs_dir)

    def announce(scoring_uri: str, page: str) -> None:
        print(f"Serving {found} at {scoring_uri}")
        print(f"Page: {page}")
        note("Ctrl-C ends it.")

    with tempfile.TemporaryDirectory(prefix="cifarml-") as folder:
        serve_model(found, Path(folder), port=port, on_ready=announce)
