"""``cifarml runs``: training runs of this machine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarml.cli import options
from cifarml.cli.console import note_ignored, print_json, print_list, print_table, shown_path
from cifarml.cli.figures import accuracy_cells, accuracy_columns, figure_rows, no_better, print_evaluation
from cifarml.errors import SettingsError
from cifarml.progress import show_progress

if TYPE_CHECKING:
    from cifarml.evaluation.compare_runs import RunComparison, RunFigures

app = typer.Typer(
    name="runs",
    help=options.group_help("List, show and compare training runs.", "cifarml runs list"),
    no_args_is_help=True,
)


@app.command("list")
def list_command(runs_dir: options.RunsDir = None, json: options.Json = False) -> None:
    """List the training runs, oldest first.

    Includes logged runs stored elsewhere. With --runs-dir, lists only the runs in
    that folder.

    [bold]Examples[/bold]

      cifarml runs list
      cifarml runs list --runs-dir quickstart/runs --json
    """
    from cifarml.registry.local.registry import LocalRegistry
    from cifarml.run_folders import list_runs, resume_command

    folder = options.runs_folder(runs_dir)
    found = list_runs(folder)
    if runs_dir is None:
        here = {run.path.resolve() for run in found}
        found = [run for run in LocalRegistry().list_runs() if run.path.resolve() not in here] + found
    documents = [{"name": r.name, "path": r.path, "state": r.state, **r.info} for r in found]
    empty = f"There are no runs in {folder.resolve()}. Train one with: cifarml train --subset 2000"
    accuracy = accuracy_columns(r.info for r in found)
    rows = [
        (
            r.name if r.path.parent == folder else shown_path(r.path),
            r.state,
            *accuracy_cells(r.info, balanced=len(accuracy) > 1),
            "/".join(f"{r.info[key]:.0f}" for key in ("num_epochs", "planned_epochs") if key in r.info),
            f"{r.info['training_s']:.0f} s" if "test_accuracy" in r.info else "",
            r.info.get("dataset", ""),
        )
        for r in found
    ]
    columns = ("run", "state", *accuracy, "epochs ", "training ", "data")
    print_list(documents, columns, rows, empty=empty, json=json)
    if json:
        return
    for run in found:
        for line in no_better(run.name, run.info):
            print(line)
        if run.state == "unfinished":
            print(f"Resume {run.name} with: {resume_command(Path(shown_path(run.path)))}")


@app.command()
def show(run: options.Run = "latest", runs_dir: options.RunsDir = None, json: options.Json = False) -> None:
    """Show a run's settings, metrics and files.

    The hash of each file is verified.

    [bold]Examples[/bold]

      cifarml runs show
      cifarml runs show runs/first --json
    """
    from cifarml.evaluation.evaluate import stored_evaluation
    from cifarml.run_folders import CONFIG, METRICS, REPORT, shown_settings
    from cifarml.train.data_source import Source

    trained = options.open_run(run, runs_dir)
    trained.verify()
    config, metrics = trained.read_json(CONFIG), trained.read_json(METRICS)
    if json:
        print_json({"path": trained.path, **trained.info, "config": config, "metrics": metrics})
        return
    about = {name: value for name, value in trained.info.items() if name != "source"}
    if source := Source.of_run(trained):
        about["source"] = shlex.join([source.data, *source.flags])
    rows = [(name, _setting(value)) for name, value in {**shown_settings(config), **about}.items()]
    print_table(f"Run {trained.path.name}", ("setting", "value"), rows)
    print_evaluation("Test images", stored_evaluation(trained))
    for name in trained.files:
        print(shown_path(trained.path / name) + ("   (open it with a browser)" if name == REPORT else ""))


@app.command()
def compare(
    first: options.FirstRun,
    second: Annotated[str, typer.Argument(metavar="B", help="Another run.")],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="Evaluate both on the test images of this source.",
            show_default="the test images that both have in common",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    subset: options.Subset = None,
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare two runs and test the difference.

    Runs with the same test images are compared by their predictions, with
    McNemar's exact test.

    [bold]Examples[/bold]

      cifarml runs compare first second
      cifarml runs compare first latest --json
      cifarml runs compare runs/first elsewhere/second --data cifar10
    """
    from cifarml.data.load import load_dataset
    from cifarml.evaluation.compare_runs import compare_runs
    from cifarml.train.data_source import Source

    if subset is not None and data is None:
        raise SettingsError(
            "--subset requires --data. Received: --subset without --data", hint="add --data SOURCE"
        )
    runs = [options.open_run(run, runs_dir) for run in (first, second)]
    names = runs[0].path.name, runs[1].path.name
    if names[0] == names[1]:
        names = shown_path(runs[0].path), shown_path(runs[1].path)
    with show_progress(quiet=quiet or data is None) as on_progress:
        images = None
        if data:
            images = note_ignored(load_dataset(data, subset=subset, on_progress=on_progress)).test
        both = compare_runs(runs[0], runs[1], images, names=names, on_progress=on_progress)
    if json:
        print_json(
            {
                "runs": [_to_json(run) for run in (both.first, both.second)],
                "differing_settings": both.differing,
                "comparison": both.comparison.to_json() if both.comparison else None,
                "verdict": both.verdict,
            }
        )
        return
    _print_side_by_side(both)
    print(both.verdict)
    if both.comparison is None:
        source = Source.of_run(runs[1]) or Source(data="cifar10")
        command = ["cifarml", "runs", "compare", first, second, "--data", source.data]
        command += ["--subset", str(source.subset)] if source.subset else []
        command += ["--runs-dir", str(runs_dir)] if runs_dir else []
        print(f"Evaluate both on the same images with: {shlex.join(command)}")
    elif data and both.first.figures.trained_on != both.second.figures.trained_on:
        print("The runs were trained on different images; make sure that neither was trained on these.")


