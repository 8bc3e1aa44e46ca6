"""``cifarml config``: effective settings."""

from __future__ import annotations

import typer

from cifarml.cli import options
from cifarml.cli.console import print_json, print_table

app = typer.Typer(name="config", no_args_is_help=True)


@app.callback()
def config() -> None:
    """Show the settings and their sources.

    [bold]Examples[/bold]

      cifarml config show
    """


@app.command()
def show(json: options.Json = False) -> None:
    """Show each setting and its source.

    Secrets are hidden.

    [bold]Examples[/bold]

      cifarml config show
      cifarml config show --json
    """
    from cifarml.settings import describe_settings, settings_files

    found, files = describe_settings(), settings_files()
    if json:
        settings = [{"name": each.name, "value": each.value, "from": each.origin} for each in found]
        print_json({"settings": settings, "files": [str(path) for path in files]})
        return
    print_table("", ("name", "value", "from"), [(each.name, each.value or "", each.origin) for each in found])
    for path in files:
        print(f"Read: {path}")
    if not files:
        print("There is no cifarml.toml and no Azure ML config.json in this folder or its parents.")
