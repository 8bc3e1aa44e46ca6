"""``cifarml tune``: hyperparameter search."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from cifarml.cli import options
from cifarml.cli.commands.train import CHOSEN, load_images
from cifarml.cli.console import load_tensorflow, print_json, print_table, shown_path
from cifarml.cli.options import OUTPUT, TRAINING
from cifarml.progress import show_progress

if TYPE_CHECKING:
    from cifarml.tune.trials import TuneResult

_SHOWN = 5


def tune(
    context: typer.Context,
    images: options.OptionalSource = None,
    data: options.Data = "cifar10",
    subset: options.Subset = None,
    subset_seed: options.SubsetSeed = 0,
    skip_bad: options.SkipBad = False,
    validation_fraction: options.ValidationFraction = None,
    preset: options.Preset = None,
    time_budget: Annotated[
        float | None,
        typer.Option(
            parser=options.seconds,
            metavar="TIME",
            help="Duration of the search, such as 90s, 30m or 1h30m.",
            show_default="30m",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop after this many trials, including those of earlier calls.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    num_epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            help="Passes over the training images in each trial.",
            show_default=CHOSEN,
            rich_help_panel=TRAINING,
        ),
    ] = None,
    seed: options.Seed = None,
    precision: options.Precision = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY",
            help="Name of the search; an existing one is resumed.",
            show_default="preset and hash of the images",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Search for better hyperparameters.

    All trials are scored on the same validation images, which are not test
    images. The first trial uses the settings of the preset, and unpromising
    trials are stopped early.

    The results are stored in tuning/STUDY in the folder of the runs. The same
    command resumes the search, also after Ctrl-C or a crash, and several
    processes can search at once.

    [bold]Examples[/bold]

      cifarml tune --subset 2000 --time-budget 30m
      cifarml tune my_images/ --preset fast --trials 20 --epochs 10
      cifarml train --subset 2000 --config runs/tuning/STUDY/best.toml
    """
    parameters = dict(locals())  # named as the settings of TrainConfig
    data = options.choose_source(context, images, data)
    from cifarml.train.config import TrainConfig
    from cifarml.train.data_source import Source

    settings = {each: parameters[each] for each in TrainConfig.model_fields if each in parameters}
    config = TrainConfig(**settings)
    options.check_folder_name(name)
    runs_dir = options.runs_folder(runs_dir)
    source = Source(data=data, subset=subset, subset_seed=subset_seed, skip_bad=skip_bad)
    with show_progress(quiet=quiet) as on_progress:
        dataset = load_images(source, on_progress, config)
        study_dir = runs_dir / "tuning" / (name or f"{config.preset}-{dataset.fingerprint[:8]}")
        load_tensorflow()
        from cifarml.tune.search import tune_model

        result = tune_model(
            config,
            dataset,
            study_dir,
            time_budget_s=time_budget or 1800.0,
            num_trials=trials,
            on_progress=on_progress,
        )
    if json:
        print_json(result.to_json())
        return
    print_result(result)
    shown = (["--data", data] if data != "cifar10" else []) + source.flags
    command = ["cifarml", "train", *shown, "--config", shown_path(result.settings_file)]
    print(f"Next: {shlex.join(command)}")


def print_result(result: TuneResult) -> None:
    """Print the best trials and the gain of the best one over the settings of the preset."""
    finished = [trial for trial in result.trials if trial.ended == "finished"]
    ranked = sorted(finished, key=lambda trial: (-(trial.accuracy or 0.0), trial.number))
    others = sum(trial.ended not in {"finished", "running"} for trial in result.trials)
    print_table(
        f"{len(finished)} trials finished, {others} stopped early" + (" (interrupted)" * result.interrupted),
        ("trial ", "validation ", "epochs ", "time ", "settings"),
        [
            (
                trial.number,
                f"{trial.accuracy:.1%}",
                trial.num_epochs,
                f"{trial.duration_s:.0f} s",
                "the preset's settings"
                if trial.is_own
                else "  ".join(f"{key} {_short(value)}" for key, value in trial.settings.items()),
            )
            for trial in ranked[:_SHOWN]
        ],
    )
    print(_verdict(result))
    for line in result.by_class.cautions("image") if result.by_class else ():
        print(line)
    print(f"Settings of trial {result.best.number}: {shown_path(result.settings_file)}")


def _verdict(result: TuneResult) -> str:
    on = f"of {result.num_validation:,} validation images"
    if result.own is None or result.gain is None or result.p_value is None:
        return f"Best trial: {result.best.accuracy:.1%} {on}. The preset's settings have no finished trial."
    if result.best.is_own:
        return f"No trial is better than the preset's settings: {result.own.accuracy:.1%} {on}."
    significance = "significant" if result.p_value <= 0.05 else "not significant"
    return (
        f"Best trial: {result.best.accuracy:.1%} {on}; the preset's settings: {result.own.accuracy:.1%}. "
        f"Gain: {100 * result.gain:.1f} percentage points, {significance} "
        f"(p = {result.p_value:.2g}, McNemar's test, corrected for the number of trials)."
    )


def _short(value: object) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)
