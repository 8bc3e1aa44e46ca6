"""``cifarml compute``: Azure ML compute clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cifarml.cli import options
from cifarml.cli.console import print_json, print_list, print_plan, print_result, print_table
from cifarml.cli.target import open_workspace

if TYPE_CHECKING:
    from cifarml.azure.compute import Cluster
    from cifarml.azure.workspace import AzureWorkspace

app = typer.Typer(
    name="compute",
    help=options.group_help("Manage Azure ML compute clusters.", "cifarml compute create gpu --dry-run"),
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the cluster.")]


@app.command()
def create(
    name: Name,
    size: Annotated[
        str, typer.Option(help="VM size; the default has one NVIDIA T4.")
    ] = "Standard_NC4as_T4_v3",
    max_nodes: Annotated[
        int, typer.Option("--max", min=1, max=100, help="Maximum number of machines; the minimum is 0.")
    ] = 1,
    idle_minutes: Annotated[
        int, typer.Option(min=1, max=60, help="Idle minutes after which a machine is released.")
    ] = 2,
    low_priority: Annotated[
        bool, typer.Option("--low-priority", help="Use cheaper machines that Azure may preempt.")
    ] = False,
    dry_run: options.DryRun = False,
    yaml: options.Yaml = None,
    json: options.Json = False,
) -> None:
    """Create a cluster that scales to zero.

    Machines start when a job needs them; an idle cluster costs nothing.

    [bold]Examples[/bold]

      cifarml compute create gpu
      cifarml compute create gpu --size Standard_NC6s_v3 --max 2 --low-priority
      cifarml compute create gpu --dry-run
    """
    from cifarml.azure.compute import (
        ClusterOptions,
        check_cluster_name,
        create_cluster,
        list_clusters,
        write_cluster_yaml,
    )
    from cifarml.azure.prices import find_price

    wanted = ClusterOptions(size, max_nodes, idle_minutes, low_priority)
    check_cluster_name(name)
    if yaml is not None:
        for path in write_cluster_yaml(yaml, name, wanted):
            print(f"az ml compute create -f {path}")
        return
    workspace = open_workspace()
    if dry_run:
        exists = name in {each.name for each in list_clusters(workspace)}
        price = find_price(size, workspace.location, low_priority=low_priority).format()
        steps = [
            f"{'change' if exists else 'create'} cluster {name}: 0 to {max_nodes} x {size}",
            f"cost of a running machine: {price}; idle machines are released after {idle_minutes} minutes",
        ]
        print_plan(steps, json=json)
        return
    _print(workspace, create_cluster(workspace, name, wanted), json=json)
    if not json:
        print(f"Next: cifarml train --compute {name} --data az://CONTAINER/NAME")


@app.command("list")
def list_command(json: options.Json = False) -> None:
    """List the clusters of the workspace.

    [bold]Examples[/bold]

      cifarml compute list
    """
    from cifarml.azure.compute import list_clusters

    clusters = list_clusters(open_workspace())
    rows = [
        (c.name, c.size, f"{c.min_nodes}-{c.max_nodes}", c.state, "cifarml" if c.is_ours else "others")
        for c in clusters
    ]
    columns = ("cluster", "size", "machines", "state", "created by")
    empty = "There are no clusters. Create one with: cifarml compute create gpu"
    print_list(clusters, columns, rows, empty=empty, json=json)


@app.command()
def show(name: Name, json: options.Json = False) -> None:
    """Show a cluster and the price of its machines.

    [bold]Examples[/bold]

      cifarml compute show gpu
    """
    from cifarml.azure.compute import get_cluster

    workspace = open_workspace()
    _print(workspace, get_cluster(workspace, name), json=json)


@app.command()
def delete(name: Name, json: options.Json = False) -> None:
    """Delete a cluster created by cifarml.

    [bold]Examples[/bold]

      cifarml compute delete gpu
    """
    from cifarml.azure.compute import delete_cluster

    delete_cluster(open_workspace(), name)
    print_result({"deleted": name}, f"deleted cluster {name}", json=json)


def _print(workspace: AzureWorkspace, cluster: Cluster, *, json: bool) -> None:
    from cifarml.azure.prices import find_price

    price = find_price(cluster.size, workspace.location, low_priority=cluster.low_priority)
    if json:
        print_json(vars(cluster) | {"per_hour": price.per_hour, "currency": price.currency})
        return
    kind = "low priority" if cluster.low_priority else "dedicated"
    rows = [
        ("size", f"{cluster.size}, {kind}"),
        ("machines", f"{cluster.min_nodes} to {cluster.max_nodes}"),
        ("state", cluster.state),
        ("idle", f"machines are released after {cluster.idle_minutes:g} minutes"),
        ("costs", f"{price.format()} per running machine; nothing while none runs"),
    ]
    print_table(f"Cluster {cluster.name}", ("field", "value"), rows)
