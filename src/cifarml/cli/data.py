"""``cifarml data``: look at pictures before training on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cifarml.cli import options
from cifarml.cli.console import note, print_json, print_table, shown_path

__all__ = ["app"]

app = typer.Typer(name="data", help="Look at pictures, check them, unpack them.", no_args_is_help=True)


@app.command()
def show(
    source: options.Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG file to write.")] = Path("grid.png"),
    num_images: Annotated[int, typer.Option("--num", "-n", min=1, max=400, help="How many pictures.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Which pictures.")] = 0,
    subset: options.Subset = None,
    skip_bad: options.SkipBad = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw a grid of pictures with their class names.

    [bold]Examples[/bold]

      cifarml data show drawn
      cifarml data show 2000pics_cifar10.zip -o pictures.png
    """
    from cifarml.data import load_dataset
    from cifarml.progress import show_progress
    from cifarml.train.grids import picture_grid
    from cifarml.train.report import save_figure

    with show_progress(quiet=quiet) as on_progress:
        dataset = load_dataset(source, subset=subset, seed=seed, skip_bad=skip_bad, on_progress=on_progress)
    path = save_figure(output, picture_grid(dataset, num_images=num_images, seed=seed))
    if json:
        print_json({"path": str(path.resolve()), "origin": dataset.origin, "num_images": len(dataset)})
    else:
        print(f"{dataset.origin}: {len(dataset):,} pictures, {len(dataset.class_names)} classes")
        print(f"Picture: {shown_path(path)}")


@app.command()
def check(
    source: options.Source,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Say whether training on these pictures would go wrong; exit code 1 where it would.

    Counts by class, sizes, files that can't be read, and pictures that are there twice: within train or
    test (a warning), in both (the test would flatter the model), or with different labels.

    [bold]Examples[/bold]

      cifarml data check 2000pics_cifar10.zip
      cifarml data check my_pictures/ --json
    """
    from cifarml.data import check_source
    from cifarml.progress import show_progress

    with show_progress(quiet=quiet) as on_progress:
        found = check_source(source, on_progress=on_progress)
    if json:
        print_json(found.to_json())
    else:
        total = ("all", sum(c.train for c in found.classes), sum(c.test for c in found.classes))
        print_table(
            found.dataset.origin,
            ("class", "train ", "test "),
            [(name, f"{train:,}", f"{test:,}") for name, train, test in (*found.classes, total)],
        )
        for (width, height), count in found.sizes[:_SHOWN]:
            print(f"size      {width} x {height}: {count:,} pictures")
        if len(found.sizes) > _SHOWN:
            print(f"size      and {len(found.sizes) - _SHOWN:,} other sizes")
        _print_some("unreadable", [f"{name}: {reason}" for name, reason in found.unreadable])
        _print_some("twice", [" = ".join(group) for group in found.duplicates])
        _print_some("leak", [" = ".join(group) for group in found.leaks])
        _print_some("conflict", [" = ".join(group) for group in found.conflicts])
        for warning in found.warnings:
            print(f"Warning: {warning}")
        print("Good to train on." if not found.problems else f"Problems: {'; '.join(found.problems)}")
    if found.problems:
        raise typer.Exit(1)


@app.command()
def unzip(
    archive: Annotated[Path, typer.Argument(help="A .zip, .tar.gz or .tar.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="The folder to make.", show_default=False)],
    quiet: options.Quiet = False,
) -> None:
    """Unpack an archive into a new folder, refusing unsafe ones.

    Training needs no unpacking: it reads archives as they are.

    [bold]Examples[/bold]

      cifarml data unzip 2000pics_cifar10.zip pictures
    """
    from cifarml.data import extract_archive
    from cifarml.progress import show_progress

    with show_progress(quiet=quiet) as on_progress:
        files = extract_archive(archive, folder, on_progress=on_progress)
    note(f"{len(files):,} files in {shown_path(folder)}")


_SHOWN = 10


def _print_some(title: str, lines: list[str]) -> None:
    for line in lines[:_SHOWN]:
        print(f"{title:<9} {line}")
    if len(lines) > _SHOWN:
        print(f"{title:<9} and {len(lines) - _SHOWN:,} more")
