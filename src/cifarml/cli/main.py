"""Command line ``cifarml``: assemble the commands and print errors as messages."""

from __future__ import annotations

import logging
import sys
import warnings
from importlib.metadata import version
from typing import Annotated

import typer

from cifarml.cli.commands import (
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
from cifarml.environment import explain_environment, shield_environment
from cifarml.errors import CifarMLError
from cifarml.extras import explain_missing_extra
from cifarml.paths import expand_home
from cifarml.settings import debug_enabled

app = typer.Typer(
    name="cifarml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    quickstart.quickstart,
    train.train,
    tune.tune,
    evaluate.evaluate,
    predict.predict,
    explain.explain,
    deploy.deploy,
    serve.serve,
    down.down,
    doctor.doctor,
):
    app.command()(_command)
for _noun in (data, runs, models, endpoint, compute, jobs, config):
    app.add_typer(_noun.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cifarml {version('cifarml')}")
        raise typer.Exit


@app.callback()
def cifarml(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print the log, such as how it signs in to Azure.")
    ] = False,
) -> None:
    """Train, deploy and query image classifiers.

    New here? Start with: [bold]cifarml quickstart[/bold]

    [bold]Examples[/bold]

      cifarml train --subset 2000
      cifarml predict image.png
      cifarml deploy
    """
    if verbose:
        show_log()


def _expand(argument: str) -> str:
    """Expand ``~`` where shells don't: in --flag=~/path, on Windows, and in calls from other programs."""
    flag, sign, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return f"{flag}{sign}{expand_home(value)}" if value.startswith("~") else argument


def main() -> None:
    """Run the command line; the exit code is 0 on success, 1 on an error, 2 on wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    shield_environment()
    sys.argv[1:] = map(_expand, sys.argv[1:])
    warnings.filterwarnings("ignore", module=r"PIL\.")  # cifarml reports these itself
    if not debug_enabled():  # errors of the Azure libraries are in the error messages
        logging.getLogger("azure").setLevel(logging.CRITICAL)
    try:
        with explain_missing_extra(), explain_environment():
            app()
    except CifarMLError as error:
        if debug_enabled():
            raise
        note(f"Error: {error.message}")
        if error.hint:
            note(f"Hint: {error.hint}")
        sys.exit(1)
