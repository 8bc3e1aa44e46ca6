"""``cifarml models``: model registry with versions and aliases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarml.cli import options
from cifarml.cli.advice import quoted_path
from cifarml.cli.comparison import compare_versions, print_comparison, test_images
from cifarml.cli.console import print_json, print_list, print_result, print_table, shown_path, shown_time
from cifarml.cli.figures import accuracy_cells, accuracy_columns, interval_rows, no_better
from cifarml.cli.target import Target, open_model, open_registry, target_flag
from cifarml.errors import SettingsError
from cifarml.registry.base import CHAMPION, DEFAULT_NAME, parse_model

if TYPE_CHECKING:
    from cifarml.registry.base import RegisteredModel

app = typer.Typer(
    name="models",
    help=options.group_help("Register, compare and promote models.", "cifarml models list"),
    no_args_is_help=True,
)

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Registered model, such as cifar10:3, cifar10@champion, 3 or champion."
    ),
]


@app.command("list")
def list_command(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Name of a model.", show_default="all models")
    ] = None,
    target: Target = None,
    json: options.Json = False,
) -> None:
    """List the registered versions, oldest first.

    [bold]Examples[/bold]

      cifarml models list
      cifarml models list cifar10 --json
    """
    registry = open_registry(target)
    models = registry.list_models(name)
    accuracy = accuracy_columns(model.metrics for model in models)
    rows = [
        (
            model,
            ", ".join(model.aliases),
            *accuracy_cells(model.metrics, balanced=len(accuracy) > 1),
            shown_time(model.created_at),
            model.run,
            model.tags.get("dataset", ""),
        )
        for model in models
    ]
    columns = ("model", "aliases", *accuracy, "registered", "run", "data")
    empty = "No model is registered. Register the newest run with: cifarml models register latest"
    print_list([_to_json(model) for model in models], columns, rows, empty=empty, json=json)
    for line in [] if json else [each for model in models for each in no_better(str(model), model.metrics)]:
        print(line)
    if models and registry.ui_command and not json:
        print(f"MLflow UI (pip install mlflow): {registry.ui_command}")


@app.command()
def show(model: Model = "champion", target: Target = None, json: options.Json = False) -> None:
    """Show a version's metrics, data and origin.

    [bold]Examples[/bold]

      cifarml models show
      cifarml models show cifar10:2 --json
    """
    _, found = open_model(target, model)
    if json:
        print_json(_to_json(found))
        return
    rows: list[tuple[str, object]] = [("aliases", ", ".join(found.aliases)), ("run", found.run)]
    rows += [("registered", shown_time(found.created_at))] if found.created_at else []
    rows += [(name, f"{value:.6g}") for name, value in found.metrics.items()]
    rows += interval_rows(found.metrics)
    rows += [(name, value) for name, value in found.tags.items() if name != "run"]
    print_table(str(found), ("field", "value"), rows)
    for line in no_better(str(found), found.metrics):
        print(line)


@app.command()
def register(
    run: options.Run = "latest",
    name: Annotated[str, typer.Option(help="Name of the model.")] = "cifar10",
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Compare it with the champion on the test images of --data."),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="With --compare: labelled images.",
            show_default="those that the run was trained on",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    runs_dir: options.RunsDir = None,
    target: Target = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Register a run as a model version.

    Registering the same run again returns the same version.

    [bold]Examples[/bold]

      cifarml models register
      cifarml models register runs/first --name pets
      cifarml models register latest --compare
    """
    from cifarml.train.data_source import Source

    trained = options.open_run(run, runs_dir)
    source = Source.of_run(trained) if data is None else Source(data=data)
    if compare and source is None:
        raise SettingsError(
            f"{trained.path} does not record the source of its images", hint="name one: --data SOURCE"
        )
    registry = open_registry(target)
    model = registry.register(trained, name)
    aliases = f" ({', '.join(model.aliases)})" if model.aliases else ""
    document = _to_json(model)
    if not json:
        print(f"registered {trained.path.name} as {model}{aliases}", flush=True)
        for line in no_better(str(model), model.metrics):
            print(line)
    if compare and source is not None and CHAMPION not in model.aliases:
        champion = registry.get(name, CHAMPION)
        document["comparison"] = compare_versions(champion, model, source, target, json=json, quiet=quiet)
    elif not json:
        endpoint = "" if name == DEFAULT_NAME else f" --name {name}"
        print(f"Next: cifarml deploy --model {model}{endpoint}{target_flag(target)}")
    if json:
        print_json(document)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Current model, such as champion.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Its possible replacement, such as 2.")],
    data: options.Data = "cifar10",
    subset: options.Subset = None,
    subset_seed: options.SubsetSeed = 0,
    skip_bad: options.SkipBad = False,
    target: Target = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare two versions on the same test images.

    Prints the checks of the promotion gate. The comparison is logged in the
    experiment cifar10.

    [bold]Examples[/bold]

      cifarml models compare champion challenger --data cifar10
      cifarml models compare cifar10:1 cifar10:2 --data my_images/ --json
    """
    from cifarml.train.data_source import Source

    registry = open_registry(target)
    both = registry.get(*parse_model(first)), registry.get(*parse_model(second))
    source = Source(data=data, subset=subset, subset_seed=subset_seed, skip_bad=skip_bad)
    document = compare_versions(*both, source, target, json=json, quiet=quiet)
    if json:
        print_json(document)


@app.command()
def promote(
    model: Model,
    alias: Annotated[str, typer.Option(help="Alias to set.")] = "champion",
    if_better: Annotated[
        bool,
        typer.Option(
            "--if-better", help="Promote it only if it is better than the champion on the images of --data."
        ),
    ] = False,
    data: options.Data = "cifar10",
    subset: options.Subset = None,
    subset_seed: options.SubsetSeed = 0,
    skip_bad: options.SkipBad = False,
    max_class_loss: Annotated[
        float, typer.Option(min=0, max=1, help="With --if-better: largest drop of the recall of a class.")
    ] = 0.1,
    max_calibration_loss: Annotated[
        float, typer.Option(min=0, max=1, help="With --if-better: largest increase of the calibration error.")
    ] = 0.02,
    target: Target = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a version the champion.

    cifarml deploy deploys the champion by default. --alias sets another alias.

    [bold]Examples[/bold]

      cifarml models promote cifar10:2
      cifarml models promote challenger --if-better --data cifar10
      cifarml models promote 3 --alias challenger
    """
    from cifarml.registry.promotion import promote_if_better
    from cifarml.registry.promotion_gate import GateLimits
    from cifarml.train.data_source import Source

    registry, found = open_model(target, model)
    document: dict[str, Any] = {}
    if if_better:
        if alias != CHAMPION:
            raise SettingsError(
                f"--if-better can only be used with --alias champion. Received: --if-better --alias {alias}"
            )
        limits = GateLimits(max_class_loss=max_class_loss, max_calibration_loss=max_calibration_loss)
        source = Source(data=data, subset=subset, subset_seed=subset_seed, skip_bad=skip_bad)
        with test_images(source, quiet=quiet) as (dataset, on_progress):
            done = promote_if_better(registry, found, dataset, limits=limits, on_progress=on_progress)
        promoted = done.model
        if done.comparison is not None:
            document = done.comparison.to_json() | {"checks": [check._asdict() for check in done.checks]}
            if not json:
                print_comparison(done.comparison, done.checks)
    else:
        promoted = registry.set_alias(found, alias)
    comparison = {"comparison": document} if document else {}
    lines = [f"{promoted} is now the {alias}", *no_better(str(promoted), promoted.metrics)]
    print_result(_to_json(promoted) | comparison, *lines, json=json)


