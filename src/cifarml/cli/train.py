"""``cifarml train``."""

from __future__ import annotations

from typing import Annotated

import typer

from cifarml.cli import options
from cifarml.cli.console import hidden_native_noise, note, print_json, shown_path

__all__ = ["train"]


def train(
    data: options.Data = "cifar10",
    preset: Annotated[str, typer.Option(help="Which network: tutorial is the article's.")] = "tutorial",
    subset: options.Subset = None,
    subset_seed: options.SubsetSeed = 0,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training pictures.", show_default="30")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures in a step.", show_default="32")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Step size of the optimiser.", show_default="0.0001")
    ] = None,
    validation_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of the training pictures set apart to watch with, 0 to 0.5.", show_default="0.1"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Start weights, shuffling, dropout and split.")] = 0,
    name: Annotated[
        str | None, typer.Option(help="Name of the run folder; date, time and preset when left out.")
    ] = None,
    runs_dir: options.RunsDir = None,
    skip_bad: options.SkipBad = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a network on labelled pictures, and write a run folder.

    The test pictures are looked at once, at the end. Ctrl-C ends the training with what was reached.

    [bold]Examples[/bold]

      cifarml train --subset 2000
      cifarml train --data 2000pics_cifar10.zip --epochs 50
      cifarml train --data my_pictures/ --skip-bad --name first
      cifarml train --data drawn:4000 --json --quiet
    """
    from pathlib import PurePath

    from cifarml.data import load_dataset
    from cifarml.errors import RegistryError, SettingsError
    from cifarml.progress import show_progress
    from cifarml.registry.local import LocalRegistry
    from cifarml.runs import new_run_dir
    from cifarml.settings import load_settings
    from cifarml.train.recipe import TrainConfig

    config = TrainConfig.make(
        preset=preset,
        num_epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        validation_fraction=validation_fraction,
        seed=seed,
    )
    if name is not None and (PurePath(name).name != name or not name.isprintable() or name.startswith(".")):
        raise SettingsError(f"--name must be a plain folder name. Received: {name!r}")
    runs_dir = runs_dir or load_settings().runs_dir
    with show_progress(quiet=quiet) as on_progress:
        dataset = load_dataset(
            data, subset=subset, seed=subset_seed, skip_bad=skip_bad, on_progress=on_progress
        )
        for picture in dataset.skipped:
            note(f"left out {picture.name}: {picture.reason}")
        run_dir = runs_dir / name if name else new_run_dir(runs_dir, config.preset)
        with hidden_native_noise():
            from cifarml.train.device import describe_environment
            from cifarml.train.trainer import train_model

            describe_environment()
        bundle = train_model(config, dataset, run_dir, on_progress=on_progress)
    try:
        LocalRegistry().log_run(bundle)
    except RegistryError as error:  # the run is finished all the same
        note(f"The run could not be logged: {error.message}")
        note(f"Later: cifarml models register {shown_path(bundle.path)}")
    if json:
        print_json({"path": str(bundle.path.resolve()), **bundle.info})
        return
    info = bundle.info
    if info["interrupted"]:
        print(f"Interrupted: the model is as far as it got, in epoch {info['num_epochs'] + 1}.")
    print(
        f"Test accuracy {info['test_accuracy']:.1%} on {info['num_test_images']:,} pictures "
        f"(trained {info['training_s']:.0f} s, {info['images_per_second']:,.0f} pictures/s)"
    )
    path = shown_path(bundle.path)
    print(f"Run folder:      {path}")
    for title, file in (
        ("Learning curves", "learning_curves.png"),
        ("Confusion", "confusion_matrix.png"),
        ("Predictions", "predictions.png"),
    ):
        print(f"{title + ':':<16} {path}/{file}")
    print("Next: cifarml predict image.png   (or, as an endpoint: cifarml deploy)")
