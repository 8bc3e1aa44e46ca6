"""``cifarml deploy``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cifarml.cli import options
from cifarml.cli.console import note, print_json

if TYPE_CHECKING:
    from cifarml.deploy.base import EndpointHost
    from cifarml.registry.base import ModelRegistry, RegisteredModel

__all__ = ["deploy", "find_model", "page_address"]


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
            help="Labelled pictures to try it on, like those of its test; drawings when left out.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
) -> None:
    """Bring a model to an endpoint on this machine, step by step, and back again where it fails.

    The new model first answers pictures whose answers are known, then a share of the requests, then all.
    The old one stays, for cifarml endpoint rollback. Where no model is registered yet, the newest run is.

    [bold]Examples[/bold]

      cifarml deploy
      cifarml deploy --model cifar10:2 --canary 25
      cifarml deploy --name demo --dry-run
    """
    import signal
    import tempfile

    from cifarml.data import load_dataset
    from cifarml.deploy.local import LocalHost
    from cifarml.deploy.rollout import deploy_model
    from cifarml.registry.local import LocalRegistry

    registry, host = LocalRegistry(), LocalHost()
    found = find_model(registry, model, runs_dir, dry_run=dry_run)
    if dry_run:
        _print_plan(host, found, name, canary, json=json)
        return
    pictures = None if data is None else load_dataset(data).test
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # then, too, all is put back
    with tempfile.TemporaryDirectory(prefix="cifarml-") as folder:
        endpoint = deploy_model(
            host,
            found,
            registry.download(found, Path(folder, "bundle")),
            name=name,
            canary=canary,
            canary_s=canary_seconds,
            pictures=pictures,
            on_step=note,
        )
    page = page_address(endpoint.scoring_uri, host.read_key(name))
    if json:
        uri = endpoint.scoring_uri
        print_json({"endpoint": name, "model": str(found), "scoring_uri": uri, "traffic": endpoint.traffic})
        return
    print(f"Scoring URI:  {endpoint.scoring_uri}")
    print(f"Page:         {page}")
    print(f"Ask it:       cifarml predict image.png --endpoint {name}")
    print(
        f'With curl:    curl -H "Authorization: Bearer $(cifarml endpoint keys {name})" '
        f"-H 'Content-Type: image/png' --data-binary @image.png {endpoint.scoring_uri}"
    )
    print(f"Tear down:    cifarml endpoint delete {name}")


def page_address(scoring_uri: str, key: str) -> str:
    """Return the address of an endpoint's page; what stands after # is never sent, so no log has the key."""
    return f"{scoring_uri.removesuffix('score')}#key={key}"


def find_model(
    registry: ModelRegistry, wanted: str, runs_dir: Path | None, *, dry_run: bool = False
) -> RegisteredModel:
    """Return the model that is wanted; where none is registered yet, register the newest run.

    Args:
        registry: Where models are.
        wanted: ``name``, ``name@alias`` or ``name:version``.
        runs_dir: Where runs are.
        dry_run: Don't register, but say so.

    Raises:
        RegistryError: If there is no such model.
        ModelFileError: If there is no model and no run.
    """
    from cifarml.bundle import Bundle
    from cifarml.errors import RegistryError
    from cifarml.registry.base import CHAMPION, RegisteredModel, parse_model
    from cifarml.runs import find_run
    from cifarml.settings import load_settings

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
    bundle = Bundle.open(find_run("latest", runs_dir or load_settings().runs_dir))
    if dry_run:
        note(f"No model {name} is registered yet; the newest run, {bundle.path.name}, would be.")
        return RegisteredModel(name, "1")
    registered = registry.register(bundle, name)
    note(f"No model {name} was registered yet; the newest run, {bundle.path.name}, is now {registered}.")
    return registered


def _print_plan(host: EndpointHost, model: RegisteredModel, name: str, canary: int, *, json: bool) -> None:
    from cifarml.deploy.base import Endpoint
    from cifarml.deploy.rollout import deployment_name, live_deployment

    endpoints = {each.name: each for each in host.list_endpoints()}
    endpoint = endpoints.get(name)
    if endpoint is not None and (live := live_deployment(endpoint, model)) is not None:
        steps = [f"{model} is live already, as deployment {live.name}: it is tested, and nothing is changed"]
    else:
        new = deployment_name(endpoint or Endpoint(name, "", "", {}, ()), model)
        steps = [f"endpoint {name} is {'there' if endpoint else 'made'}"]
        steps += [f"{model} starts as deployment {new}, without traffic", "it answers known pictures"]
        if endpoint is not None and endpoint.traffic:
            steps.append(f"it gets {canary} % of the requests, and is compared with the old one")
        steps.append("it gets all requests")
    if json:
        print_json({"endpoint": name, "model": str(model), "steps": steps})
        return
    print("This would be done:")
    for number, step in enumerate(steps, 1):
        print(f"{number}. {step}")
