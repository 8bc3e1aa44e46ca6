"""The command ``cifarml``: puts the commands together and turns errors into messages."""

from __future__ import annotations

import logging
import sys
import warnings
from importlib.metadata import version
from typing import Annotated

import typer

from cifarml.cli import (
    compute,
    config,
    data,
    deploy,
    doctor,
    down,
    endpoint,
    evaluate,
    explain,
    jobs,
    models,
    predict,
    quickstart,
    runs,
    serve,
    train,
    tune,
)
from cifarml.cli.console import note, show_log
from cifarml.errors import CifarMLError
from cifarml.extras import explain_missing_extra

app = typer.Typer(
    name="cifarml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(quickstart.quickstart)
app.command()(train.train)
app.command()(tune.tune)
app.command()(evaluate.evaluate)
app.command()(predict.predict)
app.command()(explain.explain)
app.add_typer(data.app, name="data")
app.add_typer(runs.app, name="runs")
app.add_typer(models.app, name="models")
app.command()(deploy.deploy)
app.add_typer(endpoint.app, name="endpoint")
app.command()(serve.serve)
app.add_typer(compute.app, name="compute")
app.add_typer(jobs.app, name="jobs")
app.command()(down.down)
app.add_typer(config.app, name="config")
app.command()(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cifarml {version('cifarml')}")
        raise typer.Exit


@app.callback()
def cifarml(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say what is done behind the scenes, such as signing in.")
    ] = False,
) -> None:
    """From labelled images to a prediction.

    New here? Type: [bold]cifarml quickstart[/bold]
    """
    if verbose:
        show_log()


def main() -> None:
    """Run the command line: exit code 0 when all went well, 1 on an error, 2 on wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what it warns of is in our own errors
    from cifarml.settings import debugging

    if not debugging():  # what Azure's libraries complain of is in our own errors
        logging.getLogger("azure").setLevel(logging.CRITICAL)
    try:
        with explain_missing_extra():
            app()
    except CifarMLError as error:
        if debugging():
            raise
        note(f"Error: {error.message}")
        if error.hint:
            note(f"Hint: {error.hint}")
        sys.exit(1)
