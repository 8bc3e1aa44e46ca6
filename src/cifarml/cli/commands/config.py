"""``cifarml config``: the settings in force."""

from __future__ import annotations

import typer

from cifarml.cli import options
from cifarml.cli.console import print_json, print_table

app = typer.Typer(name="config", help="Show the settings, and where they come from.", no_args_is_help=True)


@app.callback()
def config() -> None:
    """Show the settings, and where they come from."""


@app.command()
def show(json: options.Json = False) -> None:
    """Show each setting and where it comes from. Secrets are not shown.

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
        print("There is no cifarml.toml and no config.json of Azure ML here or in a folder above.")
