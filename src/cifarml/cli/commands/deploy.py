"""``cifarml deploy``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cifarml.cli import options
from cifarml.cli.console import note, print_json, print_plan
from cifarml.cli.target import Target, open_host, open_registry
from cifarml.errors import RegistryError
from cifarml.registry.base import CHAMPION, RegisteredModel, parse_model

if TYPE_CHECKING:
    from cifarml.deploy.base import Endpoint, EndpointHost
    from cifarml.registry.base import ModelRegistry


def deploy(
    model: options.Model = "cifar10@champion",
    name: options.EndpointName = "cifar10",
    canary: Annotated[int, typer.Option(min=1, max=99, help="First share of the requests, percent.")] = 10,
    canary_seconds: Annotated[
        float, typer.Option(min=0, max=86400, help="How long it is watched with that share.")
    ] = 3.0,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Labelled images to try it on, like those of its test; drawings when left out.",
        ),
    ] = None,
    mirror: Annotated[
        int, typer.Option(min=0, max=50, help="In Azure: share of the requests that it first gets copies of.")
    ] = 0,
    instance_type: Annotated[
        str | None, typer.Option(help="In Azure: size of its machines.", show_default="Standard_F2s_v2")
    ] = None,
    instances: Annotated[
        int | None, typer.Option(help="In Azure: how many machines.", show_default="1")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="In Azure: processes on each, and requests at a time.", show_default="2"),
    ] = None,
    request_timeout: Annotated[
        int | None, typer.Option(help="In Azure: longest time for a request, seconds.", show_default="10")
    ] = None,
    auth: Annotated[
        Literal["key", "entra"],
        typer.Option(help="In Azure: callers of a new endpoint show its key, or a token of Entra ID."),
    ] = "key",
    dry_run: options.DryRun = False,
    yaml: options.Yaml = None,
    target: Target = None,
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
) -> None:
    """Bring a model to an endpoint, step by step, and back again where it fails.

    The new model first answers images whose answers are known, then a share of the requests, then all.
    The old one stays, for cifarml endpoint rollback. Where no model is registered yet, the newest run is.

    [bold]Examples[/bold]

      cifarml deploy
      cifarml deploy --model cifar10:2 --canary 25
      cifarml deploy --name demo --dry-run
      cifarml deploy --target azure --instance-type Standard_F4s_v2 --mirror 10
      cifarml deploy --target azure --yaml plan/
    """
    import signal

    from cifarml.data.load import load_dataset
    from cifarml.deploy.rollout import deploy_model

    registry = open_registry(target)
    host = open_host(
        target,
        instance_type=instance_type,
        instance_count=instances,
        workers=workers,
        request_timeout_s=request_timeout,
        auth=auth,
    )
    found = find_model(registry, model, runs_dir, dry_run=dry_run)
    if yaml is not None:
        _write_yaml(host, found, name, yaml)
        return
    if dry_run:
        _print_plan(host, found, name, canary, mirror, json=json)
        return
    images = None if data is None else load_dataset(data).test
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # then, too, all is put back
    endpoint = deploy_model(
        host,
        found,
        name=name,
        canary=canary,
        canary_s=canary_seconds,
        mirror=mirror,
        images=images,
        on_step=note,
    )
    if json:
        uri = endpoint.scoring_uri
        print_json({"endpoint": name, "model": str(found), "scoring_uri": uri, "traffic": endpoint.traffic})
        return
    print(f"Scoring URI:  {endpoint.scoring_uri}")
    if page := host.page_address(name):
        print(f"Page:         {page}")
    print(f"Ask it:       cifarml predict image.png --endpoint {name}")
    print(
        f'With curl:    curl -H "Authorization: Bearer $(cifarml endpoint keys {name})" '
        f"-H 'Content-Type: image/png' --data-binary @image.png {endpoint.scoring_uri}"
    )
    print(f"Tear down:    cifarml endpoint delete {name}")


def find_model(
    registry: ModelRegistry, wanted: str, runs_dir: Path | None, *, dry_run: bool = False
) -> RegisteredModel:
    """Return the model that is wanted; if none is registered yet, register the newest run.

    A dry run registers nothing, and returns what would be registered.
    """
    name, version = parse_model(wanted)
    try:
        return registry.get(name, version)
    except RegistryError:
        if version != CHAMPION:
            raise
        if registry.list_models(name):
            newest = registry.get(name, "latest")
            note(f"No version of {name} is the champion; taking the newest, {newest}.")
            return newest
    run = options.open_run("latest", runs_dir)
    if dry_run:
        note(f"No model {name} is registered yet; the newest run, {run.path.name}, would be.")
        return RegisteredModel(name, "1")
    registered = registry.register(run, name)
    note(f"No model {name} was registered yet; the newest run, {run.path.name}, is now {registered}.")
    return registered


def _write_yaml(host: EndpointHost, model: RegisteredModel, name: str, folder: Path) -> None:
    new, _ = _new_deployment(host, model, name)
    paths = host.write_yaml(folder, name, new, model)
    commands = {
        "environment.yml": "az ml environment create",
        "model.yml": "az ml model create",
        "endpoint.yml": "az ml online-endpoint create",
        "deployment.yml": "az ml online-deployment create",
    }
    for path in paths:
        print(f"{commands[path.name]} -f {path}")


def _new_deployment(host: EndpointHost, model: RegisteredModel, name: str) -> tuple[str, Endpoint]:
    """Return what a new deployment would be called, and the endpoint, without a state if there is none."""
    from cifarml.deploy.base import Endpoint
    from cifarml.deploy.rollout import deployment_name

    found = {each.name: each for each in host.list_endpoints()}
    endpoint = found.get(name, Endpoint(name, "", "", {}, ()))
    return deployment_name(host, endpoint, model), endpoint


def _print_plan(
    host: EndpointHost, model: RegisteredModel, name: str, canary: int, mirror: int, *, json: bool
) -> None:
    from cifarml.deploy.rollout import live_deployment

    new, endpoint = _new_deployment(host, model, name)
    if (live := live_deployment(endpoint, model)) is not None:
        steps = [f"{model} is live already, as deployment {live.name}: it is tested, and nothing is changed"]
    else:
        steps = [f"endpoint {name} is {'there' if endpoint.state else 'made'}"]
        steps += [f"{model} starts as deployment {new}, without traffic", "it answers known images"]
        if endpoint.traffic:
            if mirror:
                steps.append(f"it gets copies of {mirror} % of the requests")
            steps.append(f"it gets {canary} % of the requests, and is compared with the old one")
        steps.append("it gets all requests")
        for each in endpoint.deployments:
            kept = (endpoint.traffic.get(each.name) or 0) >= 50
            steps.append(f"{each.name} {'stays, without traffic, for a rollback' if kept else 'is deleted'}")
    if costs := host.costs():
        steps.append(f"each deployment costs, until it is deleted: {costs}")
    print_plan(steps, json=json, endpoint=name, model=str(model))
