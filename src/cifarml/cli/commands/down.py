"""``cifarml down``."""

from __future__ import annotations

from typing import Annotated

import typer

from cifarml.cli import options
from cifarml.cli.console import note, print_json, print_table
from cifarml.cli.target import open_workspace


def down(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what there is and what it costs, and delete nothing.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Delete everything in the Azure ML workspace that cifarml made and that costs.

    Jobs end first, then endpoints go with their deployments, then clusters and environments. At the end the
    workspace is asked again, and what is left is listed; exit code 1 where that is anything. Models stay.

    [bold]Examples[/bold]

      cifarml down --dry-run
      cifarml down
    """
    from cifarml.deploy.azure.teardown import find_resources, tear_down

    workspace = open_workspace()
    reasons: list[str] = []
    if dry_run:
        found = find_resources(workspace)
    else:
        found, reasons = tear_down(workspace, on_step=note)
    if json:
        print_json({"left": [each._asdict() for each in found], "reasons": reasons})
    elif found:
        title = "This would be deleted" if dry_run else "This is left"
        print_table(title, ("what", "name", "state", "costs"), found)
        for reason in reasons:
            print(f"Why: {reason}")
    else:
        print("Nothing of cifarml's is left that costs.")
    if found and not dry_run:
        raise typer.Exit(1)
