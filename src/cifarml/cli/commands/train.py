"""``cifarml train``: train a network here or on an Azure ML cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarml.cli import options
from cifarml.cli.advice import advise_after_training
from cifarml.cli.commands.jobs import follow
from cifarml.cli.console import load_tensorflow, note, print_result, shown_path
from cifarml.cli.figures import print_data
from cifarml.cli.options import AZURE, MACHINE, OUTPUT, TRAINING
from cifarml.cli.target import Target, log_run, open_workspace, remote_registry
from cifarml.cli.termination import explain_termination
from cifarml.errors import SettingsError, TrainingError
from cifarml.progress import OnProgress, show_progress

if TYPE_CHECKING:
    from cifarml.data.dataset import Dataset
    from cifarml.registry.base import ModelRegistry
    from cifarml.run import Run
    from cifarml.train.config import TrainConfig
    from cifarml.train.data_source import Source

CHOSEN = "set by the preset"
_SOURCE_FLAGS = ("data", "subset", "subset_seed", "skip_bad")
"""Parameters that override the image source stored in a run."""
_RESUME_FLAGS = {
    *_SOURCE_FLAGS, "images", "precision", "resume", "runs_dir", "target", "json", "quiet",
}  # fmt: skip
"""Parameters that can be combined with --resume."""


def train(
    context: typer.Context,
    images: options.OptionalSource = None,
    data: options.Data = "cifar10",
    subset: options.Subset = None,
    subset_seed: options.SubsetSeed = 0,
    skip_bad: options.SkipBad = False,
    validation_fraction: options.ValidationFraction = None,
    preset: options.Preset = None,
    num_epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            help="Passes over the training images.",
            show_default=CHOSEN,
            rich_help_panel=TRAINING,
        ),
    ] = None,
    time_budget_s: Annotated[
        float | None,
        typer.Option(
            "--time-budget",
            parser=options.seconds,
            metavar="TIME",
            help="Train for this long (90, 120s, 2m, 1h30m), with epochs and network size chosen to fit.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Resume an unfinished run: a run folder, its name, or latest.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Settings file (.toml or .json), such as a run's config.json. Flags override it.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Images per step.", show_default=CHOSEN, rich_help_panel=TRAINING),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Peak learning rate.", show_default=CHOSEN, rich_help_panel=TRAINING),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(help="Weight decay coefficient.", show_default=CHOSEN, rich_help_panel=TRAINING),
    ] = None,
    seed: options.Seed = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Device: auto, cpu, gpu, or GPUs by number, such as gpu:0 or gpu:0,2.",
            show_default="auto",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    precision: options.Precision = None,
    compute: Annotated[
        str | None,
        typer.Option(metavar="CLUSTER", help="Train on this Azure ML cluster.", rich_help_panel=AZURE),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait",
            help="With --compute: wait for the job and download its run.",
            rich_help_panel=AZURE,
        ),
    ] = True,
    target: Target = None,
    yaml: options.Yaml = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the run folder.", show_default="date, time and preset", rich_help_panel=OUTPUT
        ),
    ] = None,
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a network on labelled images.

    The preset and the number of images determine every setting that you omit; the
    command prints the result.

    The test images are evaluated once, at the end. Ctrl-C stops the training and
    keeps the current weights.

    If a run was killed, --resume continues it from its last checkpoint, as if it
    had not been interrupted.

    [bold]Examples[/bold]

      cifarml train --subset 2000
      cifarml train --time-budget 2m
      cifarml train --preset tutorial --data 2000pics_cifar10.zip
      cifarml train my_images/ --skip-bad --name first
      cifarml train --data drawn:4000 --json --quiet
      cifarml train --resume latest
      cifarml train --config runs/first/config.json --seed 1
      cifarml train --compute gpu --data az://2000picscifar10/2000pics_cifar10.zip
    """
    parameters = dict(locals())  # named as the settings of TrainConfig
    data = options.choose_source(context, images, data)
    from cifarml.run_folders import new_run_dir
    from cifarml.train.config import TrainConfig
    from cifarml.train.data_source import Source

    runs_dir = options.runs_folder(runs_dir)
    if resume is not None:
        run_dir, source = find_unfinished(context, resume, runs_dir)
    else:
        settings = {each: parameters[each] for each in TrainConfig.model_fields if each in parameters}
        config = TrainConfig(**settings) if config_file is None else TrainConfig.load(config_file, **settings)
        options.check_folder_name(name)
        run_dir = runs_dir / name if name else new_run_dir(runs_dir, config.preset)
        source = Source(data=data, subset=subset, subset_seed=subset_seed, skip_bad=skip_bad)
        if compute is not None:
            if target == "local":
                raise SettingsError("--compute requires --target azure. Received: --target local")
            if yaml is not None:
                from cifarml.azure.jobs.specs import write_job_yaml

                for path in write_job_yaml(yaml, compute, run_dir.name, source, config):
                    print(f"az ml job create -f {path}")
                return
            train_on_cluster(compute, run_dir, source, config, wait=wait, json=json, quiet=quiet)
            return
        if yaml is not None:
            raise SettingsError("--yaml requires --compute", hint="add --compute CLUSTER")
    registry = remote_registry(target)
    with show_progress(quiet=quiet) as on_progress:
        dataset = load_images(source, on_progress, None if resume else config)
        load_tensorflow()
        from cifarml.train.trainer import resume_training, train_model

        with explain_termination(run_dir, on_progress) as report:
            if resume is not None:
                run = resume_training(run_dir, dataset, precision=precision, on_progress=report)
            else:
                run = train_model(config, dataset, run_dir, source=source, on_progress=report)
    log_run(run, registry)
    print_run(run, registry, json=json)


