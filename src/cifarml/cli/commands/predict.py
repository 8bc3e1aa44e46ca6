"""``cifarml predict``: predict with a run or an endpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cifarml.cli import options
from cifarml.cli.console import note, print_json
from cifarml.cli.target import Target, open_host
from cifarml.errors import DataError, ImageError, SettingsError
from cifarml.progress import OnProgress, Progress, show_progress

if TYPE_CHECKING:
    from cifarml.predict import Prediction

_FEW = 256  # images; no progress bar up to this number


def predict(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE", help="Image files or folders.", show_default=False),
    ],
    run: options.RunFlag = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Query this endpoint instead of loading a run.", show_default=False
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of classes to show for each image.")] = 3,
    target: Target = None,
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Predict the classes of images.

    [bold]Examples[/bold]

      cifarml predict image.png
      cifarml predict one.jpg two.webp --top 5
      cifarml predict holiday/ --run runs/first --json
      cifarml predict image.png --endpoint cifar10
    """
    if run and endpoint:
        raise SettingsError(
            f"--run cannot be combined with --endpoint. Received: --run {run} --endpoint {endpoint}"
        )
    query: Callable[..., list[Prediction | ImageError]]
    if endpoint:
        query = partial(_query_endpoint, endpoint, target)
    else:
        query = options.open_run(run, runs_dir).predictor().predict_many
    paths = _image_files(images)
    with show_progress(quiet=quiet or len(paths) <= _FEW) as on_progress:
        predictions = query(paths, on_progress=on_progress)
    for line in _describe_depth(paths):
        note(line)
    documents: list[dict[str, object]] = []
    for path, prediction in zip(paths, predictions, strict=True):
        if isinstance(prediction, ImageError):
            named = str(path) in prediction.message
            note(f"Error: {prediction.message}" if named else f"Error: {path}: {prediction.message}")
            documents.append({"path": str(path), "error": prediction.message, "hint": prediction.hint})
        elif json:
            documents.append(
                {"path": str(path), **prediction._asdict(), "probabilities": prediction.top(top)}
            )
        else:
            shown = "  ".join(f"{name} {share:.1%}" for name, share in prediction.top(top).items())
            print(f"{path}: {shown}" if len(paths) > 1 else shown)
    if json:
        print_json(documents)
    errors = [
        (path, each) for path, each in zip(paths, predictions, strict=True) if isinstance(each, ImageError)
    ]
    if errors:
        if len(paths) > 1:
            reasons = Counter(error.message.removeprefix(f"{path}: ") for path, error in errors)
            shown = "; ".join(f"{count:,}: {reason}" for reason, count in reasons.most_common(5))
            note(f"{len(errors):,} of {len(paths):,} images have no prediction: {shown}")
        for hint in dict.fromkeys(error.hint for _, error in errors if error.hint):
            note(f"Hint: {hint}")
        raise typer.Exit(1)


def _query_endpoint(
    endpoint: str, target: str | None, paths: list[Path], *, on_progress: OnProgress
) -> list[Prediction | ImageError]:
    host = open_host(target)
    predictions: list[Prediction | ImageError] = []
    for number, path in enumerate(paths, 1):
        try:
            predictions.append(host.invoke(endpoint, path))
        except ImageError as error:
            predictions.append(error)
        on_progress(Progress("querying", number, len(paths)))
    return predictions


def _describe_depth(paths: list[Path]) -> tuple[str, ...]:
    """Describe how images with more than 8 bits per channel are scaled."""
    from cifarml.images import decode_described
    from cifarml.imaging.depth import describe_bits, may_be_deep

    counts: Counter[int] = Counter()
    for path in paths:
        with suppress(OSError, ImageError):  # reported with its prediction
            with path.open("rb") as file:
                is_deep = may_be_deep(file.read(25))
            if is_deep and (bits := decode_described(path).bits) > 8:
                counts[bits] += 1
    return describe_bits(counts)


def _images_inside(folder: Path) -> list[Path]:
    from cifarml.data.file_tree import Folder
    from cifarml.data.ignored import find_images

    tree = Folder(folder)
    return [tree.path(name) for name in find_images(tree)]


def _image_files(images: list[Path]) -> list[Path]:
    """Return the files, and all images inside folders, by suffix or first bytes: readable or not."""
    files: list[Path] = []
    for path in images:
        if path.is_dir():
            inside = sorted(_images_inside(path))
            if not inside:
                raise DataError(f"there are no images in {path}")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise DataError(f"there is no file {path}")
    return files
