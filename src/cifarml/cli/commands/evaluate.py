"""``cifarml evaluate``: evaluate a run on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cifarml.cli import options
from cifarml.cli.console import print_json, print_notes, shown_path
from cifarml.cli.figures import print_evaluation
from cifarml.cli.options import DATA, OUTPUT
from cifarml.progress import show_progress


def evaluate(
    context: typer.Context,
    run: options.RequiredRun,
    images: options.OptionalSource = None,
    data: options.Data = "cifar10",
    split: Annotated[
        Literal["test", "train", "all"],
        typer.Option(help="Images of the source to evaluate on.", rich_help_panel=DATA),
    ] = "test",
    subset: options.Subset = None,
    subset_seed: options.SubsetSeed = 0,
    skip_bad: options.SkipBad = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for plots of the confusion matrix and predictions.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Evaluate a trained model on labelled images.

    [bold]Examples[/bold]

      cifarml evaluate latest
      cifarml evaluate runs/first cifar10-images.zip
      cifarml evaluate first new_images/ --split all -o evaluation/
    """
    from cifarml.data.load import load_dataset
    from cifarml.evaluation.evaluate import evaluate_model

    data = options.choose_source(context, images, data)
    trained = options.open_run(run, runs_dir)
    predictor = trained.predictor()
    with show_progress(quiet=quiet) as on_progress:
        dataset = load_dataset(
            data, subset=subset, seed=subset_seed, skip_bad=skip_bad, on_progress=on_progress
        )
        notes = dataset.notes
        print_notes(dataset)
        same_images = trained.info.get("dataset_fingerprint") == dataset.fingerprint
        if split != "all":
            dataset = dataset.test if split == "test" else dataset.train
        evaluation, dataset, probabilities = evaluate_model(predictor, dataset, on_progress=on_progress)
    seen = same_images and split != "test"
    files: list[Path] = []
    if output:
        from cifarml.report.image_grids import prediction_grid
        from cifarml.report.plots import confusion_matrix, save_figure

        files = [
            save_figure(output / "confusion_matrix.png", confusion_matrix(evaluation)),
            save_figure(output / "predictions.png", prediction_grid(dataset, probabilities)),
        ]
    if json:
        about = {"run": trained.path, "data": dataset.origin, "split": split, "notes": notes}
        ignored = [vars(files) for files in dataset.ignored]
        print_json(about | {"seen_in_training": seen} | evaluation.to_json() | {"ignored": ignored})
        return
    print_evaluation(f"{trained.path.name} on {dataset.origin} ({split})", evaluation)
    if seen:
        print("The model was trained on these images; the accuracy on others is probably lower")
    for file in files:
        print(f"Image: {shown_path(file)}")
