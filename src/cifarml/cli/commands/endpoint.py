"""``cifarml endpoint``: manage endpoints on this machine or in Azure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cifarml.cli import options
from cifarml.cli.console import note, note_ignored, print_json, print_list, print_table, shown_time
from cifarml.cli.target import Target, open_host
from cifarml.errors import DeployError

if TYPE_CHECKING:
    from cifarml.deploy.base import Endpoint

app = typer.Typer(
    name="endpoint",
    help=options.group_help("Manage, test and roll back endpoints.", "cifarml endpoint show"),
    no_args_is_help=True,
)

Deployment = Annotated[
    str | None,
    typer.Option(metavar="DEPLOYMENT", help="One of its deployments.", show_default="chosen by the traffic"),
]


@app.command("list")
def list_command(target: Target = None, json: options.Json = False) -> None:
    """List the endpoints.

    [bold]Examples[/bold]

      cifarml endpoint list
      cifarml endpoint list --json
    """
    found = open_host(target).list_endpoints()
    rows = [(e.name, e.state, _shares(e), e.scoring_uri) for e in found]
    columns = ("endpoint", "state", "traffic", "scoring URI")
    empty = "There are no endpoints. Create one with: cifarml deploy"
    print_list(found, columns, rows, empty=empty, json=json)


@app.command()
def show(endpoint: options.Endpoint = "cifar10", target: Target = None, json: options.Json = False) -> None:
    """Show an endpoint and its deployments.

    [bold]Examples[/bold]

      cifarml endpoint show
      cifarml endpoint show demo --json
    """
    host = open_host(target)
    found = host.get_endpoint(endpoint)
    costs = host.costs(found)
    if json:
        print_json(vars(found) | ({"costs": costs} if costs else {}))
        return
    rows = [
        (
            each.name,
            each.model,
            each.state,
            f"{found.traffic.get(each.name, 0)} %",
            "" if each.num_requests is None else f"{each.num_requests:,}",
            "" if each.num_errors is None else f"{each.num_errors:,}",
            each.machines or ("" if each.memory_bytes is None else f"{each.memory_bytes >> 20} MB"),
            shown_time(each.created_at),
        )
        for each in found.deployments
    ]
    size = "machines" if costs else "memory "
    columns = ("deployment", "model", "state", "traffic ", "requests ", "errors ", size, "created")
    print_table(f"Endpoint {found.name}, {found.state}", columns, rows)
    print(f"Scoring URI: {found.scoring_uri}")
    if costs:
        print(f"Costs:       {costs}")


@app.command("test")
def try_it(
    endpoint: options.Endpoint = "cifar10",
    data: Annotated[
        str, typer.Option("--data", metavar="SOURCE", help=options.SOURCE_HELP)
    ] = "drawn:20:20260101",
    deployment: Deployment = None,
    target: Target = None,
    json: options.Json = False,
) -> None:
    """Send labelled images to an endpoint.

    Prints its accuracy and latency. The exit code is 1 if a request fails.

    [bold]Examples[/bold]

      cifarml endpoint test
      cifarml endpoint test demo --data my_images/ --deployment v2
    """
    from cifarml.data.load import load_dataset
    from cifarml.deploy.smoke_test import probe_endpoint

    dataset = note_ignored(load_dataset(data))
    done = probe_endpoint(open_host(target), endpoint, dataset, deployment=deployment)
    if json:
        print_json(done._asdict())
    else:
        for message in done.errors[:10]:
            note(f"Error: {message}")
        print(
            f"{done.num_correct} of {done.num_images} images correct, {len(done.errors)} errors; "
            f"median {done.median_s * 1000:.1f} ms, slowest {done.slowest_s * 1000:.1f} ms"
        )
    if done.errors:
        raise typer.Exit(1)


@app.command()
def logs(
    endpoint: options.Endpoint = "cifar10",
    deployment: Deployment = None,
    tail: Annotated[int, typer.Option(min=1, max=10000, help="Number of lines.")] = 50,
    target: Target = None,
) -> None:
    """Print the last log lines of a deployment.

    [bold]Examples[/bold]

      cifarml endpoint logs
      cifarml endpoint logs demo --deployment v2 --tail 200
    """
    host = open_host(target)
    found = host.get_endpoint(endpoint)
    if deployment is None:
        if not found.deployments:
            raise DeployError(f"endpoint {endpoint} has no deployments")
        deployment = max(found.deployments, key=lambda each: found.traffic.get(each.name, 0)).name
    if fetching := host.storage_logs(endpoint, deployment, tail=tail):
        print(f"Download log of {deployment} (model and code):\n{fetching}\n\nLog of {deployment}:")
    print(host.logs(endpoint, deployment, tail=tail))


@app.command()
def traffic(
    shares: Annotated[
        list[str], typer.Argument(metavar="DEPLOYMENT=PERCENT...", help="Shares that add up to 100, or 0.")
    ],
    name: options.EndpointName = "cifar10",
    target: Target = None,
) -> None:
    """Split the traffic among deployments.

    [bold]Examples[/bold]

      cifarml endpoint traffic v1=90 v2=10
      cifarml endpoint traffic v2=100 --name demo
    """
    wanted: dict[str, int] = {}
    for share in shares:
        deployment, _, percent = share.partition("=")
        if not percent.isascii() or not percent.isdigit() or len(percent) > 3 or deployment in wanted:
            raise DeployError(
                f"expected DEPLOYMENT=PERCENT, each deployment once. Received: {share!r}",
                hint="for example: cifarml endpoint traffic v1=90 v2=10",
            )
        wanted[deployment] = int(percent)
    host = open_host(target)
    host.set_traffic(name, wanted)
    print(f"{name}: {_shares(host.get_endpoint(name))}")


@app.command()
def rollback(endpoint: options.Endpoint = "cifar10", target: Target = None) -> None:
    """Send all traffic to the previous deployment.

    [bold]Examples[/bold]

      cifarml endpoint rollback
    """
    from cifarml.deploy.rollout import roll_back

    print(f"{endpoint}: {_shares(roll_back(open_host(target), endpoint))}")


@app.command()
def keys(
    endpoint: options.Endpoint = "cifar10",
    regenerate: Annotated[
        bool, typer.Option("--regenerate", help="Generate a new key; the old one becomes invalid at once.")
    ] = False,
    target: Target = None,
) -> None:
    """Print the API key of an endpoint.

    Clients send it in the header Authorization: Bearer KEY.

    [bold]Examples[/bold]

      cifarml endpoint keys
      cifarml endpoint keys demo --regenerate
    """
    print(open_host(target).read_key(endpoint, regenerate=regenerate))


@app.command()
def start(endpoint: options.Endpoint = "cifar10") -> None:
    """Start a stopped endpoint of this machine.

    An endpoint is stopped after a restart of the machine, for example.

    [bold]Examples[/bold]

      cifarml endpoint start
    """
    from cifarml.deploy.local.host import LocalHost

    started = LocalHost(on_wait=note).start(endpoint)
    print(f"{endpoint} is {started.state}: {started.scoring_uri}")


@app.command()
def stop(endpoint: options.Endpoint = "cifar10") -> None:
    """Stop an endpoint of this machine.

    It keeps its models, key and traffic.

    [bold]Examples[/bold]

      cifarml endpoint stop
    """
    from cifarml.deploy.local.host import LocalHost

    LocalHost(on_wait=note).stop(endpoint)
    print(f"stopped endpoint {endpoint}. Start it with: cifarml endpoint start {endpoint}")


@app.command()
def delete(
    endpoint: options.Endpoint = "cifar10",
    deployment: Annotated[
        str | None,
        typer.Option(metavar="DEPLOYMENT", help="Delete only this deployment, which must have no traffic."),
    ] = None,
    target: Target = None,
) -> None:
    """Delete an endpoint or one deployment.

    An endpoint is deleted with its processes, models, key and logs.

    [bold]Examples[/bold]

      cifarml endpoint delete
      cifarml endpoint delete demo --deployment v1
    """
    open_host(target).delete(endpoint, deployment)
    print(
        f"deleted endpoint {endpoint}"
        if deployment is None
        else f"deleted deployment {deployment} of {endpoint}"
    )


def _shares(endpoint: Endpoint) -> str:
    shares = (f"{name} {share} %" for name, share in endpoint.traffic.items() if share)
    return ", ".join(shares) or "none"
