"""``cifarml deploy``: roll out a model to an endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cifarml.cli import options
from cifarml.cli.advice import note_champion
from cifarml.cli.console import note, note_ignored, print_json, print_plan
from cifarml.cli.options import AZURE
from cifarml.cli.target import Target, open_host, open_registry, target_flag
from cifarml.errors import RegistryError
from cifarml.registry.base import CHAMPION, RegisteredModel, parse_model

if TYPE_CHECKING:
    from cifarml.deploy.base import Endpoint, EndpointHost
    from cifarml.deploy.class_changes import ClassChanges
    from cifarml.registry.base import ModelRegistry

ROLLOUT = "Rollout"


def deploy(
    model: options.Model = "cifar10@champion",
    name: options.EndpointName = "cifar10",
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Labelled images for the smoke test, like the test images of the model.",
            show_default="synthetic drawings",
            rich_help_panel=ROLLOUT,
        ),
    ] = None,
    canary: Annotated[
        int,
        typer.Option(
            min=1,
            max=99,
            help="Share of the traffic that the new deployment receives first, in percent.",
            rich_help_panel=ROLLOUT,
        ),
    ] = 10,
    canary_seconds: Annotated[
        float,
        typer.Option(
            min=0, max=86400, help="How long the canary is observed, in seconds.", rich_help_panel=ROLLOUT
        ),
    ] = 3.0,
    target: Target = None,
    instance_type: Annotated[
        str | None, typer.Option(help="VM size.", show_default="Standard_F2s_v2", rich_help_panel=AZURE)
    ] = None,
    instances: Annotated[
        int | None, typer.Option(help="Number of machines.", show_default="1", rich_help_panel=AZURE)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Worker processes and concurrent requests per machine.",
            show_default="2",
            rich_help_panel=AZURE,
        ),
    ] = None,
    request_timeout: Annotated[
        int | None,
        typer.Option(help="Request timeout, in seconds.", show_default="10", rich_help_panel=AZURE),
    ] = None,
    mirror: Annotated[
        int,
        typer.Option(
            min=0,
            max=50,
            help="Share of the traffic mirrored to the new deployment before the canary, in percent.",
            rich_help_panel=AZURE,
        ),
    ] = 0,
    auth: Annotated[
        Literal["key", "entra"],
        typer.Option(
            help="How clients authenticate to a new endpoint: with its key or an Entra ID token.",
            rich_help_panel=AZURE,
        ),
    ] = "key",
    yaml: options.Yaml = None,
    dry_run: options.DryRun = False,
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
) -> None:
    """Deploy a model step by step, with rollback.

    The new deployment must pass a smoke test before it receives a canary share of
    the traffic, and then all of it. If a step fails, the previous traffic is
    restored and the new deployment is deleted. The replaced deployment stays
    available for cifarml endpoint rollback. While another process changes the
    endpoint, the command waits.

    If no model is registered yet, the newest run is registered first.

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
    images = None if data is None else note_ignored(load_dataset(data)).test
    changes = _class_changes(host, found, name) if json else None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM rolls back as Ctrl-C does
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
        about = {"endpoint": name, "model": str(found), "scoring_uri": uri, "traffic": endpoint.traffic}
        differ = {"classes_added": changes.added, "classes_removed": changes.removed} if changes else {}
        print_json(about | differ)
        return
    print(f"Scoring URI:  {endpoint.scoring_uri}")
    if page := host.page_address(name):
        print(f"Page:         {page}")
    flag = target_flag(target)
    print(f"Query:        cifarml predict image.png --endpoint {name}{flag}")
    print(
        f'With curl:    curl -H "Authorization: Bearer $(cifarml endpoint keys {name}{flag})" '
        f"-H 'Content-Type: image/png' --data-binary @image.png {endpoint.scoring_uri}"
    )
    print(f"Tear down:    cifarml endpoint delete {name}{flag}")


def find_model(
    registry: ModelRegistry, wanted: str, runs_dir: Path | None, *, dry_run: bool = False
) -> RegisteredModel:
    """Return a registered model; if its name has no versions yet, register the newest run.

    A dry run registers nothing and returns the model that would be registered.
    """
    name, version = parse_model(wanted)
    try:
        found = registry.get(name, version)
    except RegistryError:
        if version != CHAMPION:
            raise
        if registry.list_models(name):
            newest = registry.get(name, "latest")
            note(f"No version of {name} is the champion; using the newest.")
            note_champion(newest, runs_dir)
            return newest
    else:
        note_champion(found, runs_dir)
        return found
    run = options.open_run("latest", runs_dir)
    if dry_run:
        note(f"No model {name} is registered yet; would register the newest run, {run.path.name}.")
        return RegisteredModel(name, "1")
    registered = registry.register(run, name)
    note(f"No model {name} was registered yet; registered the newest run, {run.path.name}, as {registered}.")
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
    """Return the name of the new deployment and the endpoint, whose state is empty if it does not exist."""
    from cifarml.deploy.base import Endpoint
    from cifarml.deploy.rollout import deployment_name

    found = {each.name: each for each in host.list_endpoints()}
    endpoint = found.get(name, Endpoint(name, "", "", {}, ()))
    return deployment_name(host, endpoint, model), endpoint


def _class_changes(host: EndpointHost, model: RegisteredModel, name: str) -> ClassChanges:
    """Compare the classes of a model with those of the live one; without an endpoint, nothing differs."""
    from cifarml.deploy.class_changes import ClassChanges, compare_classes

    endpoint = next((each for each in host.list_endpoints() if each.name == name), None)
    return compare_classes(host, endpoint, model.open_run()) if endpoint else ClassChanges()


def _print_plan(
    host: EndpointHost, model: RegisteredModel, name: str, canary: int, mirror: int, *, json: bool
) -> None:
    from cifarml.deploy.rollout import live_deployment

    new, endpoint = _new_deployment(host, model, name)
    if (live := live_deployment(endpoint, model)) is not None:
        steps = [f"{model} is already live as deployment {live.name}: run the smoke test, change nothing"]
    else:
        steps = [f"{'use' if endpoint.state else 'create'} endpoint {name}"]
        steps += [f"start {model} as deployment {new}, without traffic", "run the smoke test"]
        if endpoint.traffic:
            steps += _class_changes(host, model, name).lines if model.registry else []
            if mirror:
                steps.append(f"mirror {mirror} % of the traffic to {new}")
            steps.append(
                f"send {canary} % of the traffic to {new} and compare it with the previous deployment"
            )
        steps.append(f"send all traffic to {new}")
        for each in endpoint.deployments:
            kept = (endpoint.traffic.get(each.name) or 0) >= 50
            steps.append(
                f"keep {each.name}, without traffic, for a rollback" if kept else f"delete {each.name}"
            )
    if costs := host.costs():
        steps.append(f"cost of each deployment until it is deleted: {costs}")
    print_plan(steps, json=json, endpoint=name, model=str(model))
