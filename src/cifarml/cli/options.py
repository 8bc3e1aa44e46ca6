"""Flags and arguments shared by several commands."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from cifarml.errors import SettingsError
from cifarml.settings import load_settings

if TYPE_CHECKING:
    from cifarml.run import Run as TrainedRun

DATA, TRAINING, MACHINE, AZURE, OUTPUT = "Data", "Training", "Machine", "Azure", "Output"
"""Panels that group the flags in ``--help``."""

SOURCE_HELP = (
    "Labelled images: a folder, .zip, .tar.gz or .tar with a folder for each class or files named "
    "CLASS_NUMBER.png, or with a labels.csv; Parquet or .npz files; an official CIFAR-10 or CIFAR-100 "
    "archive (ARCHIVE:coarse for coarse labels); any of them in Azure Storage (az://CONTAINER/NAME or its "
    "https URL); cifar10 (downloaded once); or drawn[:COUNT[:SEED]] (synthetic drawings)."
)

Source = Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_HELP, show_default=False)]
OptionalSource = Annotated[
    str | None, typer.Argument(metavar="[SOURCE]", help="Same as --data.", show_default=False)
]
Data = Annotated[str, typer.Option("--data", metavar="SOURCE", help=SOURCE_HELP, rich_help_panel=DATA)]
Subset = Annotated[
    int | None,
    typer.Option(min=4, help="Use only this many images, balanced across the classes.", rich_help_panel=DATA),
]
SubsetSeed = Annotated[
    int, typer.Option(min=0, help="Seed that selects the images of --subset.", rich_help_panel=DATA)
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Skip images that can't be read.", rich_help_panel=DATA)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.", rich_help_panel=OUTPUT)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.", rich_help_panel=OUTPUT)]
RunsDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder that contains the run folders.",
        show_default="CIFARML_RUNS_DIR, or runs/",
        rich_help_panel=OUTPUT,
    ),
]
_RUN_HELP = "Run folder, its name, or latest."
RequiredRun = Annotated[str, typer.Argument(metavar="RUN", help=_RUN_HELP, show_default=False)]
FirstRun = Annotated[str, typer.Argument(metavar="A", help=_RUN_HELP)]
Run = Annotated[str, typer.Argument(metavar="[RUN]", help=_RUN_HELP)]
RunFlag = Annotated[str | None, typer.Option("--run", metavar="RUN", help=_RUN_HELP, show_default="latest")]
Preset = Annotated[
    str | None,
    typer.Option(
        help="fast (a minute or two on a laptop), best (ten times that) or tutorial (the article's network).",
        show_default="fast",
        rich_help_panel=TRAINING,
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="Floating-point precision: float32, mixed_bfloat16, mixed_float16, or auto (the fastest here).",
        show_default="auto",
        rich_help_panel=MACHINE,
    ),
]
ValidationFraction = Annotated[
    float | None,
    typer.Option(
        help="Share of the training images held out for validation, 0 to 0.5.",
        show_default="0.1, but at most 2500 images",
        rich_help_panel=DATA,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        help="Random seed of initial weights, shuffling, augmentation and validation split.",
        show_default="0",
        rich_help_panel=TRAINING,
    ),
]
Model = Annotated[
    str, typer.Option(metavar="NAME[@ALIAS|:VERSION]", help="Registered model, such as cifar10:3.")
]
EndpointName = Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the endpoint.")]
Endpoint = Annotated[str, typer.Argument(metavar="[ENDPOINT]", help="Name of the endpoint.")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Show the steps and what they cost; change nothing.", rich_help_panel=OUTPUT
    ),
]
Yaml = Annotated[
    Path | None,
    typer.Option(
        "--yaml",
        metavar="DIR",
        help="Write YAML files for az ml to a new folder; change nothing else.",
        rich_help_panel=AZURE,
    ),
]


def group_help(summary: str, example: str) -> str:
    """Return the help of a group of commands."""
    return f"{summary}\n\n[bold]Examples[/bold]\n\n  {example}\n"


def runs_folder(runs_dir: Path | None) -> Path:
    """Return the folder of the runs: ``--runs-dir``, or the setting ``runs_dir``."""
    return runs_dir or load_settings().runs_dir


def open_run(run: str | None, runs_dir: Path | None) -> TrainedRun:
    """Open a run by path, name or ``latest`` (the default if None)."""
    from cifarml.run import Run
    from cifarml.run_folders import find_run

    return Run.open(find_run(run, runs_folder(runs_dir)))


def choose_source(context: typer.Context, source: str | None, data: str) -> str:
    """Return the source of the images, given as an argument or with ``--data``."""
    if source is None:
        return data
    if is_given(context, "data"):
        raise SettingsError(
            f"a source cannot be combined with --data. Received: {source} --data {data}",
            hint="use one of them",
        )
    return source


def is_given(context: typer.Context, name: str) -> bool:
    """Return whether a parameter was given on the command line."""
    origin = context.get_parameter_source(name)
    return origin is not None and origin.name == "COMMANDLINE"


def check_folder_name(name: str | None) -> None:
    """Reject a ``--name`` that is a path, is hidden, or is not printable."""
    if name is not None and (PurePath(name).name != name or not name.isprintable() or name.startswith(".")):
        raise SettingsError(f"--name must be a plain folder name. Received: {name!r}")


def seconds(text: str) -> float:
    """Parse a duration such as ``90``, ``120s``, ``2m`` or ``1h30m``; 0 is rejected."""
    number = r"(\d{1,9}(?:\.\d{1,9})?)"
    form = rf"{number}|(?:(\d{{1,6}})h)?(?:(\d{{1,6}})m)?(?:{number}s)?"
    if found := re.fullmatch(form, text.strip().lower(), re.ASCII):
        alone, hours, minutes, rest = (float(part or 0) for part in found.groups())
        if total := alone + 3600 * hours + 60 * minutes + rest:
            return total
    raise typer.BadParameter(f"must be a time such as 90, 120s, 2m or 1h30m. Received: {text[:40]!r}")
