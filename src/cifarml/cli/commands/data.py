"""``cifarml data``: inspect and check images, and transfer them to and from Azure Blob Storage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from cifarml.cli import options
from cifarml.cli.console import note, note_ignored, print_json, print_result, print_table, shown_path
from cifarml.progress import show_progress
from cifarml.settings import load_settings

app = typer.Typer(
    name="data",
    help=options.group_help("Inspect, check and transfer images.", "cifarml data check my_images/"),
    no_args_is_help=True,
)

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files whose content differs.")]


@app.command()
def show(
    source: options.Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file to write.")] = Path("grid.png"),
    num_images: Annotated[int, typer.Option("--num", "-n", min=1, max=400, help="Number of images.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed that selects the images.")] = 0,
    subset: options.Subset = None,
    skip_bad: options.SkipBad = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw a grid of images with class names.

    [bold]Examples[/bold]

      cifarml data show drawn
      cifarml data show 2000pics_cifar10.zip -o images.png
    """
    from cifarml.data.load import load_dataset
    from cifarml.report.image_grids import image_grid
    from cifarml.report.plots import save_figure

    with show_progress(quiet=quiet) as on_progress:
        dataset = load_dataset(source, subset=subset, seed=seed, skip_bad=skip_bad, on_progress=on_progress)
    note_ignored(dataset)
    path = save_figure(output, image_grid(dataset, num_images=num_images, seed=seed))
    print_result(
        {
            "path": path,
            "origin": dataset.origin,
            "num_images": len(dataset),
            "notes": dataset.notes,
            "ignored": [vars(files) for files in dataset.ignored],
        },
        f"{dataset.origin}: {len(dataset):,} images, {len(dataset.class_names)} classes",
        *dataset.notes,
        f"Image: {shown_path(path)}",
        json=json,
    )


