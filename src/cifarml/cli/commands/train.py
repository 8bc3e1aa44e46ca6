"""``cifarml train``."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarml.cli import options
from cifarml.cli.commands.jobs import follow
from cifarml.cli.console import load_tensorflow, note, print_result, shown_path
from cifarml.cli.target import Target, local_registry, open_registry, open_workspace
from cifarml.errors import RegistryError, SettingsError, TrainingError
from cifarml.progress import OnProgress, Progress, show_progress
from cifarml.settings import load_settings

if TYPE_CHECKING:
    from cifarml.data.dataset import Dataset
    from cifarml.registry.base import ModelRegistry
    from cifarml.run import Run
    from cifarml.train.config import TrainConfig
    from cifarml.train.data_source import Source

CHOSEN = "chosen by the preset"
_IMAGES = ("data", "subset", "subset_seed", "skip_bad")
"""Parameters that replace what the run has stored about its images."""
_TAKEN = {*_IMAGES, "resume", "runs_dir", "target", "json", "quiet"}
"""Parameters that can be combined with --resume."""


def train(
    context: typer.Context,
    data: options.Data = "cifar10",
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Settings from a .toml or .json file, such as a run's config.json. Flags win over it.",
        ),
    ] = None,
    preset: options.Preset = None,
    subset: options.Subset = None,
    subset_seed: options.SubsetSeed = 0,
    num_epochs: Annotated[
        int | None, typer.Option("--epochs", help="Passes over the training images.", show_default=CHOSEN)
    ] = None,
    time_budget_s: Annotated[
        float | None,
        typer.Option(
            "--time-budget",
            parser=options.seconds,
            metavar="TIME",
            help="Train for so long (90, 120s, 2m, 1h30m): chooses epochs and size of the network.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a step.", show_default=CHOSEN)] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="The largest step size of the optimiser.", show_default=CHOSEN)
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="How strongly weights are kept small.", show_default=CHOSEN)
    ] = None,
    precision: options.Precision = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="What to train on: auto, cpu, gpu, or some by number: gpu:0 or gpu:0,2.", show_default="auto"
        ),
    ] = None,
    validation_fraction: options.ValidationFraction = None,
    seed: options.Seed = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run folder; date, time and preset when left out.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on with an unfinished run: a run folder, its name, or latest.",
            show_default=False,
        ),
    ] = None,
    compute: Annotated[
        str | None,
        typer.Option(metavar="CLUSTER", help="Train on this cluster in Azure.", show_default=False),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="With --compute: follow the job, and fetch its run.")
    ] = True,
    yaml: options.Yaml = None,
    target: Target = None,
    runs_dir: options.RunsDir = None,
    skip_bad: options.SkipBad = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a network on labelled images, and write a run folder.

    The preset chooses what you leave out, by the number of images, and the command says what it chose.

    The test images are looked at once, at the end. Ctrl-C ends the training with what was reached.

    A run that was killed goes on from its last checkpoint with --resume, and ends as it would have ended.

    [bold]Examples[/bold]

      cifarml train --subset 2000
      cifarml train --time-budget 2m
      cifarml train --preset tutorial --data 2000pics_cifar10.zip
      cifarml train --data my_images/ --skip-bad --name first
      cifarml train --data drawn:4000 --json --quiet
      cifarml train --resume latest
      cifarml train --config runs/first/config.json --seed 1
      cifarml train --compute gpu --data az://2000picscifar10/2000pics_cifar10.zip
    """
    parameters = dict(locals())  # named as the settings of TrainConfig
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
            raise SettingsError("only a job on a cluster can be written as YAML", hint="add --compute NAME")
    registry = registry_beside(target)
    with show_progress(quiet=quiet) as on_progress:
        dataset = load_images(source, on_progress)
        load_tensorflow()
        from cifarml.train.trainer import resume_training, train_model

        with explain_termination(run_dir, on_progress) as report:
            if resume is not None:
                run = resume_training(run_dir, dataset, on_progress=report)
            else:
                run = train_model(config, dataset, run_dir, source=source, on_progress=report)
    log_run(run, registry)
    print_run(run, json=json)


def find_unfinished(context: typer.Context, run: str, runs_dir: Path) -> tuple[Path, Source]:
    """Return the folder of an unfinished run and the source of its images.

    Its settings are stored in its folder, so that only flags about its images are accepted.
    """
    from cifarml.run_folders import find_unfinished_run
    from cifarml.train.data_source import Source

    given = {
        name
        for name in context.params
        if (origin := context.get_parameter_source(name)) and origin.name == "COMMANDLINE"
    }
    others = (each for each in context.command.params if each.name in given - _TAKEN)
    if refused := sorted(_flag(each, context.params[str(each.name)]) for each in others):
        raise SettingsError(
            f"{', '.join(refused)} cannot be combined with --resume: a run keeps its settings",
            hint=f"leave {'it' if len(refused) == 1 else 'them'} out, or start a new run without --resume",
        )
    run_dir = find_unfinished_run(run, runs_dir)
    changes = {name: context.params[name] for name in _IMAGES if name in given}
    source = Source(data=changes["data"]) if "data" in changes else Source.read(run_dir)
    return run_dir, source.model_copy(update=changes)


