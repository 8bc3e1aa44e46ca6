"""``cifarml quickstart``: train, compare, deploy and query in one command."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cifarml.cli.advice import quoted_path
from cifarml.cli.commands.train import CHOSEN
from cifarml.cli.console import load_tensorflow, shown_path
from cifarml.errors import DownloadError, GateError, SettingsError
from cifarml.progress import show_progress

if TYPE_CHECKING:
    from cifarml.data.dataset import Dataset
    from cifarml.registry.base import RegisteredModel
    from cifarml.registry.local.registry import LocalRegistry
    from cifarml.run import Run
    from cifarml.train.config import PresetName

_NAME = "quickstart"
"""Name of the model and the endpoint, distinct from the defaults of the other commands."""
_BASELINE_EPOCHS = 5
"""Epochs of the article's network, which serves as the baseline."""
_print = partial(print, flush=True)  # lines appear in order with the progress on standard error


def quickstart(
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Folder for all files.")] = Path(
        "quickstart"
    ),
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training images.", show_default=CHOSEN)
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="az://...",
            help="Upload the images to Azure Blob Storage and train from there.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the endpoint running.")] = False,
) -> None:
    """Train, compare and deploy in three minutes.

    Loads 2000 images of CIFAR-10 (cached, or downloaded: 170 MB), or synthetic
    drawings if the download fails. Trains the article's network briefly and then
    the preset fast, registers and compares both, deploys the better one on this
    machine, queries it with an image of a ship, and deletes the endpoint.

    [bold]Examples[/bold]

      cifarml quickstart
      cifarml quickstart --keep
      cifarml quickstart --dir /tmp/try --epochs 5
      cifarml quickstart --storage az://2000picscifar10
    """
    from cifarml.data.blob.address import BlobAddress
    from cifarml.locks import ProcessLock

    if storage is not None:
        BlobAddress.parse(storage)  # fail early on an invalid address
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"can't write {folder}: {error.strerror}", hint="choose another --dir") from error
    with ProcessLock(folder / ".lock", f"folder {shown_path(folder)}", on_wait=_print).held("quickstart"):
        _run_steps(folder, epochs, storage, keep=keep)


def _run_steps(folder: Path, epochs: int | None, storage: str | None, *, keep: bool) -> None:
    from cifarml.data.describe import COLUMNS, describe_classes
    from cifarml.registry.local.registry import LocalRegistry
    from cifarml.report.image_grids import image_grid
    from cifarml.report.plots import save_figure
    from cifarml.run_folders import REPORT

    _print("1. Images")
    dataset = _load_images()
    _print(f"   {describe_classes(dataset, width=COLUMNS - 3)}")
    for text in dataset.notes:
        _print(f"   {text}")
    _print(f"   {shown_path(save_figure(folder / 'images.png', image_grid(dataset)))}")

    if storage is not None:
        dataset = _reload_from_storage(dataset, folder, storage)

    _print("2. Training")
    first = _train(dataset, folder, "tutorial", min(_BASELINE_EPOCHS, epochs or _BASELINE_EPOCHS))
    second = _train(dataset, folder, "fast", epochs)
    for name in (REPORT, "predictions.png"):
        _print(f"   {shown_path(second.path / name)}")

    _print("3. Registering and comparing on the test images")
    registry = LocalRegistry(folder / "registry")
    champion = _promote_better(registry, first, second, dataset.test)

    _deploy_and_query(champion, dataset.test, folder, keep=keep)
    _print(f"All other files are in {shown_path(folder)}. To predict without an endpoint:")
    _print(f"   cifarml predict image.png --runs-dir {quoted_path(folder / 'runs')}")


def _load_images() -> Dataset:
    from cifarml.data.load import load_dataset

    with show_progress() as on_progress:
        try:
            return load_dataset("cifar10", subset=2000, on_progress=on_progress)
        except DownloadError as error:
            _print(f"   CIFAR-10 is not available ({error.message}).")
            _print("   Using synthetic drawings instead of photographs.")
            return load_dataset("drawn:2000", on_progress=on_progress)


