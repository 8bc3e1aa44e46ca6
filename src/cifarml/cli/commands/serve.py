"""``cifarml serve``: serve a model in the foreground."""

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
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 0,
    runs_dir: options.RunsDir = None,
) -> None:
    """Serve a model in the foreground until Ctrl-C.

    Listens on 127.0.0.1 and stores nothing: each start generates a new key. For
    an endpoint that keeps running, use cifarml deploy.

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
        note("Press Ctrl-C to stop.")

    with tempfile.TemporaryDirectory(prefix="cifarml-") as folder:
        serve_model(found, Path(folder), port=port, on_ready=announce)
