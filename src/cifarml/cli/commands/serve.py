"""``cifarml serve``: serve a model in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cifarml.cli import options
from cifarml.cli.commands.deploy import find_model
from cifarml.cli.console import note
from cifarml.cli.target import local_registry

NETWORK = "Network"


def serve(
    model: options.Model = "cifar10@champion",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 0,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on besides 127.0.0.1; 0.0.0.0 for all.",
            show_default="127.0.0.1",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    root_path: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Path prefix of a reverse proxy, such as /cifar10.", rich_help_panel=NETWORK
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Host name by which clients address the endpoint, besides localhost; may be repeated.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Origin of other web pages that may send requests (CORS), such as https://app.example.com; "
            "may be repeated.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address or network of a proxy whose X-Forwarded-For and X-Forwarded-Proto are believed; "
            "may be repeated.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    runs_dir: options.RunsDir = None,
) -> None:
    """Serve a model in the foreground until Ctrl-C.

    Listens on 127.0.0.1 and stores nothing: each start generates a new key,
    unless CIFARML_SERVE_KEY is set. For an endpoint that keeps running, use
    cifarml deploy.

    Plain HTTP shows the key and all images to the network. For access from other
    machines, put a proxy with TLS in front, or use ssh -L.

    [bold]Examples[/bold]

      cifarml serve
      cifarml serve --model cifar10:2 --port 8080
      cifarml serve --root-path /cifar10 --allowed-host models.example.com
    """
    import tempfile

    from cifarml.deploy.local.foreground import serve_model
    from cifarml.serve.exposure import Exposure
    from cifarml.settings import load_settings

    settings = load_settings(
        serve_host=host,
        serve_root_path=root_path,
        serve_allowed_hosts=allowed_host or None,
        serve_allowed_origins=allowed_origin or None,
        serve_trusted_proxies=trusted_proxy or None,
    )
    exposure = Exposure.from_settings(settings)
    key = settings.serve_key.get_secret_value() if settings.serve_key else None
    registry = local_registry()
    found = find_model(registry, model, runs_dir)

    def announce(scoring_uri: str, page: str) -> None:
        print(f"Serving {found} at {scoring_uri}")
        print(f"Page: {page}", flush=True)  # the log of a container shows it at once
        if exposure.warning:
            note(exposure.warning)
        note("Press Ctrl-C to stop.")

    with tempfile.TemporaryDirectory(prefix="cifarml-") as folder:
        serve_model(found, Path(folder), port=port, exposure=exposure, key=key, on_ready=announce)
