"""``cifarml down``: delete billable Azure resources."""

from __future__ import annotations

from typing import Annotated

import typer

from cifarml.cli import options
from cifarml.cli.console import note, print_json, print_table
from cifarml.cli.target import open_workspace


def down(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the resources and their costs; delete nothing.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Delete the billable resources of cifarml.

    Cancels the jobs that cifarml created in the Azure ML workspace, then deletes
    its endpoints with their deployments, its clusters and its environments.
    Registered models are kept. Finally lists the workspace again to verify; the
    exit code is 1 if anything remains.

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
        title = "Would be deleted" if dry_run else "Remaining"
        print_table(title, ("kind", "name", "state", "costs"), found)
        for reason in reasons:
            print(f"Why: {reason}")
    else:
        print("No billable resources of cifarml remain.")
    if found and not dry_run:
        raise typer.Exit(1)