@app.command()
def download(
    model: Model,
    folder: Annotated[Path, typer.Argument(help="Folder to create.", show_default=False)],
    target: Target = None,
    json: options.Json = False,
) -> None:
    """Download a version to a new folder.

    The hash of each file is verified.

    [bold]Examples[/bold]

      cifarml models download cifar10@champion my_copy
    """
    registry, found = open_model(target, model)
    run = registry.download(found, folder)
    path = shown_path(run.path)
    predict = f"cifarml predict image.png --run {quoted_path(run.path)}"
    lines = f"{found}: {len(run.files)} files in {path}", f"Next: {predict}"
    print_result(_to_json(found) | {"path": run.path}, *lines, json=json)


@app.command()
def delete(model: Model, target: Target = None, json: options.Json = False) -> None:
    """Delete a version and its files.

    Its number is not used again. The champion cannot be deleted.

    [bold]Examples[/bold]

      cifarml models delete cifar10:1
    """
    registry, found = open_model(target, model)
    registry.delete(found)
    print_result({"deleted": str(found)}, f"deleted {found}", json=json)


def _to_json(model: RegisteredModel) -> dict[str, Any]:
    shown = ("name", "version", "aliases", "run", "run_sha256", "metrics", "tags")
    return {name: getattr(model, name) for name in shown} | {"registered": model.created_at}