def find_unfinished(context: typer.Context, run: str, runs_dir: Path) -> tuple[Path, Source]:
    """Return the folder and image source of an unfinished run.

    A run keeps its settings, so that only flags that select its images can be changed.

    Raises:
        SettingsError: If a flag sets anything else.
    """
    from cifarml.run_folders import find_unfinished_run
    from cifarml.train.data_source import Source

    given = {name for name in context.params if options.is_given(context, name)}
    others = (each for each in context.command.params if each.name in given - _RESUME_FLAGS)
    if refused := sorted(_flag(each, context.params[str(each.name)]) for each in others):
        raise SettingsError(
            f"{', '.join(refused)} cannot be combined with --resume: a run keeps its settings",
            hint=f"leave {'it' if len(refused) == 1 else 'them'} out, or start a new run without --resume",
        )
    run_dir = find_unfinished_run(run, runs_dir)
    changes = {name: context.params[name] for name in _SOURCE_FLAGS if name in given}
    if "images" in given:
        changes["data"] = context.params["images"]
    source = Source(data=changes["data"]) if "data" in changes else Source.read(run_dir)
    return run_dir, source.model_copy(update=changes)


def _flag(parameter: Any, value: object) -> str:
    """Return the flag that sets a parameter to this value."""
    names = parameter.secondary_opts if value is False and parameter.secondary_opts else parameter.opts
    return str(names[0])


def load_images(source: Source, on_progress: OnProgress, config: TrainConfig | None) -> Dataset:
    """Load the training images; print skipped images, classes, notes on labels and split, and warnings."""
    dataset = source.load(on_progress=on_progress)
    for image in dataset.skipped:
        note(f"skipped {image.name}: {image.reason}")
    print_data(dataset, source.data, config, on_progress)
    return dataset


def train_on_cluster(
    compute: str, run_dir: Path, source: Source, config: TrainConfig, *, wait: bool, json: bool, quiet: bool
) -> None:
    """Submit a training job to a cluster, stream its log, and download its run."""
    from cifarml.azure.jobs.jobs import fetch_run, submit_job
    from cifarml.registry.azure.registry import AzureRegistry

    if wait and run_dir.exists():  # fail before the job is billed
        raise SettingsError(f"{run_dir} already exists", hint="choose another --name or --runs-dir")
    workspace = open_workspace()
    job = submit_job(workspace, compute, run_dir.name, source, config)
    note(f"Job {job.name} is {job.state} on {compute}. {job.page}")
    if not wait:
        hint = f"Next: cifarml jobs logs {job.name}   and then: cifarml jobs fetch {job.name}"
        print_result({"job": job.name, "run": job.run, "state": job.state}, hint, json=json)
        return
    job = follow(workspace, job, (lambda _: None) if quiet else note)
    if job.state != "completed":
        raise TrainingError(
            f"job {job.name} is {job.state}", hint=f"read its log: cifarml jobs logs {job.name}"
        )
    with show_progress(quiet=quiet) as on_progress:
        run = fetch_run(workspace, job, run_dir.parent, on_progress=on_progress)
    registry = AzureRegistry(workspace)
    log_run(run, registry)
    print_run(run, registry, json=json)


def print_run(run: Run, registry: ModelRegistry | None, *, json: bool) -> None:
    """Print the result of a training."""
    from cifarml.evaluation.evaluate import stored_evaluation
    from cifarml.run_folders import REPORT

    result = stored_evaluation(run).by_class
    data = run.read_json("dataset.json") if json else {}
    more = {name: data[name] for name in ("classes", "warnings") if name in data}
    info, path = run.info, shown_path(run.path)
    if info["interrupted"] and not json:
        print(f"Interrupted in epoch {info['num_epochs'] + 1}; the run contains the model trained so far.")
    print_result(
        {"path": run.path, **info, "test_never_predicted": result.never_predicted, **more},
        result.headline(),
        *result.cautions(),
        f"Training:   {info['training_s']:.0f} s, {info['images_per_second']:,.0f} images/s",
        f"Run folder: {path}",
        f"Report:     {path}/{REPORT}   (open it with a browser)",
        *([] if json else advise_after_training(run, registry)),
        json=json,
    )
