"""``cifarml quickstart``: the whole story in one command."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cifarml.cli.commands.train import CHOSEN
from cifarml.cli.console import load_tensorflow, shown_path
from cifarml.errors import DownloadError, GateError
from cifarml.progress import show_progress

if TYPE_CHECKING:
    from cifarml.data.dataset import Dataset
    from cifarml.registry.base import RegisteredModel
    from cifarml.registry.local.registry import LocalRegistry
    from cifarml.run import Run
    from cifarml.train.config import PresetName

_NAME = "quickstart"
"""Of the model and of the endpoint, so that those of the user are left alone."""
_BRIEF = 5
"""Epochs of the article's network, for a first model to be better than."""
_say = partial(print, flush=True)  # so that lines appear between the progress of their steps


def quickstart(
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where everything is left.")] = Path(
        "quickstart"
    ),
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training images.", show_default=CHOSEN)
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="az://...",
            help="Keep the images in Azure Blob Storage, and train from there.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the endpoint running.")] = False,
) -> None:
    """The whole way on this machine, from images to an endpoint: see it work in three minutes.

    Takes 2000 images of CIFAR-10 (in the cache, or downloaded: 170 MB), or drawings of our own where
    they can't be had; trains the article's network on them, briefly, and then ours; registers and
    compares both; brings the better one live; asks it about a ship; and tears it down again.

    [bold]Examples[/bold]

      cifarml quickstart
      cifarml quickstart --keep
      cifarml quickstart --dir /tmp/try --epochs 5
      cifarml quickstart --storage az://2000picscifar10
    """
    from cifarml.data.blob.address import BlobAddress
    from cifarml.registry.local.registry import LocalRegistry
    from cifarml.report.image_grids import image_grid
    from cifarml.report.plots import save_figure
    from cifarml.run_folders import REPORT

    if storage is not None:
        BlobAddress.parse(storage)  # a mistyped one is told at once
    _say("1. Images")
    dataset = _load_images()
    _say(f"   {shown_path(save_figure(folder / 'images.png', image_grid(dataset)))}")

    if storage is not None:
        dataset = _through_storage(dataset, folder, storage)

    _say("2. Training")
    first = _train(dataset, folder, "tutorial", min(_BRIEF, epochs or _BRIEF))
    second = _train(dataset, folder, "fast", epochs)
    for name in (REPORT, "predictions.png"):
        _say(f"   {shown_path(second.path / name)}")

    _say("3. Registering, and comparing on the test images")
    registry = LocalRegistry(folder / "registry")
    champion = _better_one(registry, first, second, dataset.test)

    _go_live(champion, dataset.test, folder, keep=keep)
    _say(f"Everything else is in {shown_path(folder)}. Ask the newest model without an endpoint:")
    _say(f"   cifarml predict image.png --runs-dir {shown_path(folder / 'runs')}")


def _load_images() -> Dataset:
    from cifarml.data.load import load_dataset

    with show_progress() as on_progress:
        try:
            return load_dataset("cifar10", subset=2000, on_progress=on_progress)
        except DownloadError as error:
            _say(f"   CIFAR-10 can't be had here ({error.message}).")
            _say("   So these are drawings of our own, not photographs.")
            return load_dataset("drawn:2000", on_progress=on_progress)


def _train(dataset: Dataset, folder: Path, preset: PresetName, num_epochs: int | None) -> Run:
    from cifarml.run_folders import new_run_dir
    from cifarml.train.config import TrainConfig

    config = TrainConfig(preset=preset, num_epochs=num_epochs)
    load_tensorflow()
    from cifarml.train.trainer import train_model

    with show_progress() as on_progress:
        path = new_run_dir(folder / "runs", config.preset)
        run = train_model(config, dataset, path, on_progress=on_progress)
    reached, of, epochs = (run.info[key] for key in ("test_accuracy", "num_test_images", "num_epochs"))
    _say(f"   {preset}, {epochs} epoch{'s' * (epochs > 1)}: test accuracy {reached:.1%} on {of} images")
    return run


def _better_one(registry: LocalRegistry, first: Run, second: Run, test_images: Dataset) -> RegisteredModel:
    """Register both, and return the champion: the second, if the gate holds."""
    from cifarml.registry.promotion import promote_if_better
    from cifarml.registry.promotion_gate import BEYOND_NOISE, GateLimits

    _, rival = (registry.register(run, _NAME) for run in (first, second))
    # Few test images, and a first model that has hardly learned: only the gain is looked at strictly.
    limits = GateLimits(max_class_loss=1.0, max_calibration_loss=0.5)
    try:
        done = promote_if_better(registry, rival, test_images, limits=limits)
    except GateError as error:
        _say("   " + error.message.replace("\n", "\n   "))
        return registry.get(_NAME)
    _say("".join(f"   {check.reason}" for check in done.checks if check.name == BEYOND_NOISE))
    _say(f"   {done.model} is the champion")
    return done.model


def _go_live(champion: RegisteredModel, images: Dataset, folder: Path, *, keep: bool) -> None:
    """Deploy the champion, query it, and delete the endpoint unless it is to stay."""
    from PIL import Image

    from cifarml.deploy.local.host import LocalHost
    from cifarml.deploy.rollout import deploy_model

    host = LocalHost()
    _say("4. Going live")
    try:
        deploy_model(host, champion, name=_NAME, images=images, on_step=lambda step: _say(f"   {step}"))
        _say("5. Asking the endpoint for a ship")
        ship = images.images[images.labels == images.class_names.index("ship")][0]
        image = folder / "ship.png"
        Image.fromarray(ship).save(image)
        answer = host.invoke(_NAME, image)
        shown = "  ".join(f"{name} {share:.1%}" for name, share in answer.top(3).items())
        _say(f"   {shown_path(image)}: {shown}")
    finally:
        if not keep and _NAME in {each.name for each in host.list_endpoints()}:
            host.delete(_NAME)
            _say("6. Torn down: no process and no file of the endpoint is left. With --keep it stays.")
    if keep:
        _say("6. The endpoint stays. Look at its page, ask it, and tear it down:")
        _say(f"   {host.page_address(_NAME)}")
        _say(f"   cifarml predict image.png --endpoint {_NAME}")
        _say(f"   cifarml endpoint delete {_NAME}")


def _through_storage(dataset: Dataset, folder: Path, address: str) -> Dataset:
    """Upload the images, and load them from there."""
    from cifarml.data.blob.transfer import upload_path
    from cifarml.data.load import load_dataset
    from cifarml.data.save import save_images

    with show_progress() as on_progress:
        archive = save_images(dataset, folder / f"{len(dataset)}pics.zip", on_progress=on_progress)
        there, done = upload_path(archive, address, on_progress=on_progress)
        told = f"{done.sent_bytes / 1e6:.1f} MB sent" if done.num_sent else "there already"
        _say(f"   {there}: {told}")
        return load_dataset(str(there), on_progress=on_progress)
