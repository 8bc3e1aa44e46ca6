"""``cifarml quickstart``: the whole story in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cifarml.cli.console import hidden_native_noise, shown_path

if TYPE_CHECKING:
    from cifarml.data import Dataset

__all__ = ["quickstart"]


def quickstart(
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where everything is left.")] = Path(
        "quickstart"
    ),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training pictures.")] = 30,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="az://...",
            help="Keep the pictures in Azure Blob Storage, and train from there.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Pictures, training, prediction: see it work in three minutes.

    Takes 2000 pictures of CIFAR-10 (in the cache, or downloaded: 170 MB), or drawings of our own where
    they can't be had; trains the article's network on them; and asks it about one it has not seen.

    [bold]Examples[/bold]

      cifarml quickstart
      cifarml quickstart --dir /tmp/try --epochs 5
      cifarml quickstart --storage az://2000picscifar10
    """
    from PIL import Image

    from cifarml.data import load_dataset
    from cifarml.errors import DownloadError
    from cifarml.predict import Predictor
    from cifarml.progress import show_progress
    from cifarml.runs import new_run_dir
    from cifarml.train.grids import picture_grid
    from cifarml.train.recipe import TrainConfig
    from cifarml.train.report import save_figure

    _say("1. Pictures")
    with show_progress() as on_progress:
        try:
            dataset = load_dataset("cifar10", subset=2000, on_progress=on_progress)
        except DownloadError as error:
            _say(f"   CIFAR-10 can't be had here ({error.message}).")
            _say("   So these are drawings of our own, not photographs.")
            dataset = load_dataset("drawn:2000", on_progress=on_progress)
    _say(f"   {shown_path(save_figure(folder / 'pictures.png', picture_grid(dataset)))}")

    if storage is not None:
        dataset = _through_storage(dataset, folder, storage)

    _say("2. Training")
    config = TrainConfig.make(num_epochs=epochs)
    with hidden_native_noise():
        from cifarml.train.device import describe_environment
        from cifarml.train.trainer import train_model

        describe_environment()
    with show_progress() as on_progress:
        bundle = train_model(
            config, dataset, new_run_dir(folder / "runs", config.preset), on_progress=on_progress
        )
    _say(f"   test accuracy {bundle.info['test_accuracy']:.1%} on {bundle.info['num_test_images']} pictures")
    for name in ("learning_curves.png", "confusion_matrix.png", "predictions.png"):
        _say(f"   {shown_path(bundle.path / name)}")

    _say("3. Prediction")
    ship = dataset.test.images[dataset.test.labels == dataset.class_names.index("ship")][0]
    picture = folder / "ship.png"
    Image.fromarray(ship).save(picture)
    answer = Predictor.load(bundle.path).predict(picture.read_bytes())
    shown = "  ".join(f"{name} {share:.1%}" for name, share in answer.top(3).items())
    _say(f"   {shown_path(picture)}: {shown}")
    _say(f"Everything is in {shown_path(folder)}. Ask about a picture of yours:")
    _say(f"   cifarml predict image.png --runs-dir {shown_path(folder / 'runs')}")


def _through_storage(dataset: Dataset, folder: Path, address: str) -> Dataset:
    """Upload the pictures, and load them from there."""
    from cifarml.data import load_dataset
    from cifarml.data.blob import upload_path
    from cifarml.data.save import save_pictures
    from cifarml.progress import show_progress

    with show_progress() as on_progress:
        archive = save_pictures(dataset, folder / f"{len(dataset)}pics.zip", on_progress=on_progress)
        there, done = upload_path(archive, address, on_progress=on_progress)
        told = f"{done.sent_bytes / 1e6:.1f} MB sent" if done.num_sent else "there already"
        _say(f"   {there}: {told}")
        return load_dataset(str(there), on_progress=on_progress)


def _say(text: str) -> None:
    """Print a line of the story at once, so that it stands between the progress of its steps."""
    print(text, flush=True)