def _flag(parameter: Any, value: object) -> str:
    """Return the flag that sets a parameter to this value."""
    names = parameter.secondary_opts if value is False and parameter.secondary_opts else parameter.opts
    return str(names[0])


class _Terminated(BaseException):
    """The process received SIGTERM."""


@contextmanager
def explain_termination(run_dir: Path, on_progress: OnProgress) -> Iterator[OnProgress]:
    """End a training on SIGTERM, as clusters and spot machines send it, with a hint how to resume.

    The last checkpoint is on the disk already. The exit code is 143, the shell's for this signal.
    Progress must be reported to the callback that is yielded.
    """
    from cifarml.run_folders import CONFIG, resume_command

    asked: list[object] = []

    def end(*signalled: object) -> None:
        asked.append(signalled)
        raise _Terminated

    def report(progress: Progress) -> None:
        if asked:  # Python drops what is raised in a finaliser
            raise _Terminated
        on_progress(progress)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield report
    except _Terminated:
        began = (run_dir / CONFIG).is_file()
        hint = f"Resume with: {resume_command(run_dir)}" if began else "The training had not begun."
        note(f"Ended by the system. {hint}")
        raise typer.Exit(128 + signal.SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def load_images(source: Source, on_progress: OnProgress) -> Dataset:
    """Load the images of a training, and say which are left out."""
    dataset = source.load(on_progress=on_progress)
    for image in dataset.skipped:
        note(f"left out {image.name}: {image.reason}")
    return dataset


def registry_beside(target: str | None) -> ModelRegistry | None:
    """Return the registry that a run is logged in besides the local one."""
    to_azure = load_settings(target=target).effective_target == "azure"
    return open_registry("azure") if to_azure else None


def log_run(run: Run, registry: ModelRegistry | None = None) -> None:
    """Log a run in the experiment, locally and in another registry; the run is finished in any case."""
    try:
        for each in (local_registry(), registry):
            if each is not None:
                each.log_run(run)
    except RegistryError as error:
        note(f"The run could not be logged: {error.message}")
        note(f"Later: cifarml models register {shown_path(run.path)}")


def train_on_cluster(
    compute: str, run_dir: Path, source: Source, config: TrainConfig, *, wait: bool, json: bool, quiet: bool
) -> None:
    """Train on a cluster: submit a job, follow it, and fetch its run."""
    from cifarml.azure.jobs.jobs import fetch_run, submit_job
    from cifarml.registry.azure.registry import AzureRegistry

    if wait and run_dir.exists():  # before a cluster is paid for it
        raise SettingsError(f"{run_dir} already exists", hint="take another --name, or another --runs-dir")
    workspace = open_workspace()
    job = submit_job(workspace, compute, run_dir.name, source, config)
    note(f"Job {job.name} is {job.state} on {compute}. {job.page}")
    if not wait:
        following = f"Next: cifarml jobs logs {job.name}   and then: cifarml jobs fetch {job.name}"
        print_result({"job": job.name, "run": job.run, "state": job.state}, following, json=json)
        return
    job = follow(workspace, job, (lambda _: None) if quiet else note)
    if job.state != "completed":
        raise TrainingError(f"job {job.name} has {job.state}", hint=f"its log: cifarml jobs logs {job.name}")
    with show_progress(quiet=quiet) as on_progress:
        run = fetch_run(workspace, job, run_dir.parent, on_progress=on_progress)
    log_run(run, AzureRegistry(workspace))
    print_run(run, json=json)


def print_run(run: Run, *, json: bool) -> None:
    """Print the result of a training."""
    from cifarml.run_folders import REPORT

    info, path = run.info, shown_path(run.path)
    if info["interrupted"] and not json:
        print(f"Interrupted: the model is as far as it got, in epoch {info['num_epochs'] + 1}.")
    print_result(
        {"path": run.path, **info},
        f"Test accuracy {info['test_accuracy']:.1%} on {info['num_test_images']:,} images "
        f"(trained {info['training_s']:.0f} s, {info['images_per_second']:,.0f} images/s)",
        f"Run folder: {path}",
        f"Report:     {path}/{REPORT}   (open it with a browser)",
        "Next: cifarml predict image.png   (or, as an endpoint: cifarml deploy)",
        json=json,
    )