def _print_side_by_side(both: RunComparison) -> None:
    """Print differing settings and the metrics of both, on common images if both were evaluated on some."""
    runs = both.first, both.second
    shown = [run.figures for run in runs]
    if both.comparison is not None:
        shown = [both.comparison.first, both.comparison.second]
    columns = ("", f"{shown[0].name} ", f"{shown[1].name} ")
    changed = dict(both.differing)
    if shown[0].trained_on != shown[1].trained_on:
        changed["data"] = runs[0].info.get("dataset"), runs[1].info.get("dataset")
    if changed:
        print_table("Differences", columns, [(name, *map(_setting, pair)) for name, pair in changed.items()])
    else:
        print("Both have the same settings and images.")
    names = dict.fromkeys((*shown[0].recall, *shown[1].recall))
    rows = [
        *figure_rows(shown, names),
        ("training", *(f"{run.info['training_s']:,.0f} s" for run in runs)),
        ("images/s in training", *(f"{run.info['images_per_second']:,.0f}" for run in runs)),
        ("parameters", *(f"{run.info['num_parameters']:,}" for run in runs)),
        ("model.onnx", *(f"{run.model_bytes / 1e6:.1f} MB" for run in runs)),
    ]
    title = "Each on its own test images"
    if both.comparison is not None:
        title = f"On the same {both.comparison.num_images:,} test images of {both.comparison.data}"
    print_table(title, columns, rows)


def _setting(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _to_json(run: RunFigures) -> dict[str, Any]:
    figures = ("name", "accuracy", "loss", "calibration_error", "recall")
    about = ("dataset", "training_s", "images_per_second", "num_parameters", "num_epochs")
    return {
        **{name: getattr(run.figures, name) for name in figures},
        **{name: run.info.get(name) for name in about},
        "config": run.config,
        "num_test_images": sum(run.class_counts.values()),
        "model_bytes": run.model_bytes,
    }
