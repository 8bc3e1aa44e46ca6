"""Flags and arguments that several commands share, and what they stand for."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from cifarml.errors import SettingsError
from cifarml.settings import load_settings

if TYPE_CHECKING:
    from cifarml.run import Run as TrainedRun

SOURCE_HELP = (
    "A folder, .zip, .tar.gz or .tar of images (CLASS_NUMBER.png, or a folder for each class), an official "
    "CIFAR-10 archive, either of them in Azure Storage (az://CONTAINER/NAME or its https URL), cifar10 "
    "(downloaded once), or drawn[:COUNT[:SEED]] (drawings of our own)."
)

Source = Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_HELP, show_default=False)]
Data = Annotated[str, typer.Option("--data", metavar="SOURCE", help=SOURCE_HELP)]
Subset = Annotated[
    int | None, typer.Option(min=4, help="Take only so many images, balanced over the classes.")
]
SubsetSeed = Annotated[int, typer.Option(min=0, help="Which images --subset takes.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Go on without images that can't be read.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
RunsDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Where run folders lie; CIFARML_RUNS_DIR, or runs/ here, when left out."
    ),
]
_RUN_HELP = "A run folder, its name, or latest."
RequiredRun = Annotated[str, typer.Argument(metavar="RUN", help=_RUN_HELP, show_default=False)]
FirstRun = Annotated[str, typer.Argument(metavar="A", help=_RUN_HELP)]
Run = Annotated[str, typer.Argument(metavar="[RUN]", help=_RUN_HELP)]
RunFlag = Annotated[
    str | None, typer.Option("--run", help="Which model: a run folder or its name; the newest when left out.")
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="fast: a minute or two on a laptop; best: ten times that; tutorial: the article's network.",
        show_default="fast",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="Of the arithmetic: float32, mixed_bfloat16, mixed_float16, or auto: the fastest here.",
        show_default="auto",
    ),
]
ValidationFraction = Annotated[
    float | None,
    typer.Option(
        help="Share of the training images set apart to watch with, 0 to 0.5.",
        show_default="0.1, but at most 2500 images",
    ),
]
Seed = Annotated[
    int | None, typer.Option(help="Start weights, shuffling, changes and split.", show_default="0")
]
Model = Annotated[
    str, typer.Option(metavar="NAME[@ALIAS|:VERSION]", help="Which registered model, such as cifar10:3.")
]
EndpointName = Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the endpoint.")]
Endpoint = Annotated[str, typer.Argument(metavar="[ENDPOINT]", help="Name of the endpoint.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done and what it costs, and do nothing.")
]
Yaml = Annotated[
    Path | None,
    typer.Option(
        "--yaml", metavar="DIR", help="Write the plan as files for az ml into a new folder, and do nothing."
    ),
]


def runs_folder(runs_dir: Path | None) -> Path:
    """Return the folder with the runs: that of ``--runs-dir``, or of the settings."""
    return runs_dir or load_settings().runs_dir


def open_run(run: str | None, runs_dir: Path | None) -> TrainedRun:
    """Open a run by path, name or ``latest``; the newest if None."""
    from cifarml.run import Run
    from cifarml.run_folders import find_run

    return Run.open(find_run(run, runs_folder(runs_dir)))


def check_folder_name(name: str | None) -> None:
    """Refuse a ``--name`` that is a path, is hidden, or can't be printed."""
    if name is not None and (PurePath(name).name != name or not name.isprintable() or name.startswith(".")):
        raise SettingsError(f"--name must be a plain folder name. Received: {name!r}")


def seconds(text: str) -> float:
    """Parse a duration such as ``90``, ``120s``, ``2m`` or ``1h30m``; 0 is refused."""
    number = r"(\d{1,9}(?:\.\d{1,9})?)"
    form = rf"{number}|(?:(\d{{1,6}})h)?(?:(\d{{1,6}})m)?(?:{number}s)?"
    if found := re.fullmatch(form, text.strip().lower(), re.ASCII):
        alone, hours, minutes, rest = (float(part or 0) for part in found.groups())
        if total := alone + 3600 * hours + 60 * minutes + rest:
            return total
    raise typer.BadParameter(f"must be a time such as 90, 120s, 2m or 1h30m. Received: {text[:40]!r}")