def _train(dataset: Dataset, folder: Path, preset: PresetName, num_epochs: int | None) -> Run:
    from cifarml.evaluation.evaluate import stored_evaluation
    from cifarml.run_folders import new_run_dir
    from cifarml.train.config import TrainConfig

    config = TrainConfig(preset=preset, num_epochs=num_epochs)
    load_tensorflow()
    from cifarml.train.trainer import train_model

    with show_progress() as on_progress:
        path = new_run_dir(folder / "runs", config.preset)
        run = train_model(config, dataset, path, on_progress=on_progress)
    result, epochs = stored_evaluation(run).by_class, run.info["num_epochs"]
    headline = result.headline(f"{preset}, {epochs} epoch{'s' * (epochs > 1)}:", "test image")
    for line in (headline, *result.cautions()):
        _print(f"   {line}")
    return run


def _promote_better(
    registry: LocalRegistry, first: Run, second: Run, test_images: Dataset
) -> RegisteredModel:
    """Register both runs and return the champion: the second one if it passes the promotion gate."""
    from cifarml.registry.promotion import promote_if_better
    from cifarml.registry.promotion_gate import BEYOND_NOISE, GateLimits

    _, challenger = (registry.register(run, _NAME) for run in (first, second))
    # With few test images and a barely trained baseline, only the accuracy gain is a meaningful check.
    limits = GateLimits(max_class_loss=1.0, max_calibration_loss=0.5)
    try:
        done = promote_if_better(registry, challenger, test_images, limits=limits)
    except GateError as error:
        _print("   " + error.message.replace("\n", "\n   "))
        return registry.get(_NAME)
    _print("".join(f"   {check.reason}" for check in done.checks if check.name == BEYOND_NOISE))
    _print(f"   {done.model} is the champion")
    return done.model


def _deploy_and_query(champion: RegisteredModel, images: Dataset, folder: Path, *, keep: bool) -> None:
    """Deploy the champion, query it, and delete the endpoint if it is new and `keep` is not set."""
    from PIL import Image

    from cifarml.deploy.local.host import LocalHost
    from cifarml.deploy.rollout import deploy_model

    host = LocalHost(on_wait=_print)
    _print("4. Deploying")
    with host.changing(_NAME, "quickstart"):  # until it is deleted: another quickstart waits
        keep = keep or _NAME in {each.name for each in host.list_endpoints()}  # of an earlier --keep
        try:
            deploy_model(host, champion, name=_NAME, images=images, on_step=lambda step: _print(f"   {step}"))
            _print("5. Querying the endpoint with an image of a ship")
            ship = images.images[images.labels == images.class_names.index("ship")][0]
            image = folder / "ship.png"
            Image.fromarray(ship).save(image)
            prediction = host.invoke(_NAME, image)
            shown = "  ".join(f"{name} {share:.1%}" for name, share in prediction.top(3).items())
            _print(f"   {shown_path(image)}: {shown}")
        finally:
            if not keep and _NAME in {each.name for each in host.list_endpoints()}:
                host.delete(_NAME)
                _print("6. Deleted the endpoint, with its processes and files. Use --keep to keep it.")
    if keep:
        _print("6. The endpoint keeps running. Its page, a query, and how to delete it:")
        _print(f"   {host.page_address(_NAME)}")
        _print(f"   cifarml predict image.png --endpoint {_NAME}")
        _print(f"   cifarml endpoint delete {_NAME}")


def _reload_from_storage(dataset: Dataset, folder: Path, address: str) -> Dataset:
    """Upload the images to Azure Blob Storage and load them from there."""
    from cifarml.data.blob.transfer import upload_path
    from cifarml.data.load import load_dataset
    from cifarml.data.save import save_images

    with show_progress() as on_progress:
        archive = save_images(dataset, folder / f"{len(dataset)}pics.zip", on_progress=on_progress)
        blob, done = upload_path(archive, address, on_progress=on_progress)
        sent = f"{done.sent_bytes / 1e6:.1f} MB sent" if done.num_sent else "already stored"
        _print(f"   {blob}: {sent}")
        return load_dataset(str(blob), on_progress=on_progress)