@app.command()
def check(source: options.Source, json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Check images for problems before training.

    Reports counts per class, image sizes, unreadable files and duplicate images:
    within the training or the test set (a warning), in both (leakage, which
    inflates the test accuracy), or with different labels.

    The exit code is 1 if there is a problem.

    [bold]Examples[/bold]

      cifarml data check 2000pics_cifar10.zip
      cifarml data check my_images/ --json
    """
    from cifarml.data.check import check_source

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
        for text in found.dataset.notes:
            print(f"note      {text}")
        for (width, height), count in found.sizes[:_SHOWN]:
            print(f"size      {width} x {height}: {count:,} images")
        if len(found.sizes) > _SHOWN:
            print(f"size      and {len(found.sizes) - _SHOWN:,} other sizes")
        _print_some("unreadable", [f"{name}: {reason}" for name, reason in found.unreadable])
        _print_some("not read", [f"{files}; {files.hint}" for files in found.ignored])
        _print_some("duplicate", [" = ".join(group) for group in found.duplicates])
        _print_some("leak", [" = ".join(group) for group in found.leaks])
        _print_some("conflict", [" = ".join(group) for group in found.conflicts])
        for warning in found.warnings:
            print(f"Warning: {warning}")
        print("No problems found." if not found.problems else f"Problems: {'; '.join(found.problems)}")
    if found.problems:
        raise typer.Exit(1)


@app.command()
def unzip(
    archive: Annotated[Path, typer.Argument(help="A .zip, .tar.gz or .tar file.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Folder to create.", show_default=False)],
    quiet: options.Quiet = False,
) -> None:
    """Unpack an archive into a new folder.

    Unsafe archives are rejected. Training does not require unpacking: it reads
    archives directly.

    [bold]Examples[/bold]

      cifarml data unzip 2000pics_cifar10.zip images
    """
    from cifarml.data.archives.archive import extract_archive

    with show_progress(quiet=quiet) as on_progress:
        files = extract_archive(archive, folder, on_progress=on_progress)
    note(f"{len(files):,} files in {shown_path(folder)}")


@app.command()
def upload(
    path: Annotated[Path, typer.Argument(help="A file or folder.", show_default=False)],
    destination: Annotated[
        str,
        typer.Argument(
            metavar="[DEST]",
            help="az://CONTAINER/NAME.",
            show_default="the configured container, and the file's name",
        ),
    ] = "",
    overwrite: Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Upload images to Azure Blob Storage.

    A missing container is created, private. Files that are already stored are not
    sent again, and other content is replaced only with --overwrite. To resume an
    interrupted upload, run the same command again.

    [bold]Examples[/bold]

      cifarml data upload 2000pics_cifar10.zip
      cifarml data upload my_images/ az://images/mine
    """
    from cifarml.data.blob.transfer import upload_path

    with show_progress(quiet=quiet) as on_progress:
        address, done = upload_path(path, destination, overwrite=overwrite, on_progress=on_progress)
    counts = {name: getattr(done, name) for name in ("num_sent", "sent_bytes", "saved_bytes")}
    print_result(
        {"address": str(address), "num_files": len(done.names), **counts},
        f"{address}: {_files(len(done.names))}, {decimal(done.sent_bytes)} sent" + _saved(done.saved_bytes),
        f"Next: cifarml train --data {address}",
        json=json,
    )


@app.command()
def download(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="az://CONTAINER/NAME or its https URL.", show_default=False),
    ],
    target: Annotated[Path, typer.Argument(metavar="DEST", help="A file or folder.", show_default=False)],
    overwrite: Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Download images from Azure Blob Storage.

    Training does not require a download: it accepts az:// addresses. The size and
    hash of each file are verified before it appears. To resume an interrupted
    download, run the same command again.

    [bold]Examples[/bold]

      cifarml data download az://2000picscifar10/2000pics_cifar10.zip .
      cifarml data download az://images/mine my_images
    """
    from cifarml.data.blob.transfer import download_path

    with show_progress(quiet=quiet) as on_progress:
        done = download_path(source, target, overwrite=overwrite, on_progress=on_progress)
    where = shown_path(done.paths[0] if len(done.paths) == 1 else target)
    print_result(
        done._asdict(),
        f"{where}: {_files(len(done.paths))}, {decimal(done.fetched_bytes)} fetched"
        + _saved(done.saved_bytes),
        json=json,
    )


@app.command("list")
def list_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="[SOURCE]", help="az://CONTAINER/PREFIX.", show_default="the configured container"
        ),
    ] = "",
    json: options.Json = False,
) -> None:
    """List blobs in Azure Storage.

    Shows their sizes, modification times and hashes.

    [bold]Examples[/bold]

      cifarml data list
      cifarml data list az://2000picscifar10 --json
    """
    from cifarml.data.blob.address import BlobAddress
    from cifarml.data.blob.store import BlobStore

    address = BlobAddress.parse(source or f"az://{load_settings().storage_container}")
    with BlobStore(address) as store:
        blobs = store.list_blobs(address.name)
    if json:
        shown = ("name", "size_bytes", "modified", "sha256", "etag")
        documents = [{name: getattr(blob, name) for name in shown} for blob in blobs]
        print_json([{**each, "address": str(address.at(each["name"]))} for each in documents])
        return
    rows = [
        (
            blob.name,
            decimal(blob.size_bytes),
            f"{blob.modified:%Y-%m-%d %H:%M}" if blob.modified else "",
            f"{blob.sha256[:12]}..." if blob.sha256 else "not stored",
        )
        for blob in blobs
    ]
    if rows:
        print_table(str(address), ("name", "size ", "modified (UTC)", "SHA-256"), rows)
    print(f"{address}: {_files(len(blobs))}, {decimal(sum(blob.size_bytes for blob in blobs))}")


_SHOWN = 10


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def _saved(size_bytes: int) -> str:
    return f" ({decimal(size_bytes)} already stored)" if size_bytes else ""


def _print_some(title: str, lines: list[str]) -> None:
    for line in lines[:_SHOWN]:
        print(f"{title:<9} {line}")
    if len(lines) > _SHOWN:
        print(f"{title:<9} and {len(lines) - _SHOWN:,} more")
