"""``cifarml runs``: what was trained on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from cifarml.cli import options
from cifarml.cli.console import print_json, print_table, shown_path

__all__ = ["app"]

app = typer.Typer(name="runs", help="List and show what was trained.", no_args_is_help=True)


@app.command("list")
def list_command(runs_dir: options.RunsDir = None, json: options.Json = False) -> None:
    """List the runs, the oldest first: those in the run folder, and all others that were logged.

    With --runs-dir, only those that lie there.

    [bold]Examples[/bold]

      cifarml runs list
      cifarml runs list --runs-dir quickstart/runs --json
    """
    from cifarml.registry.local import LocalRegistry
    from cifarml.runs import list_runs
    from cifarml.settings import load_settings

    only_here = runs_dir is not None
    runs_dir = runs_dir or load_settings().runs_dir
    found = list_runs(runs_dir)
    if not only_here:
        here = {run.path.resolve() for run in found}
        found = [run for run in LocalRegistry().list_runs() if run.path.resolve() not in here] + found
    if json:
        print_json(
            [{"name": r.name, "path": str(r.path.resolve()), "state": r.state, **r.info} for r in found]
        )
        return
    if not found:
        print(f"There are no runs in {runs_dir.resolve()}. Train one with: cifarml train --subset 2000")
        return
    rows = []
    for run in found:
        info = run.info
        known = "test_accuracy" in info
        rows.append(
            (
                run.name,
                run.state,
                f"{info['test_accuracy']:.1%}" if known else "",
                f"{info['num_epochs']:.0f}" if "num_epochs" in info else "",
                f"{info['training_s']:.0f} s" if known else "",
                info.get("dataset", ""),
            )
        )
    print_table("", ("run", "state", "test accuracy ", "epochs ", "training ", "data"), rows)


@app.command()
def show(
    run: Annotated[
        str, typer.Argument(metavar="[RUN]", help="A run folder, its name, or latest.")
    ] = "latest",
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
) -> None:
    """Show one run: settings, figures of each class, files. The hash of every file is checked.

    [bold]Examples[/bold]

      cifarml runs show
      cifarml runs show runs/first --json
    """
    from cifarml.bundle import Bundle
    from cifarml.cli.console import print_evaluation
    from cifarml.metrics import Evaluation
    from cifarml.runs import CONFIG, METRICS, find_run
    from cifarml.settings import load_settings

    bundle = Bundle.open(find_run(run, runs_dir or load_settings().runs_dir))
    bundle.verify()
    config, metrics = bundle.read_json(CONFIG), bundle.read_json(METRICS)
    if json:
        print_json({"path": str(bundle.path.resolve()), **bundle.info, "config": config, "metrics": metrics})
        return
    print_table(
        f"Run {bundle.path.name}",
        ("setting", "value"),
        [*config.items(), *((name, value) for name, value in bundle.info.items() if name not in config)],
    )
    print_evaluation("Test pictures", Evaluation.from_json(metrics["test"]))
    for name in bundle.files:
        print(shown_path(bundle.path / name))
