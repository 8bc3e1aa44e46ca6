"""Flags that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SOURCE_HELP = (
    "A folder, .zip, .tar.gz or .tar of pictures (CLASS_NUMBER.png, or a folder for each class), an official "
    "CIFAR-10 archive, either of them in Azure Storage (az://CONTAINER/NAME or its https URL), cifar10 "
    "(downloaded once), or drawn[:COUNT[:SEED]] (drawings of our own)."
)

Source = Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_HELP, show_default=False)]
Data = Annotated[str, typer.Option("--data", metavar="SOURCE", help=SOURCE_HELP)]
Subset = Annotated[
    int | None, typer.Option(min=4, help="Take only so many pictures, balanced over the classes.")
]
SubsetSeed = Annotated[int, typer.Option(min=0, help="Which pictures --subset takes.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Go on without pictures that can't be read.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
RunsDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Where run folders lie; CIFARML_RUNS_DIR, or runs/ here, when left out."
    ),
]
Model = Annotated[
    str,
    typer.Option(metavar="NAME[@ALIAS|:VERSION]", help="Which registered model, such as cifar10:3."),
]
EndpointName = Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the endpoint.")]
Endpoint = Annotated[str, typer.Argument(metavar="[ENDPOINT]", help="Name of the endpoint.")]
Yaml = Annotated[
    Path | None,
    typer.Option(
        "--yaml", metavar="DIR", help="Write the plan as files for az ml into a new folder, and do nothing."
    ),
]
