"""Advice on models: which one is the champion, and what to do with a run that is not registered.

Commands in the advice work as typed: they name what their defaults would not find.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from cifarml.cli import options
from cifarml.cli.console import note, shown_path
from cifarml.cli.target import local_registry
from cifarml.errors import CifarMLError, ModelFileError, RegistryError
from cifarml.registry.base import CHAMPION, DEFAULT_NAME, RegisteredModel
from cifarml.settings import load_settings

if TYPE_CHECKING:
    from cifarml.registry.base import ModelRegistry
    from cifarml.registry.local.registry import LocalRegistry
    from cifarml.run import Run


def quoted_path(path: Path) -> str:
    """Format a path as `shown_path` does, quoted for a shell."""
    return shlex.quote(shown_path(path))


def advise_after_training(run: Run, registry: ModelRegistry | None) -> list[str]:
    """Return the next steps after a training: predict, and deploy the run or compare it with the champion.

    Args:
        run: The run.
        registry: The registry that `cifarml deploy` uses, or None for that of this machine.
    """
    newest = _newest_in(options.runs_folder(None))
    is_default = newest is not None and newest.path.resolve() == run.path.resolve()
    path = quoted_path(run.path)
    predict = f"Next: cifarml predict image.png{'' if is_default else f' --run {path}'}"
    try:
        champion = (registry or local_registry()).get(DEFAULT_NAME, CHAMPION)
    except RegistryError:
        deploy = "cifarml deploy" if is_default else f"cifarml models register {path}"
        return [f"{predict}   (or, as an endpoint: {deploy}{_target_flag(registry)})"]
    lines = [predict, f"Champion: {describe_model(champion)}"]
    if champion.run_sha256 != run.sha256:
        lines.append(f"This run is not registered. {_registration(run, champion)}")
    return lines


def note_champion(model: RegisteredModel, runs_dir: Path | None) -> None:
    """Print the model that is about to be used, and whether a newer run is not registered."""
    role = "Champion" if CHAMPION in model.aliases else "Model"
    note(f"{role}: {describe_model(model)}")
    try:
        newer = _find_newer_run(model, runs_dir)
    except CifarMLError:  # reported when the model or the run is used
        return
    if newer is not None:
        trained_on = f", trained on {data}" if (data := _data_of(newer)) else ""
        note(f"A newer run is not registered: {shown_path(newer.path)}{trained_on}.")
        note(_registration(newer, model))


def describe_model(model: RegisteredModel) -> str:
    """Describe a version by the run and the data that it comes from."""
    parts = [str(model)]
    if folder := _folder_of(model):
        parts.append(f"from {shown_path(folder)}")
    elif model.run:
        parts.append(f"from run {model.run}")
    run = _stored_run(model)
    if data := _data_of(run) if run else model.tags.get("dataset"):
        parts.append(f"trained on {data}")
    if run:
        parts.append(f"{len(run.class_names)} classes")
    if "test_accuracy" in model.metrics:
        parts.append(f"test accuracy {model.metrics['test_accuracy']:.1%}")
    return ", ".join(parts)


def _registration(run: Run, champion: RegisteredModel) -> str:
    """Return a sentence with the command that registers a run, and compares it with the champion."""
    command = f"cifarml models register {quoted_path(run.path)}"
    known, command = _stored_run(champion), f"{command}{_target_flag(champion.registry)}"
    if known and set(known.class_names) != set(run.class_names):
        another = f"register it as another model: {command} --name {_model_name(run)}"
        return f"Its classes differ from those of {champion}; {another}"
    name = "" if champion.name == DEFAULT_NAME else f" --name {champion.name}"
    return f"Register it and compare: {command}{name} --compare"


def _find_newer_run(model: RegisteredModel, runs_dir: Path | None) -> Run | None:
    """Return the newest trained run, if it is newer than a version's run and not registered."""
    registry = _local(model)
    found = [_newest_in(options.runs_folder(runs_dir)), _newest_logged(registry or local_registry())]
    created = model.created_at.isoformat() if model.created_at else ""
    if registry is not None:
        created = str(model.open_run().info.get("created", created))
    registered = {each.run_sha256 for each in model.registry.list_models()}
    runs = [run for run in found if run is not None and run.sha256 not in registered]
    newest = max(runs, key=lambda run: str(run.info.get("created", "")), default=None)
    return newest if newest is not None and str(newest.info.get("created", "")) > created else None


def _newest_in(folder: Path) -> Run | None:
    from cifarml.run import Run
    from cifarml.run_folders import find_run

    try:
        return Run.open(find_run("latest", folder))
    except ModelFileError:
        return None


def _newest_logged(registry: LocalRegistry) -> Run | None:
    from cifarml.run import Run

    for logged in reversed(registry.list_runs()):
        if logged.path.is_dir():
            try:
                return Run.open(logged.path)
            except ModelFileError:
                continue
    return None


def _local(model: RegisteredModel) -> LocalRegistry | None:
    from cifarml.registry.local.registry import LocalRegistry

    return model.registry if isinstance(model.registry, LocalRegistry) else None


def _folder_of(model: RegisteredModel) -> Path | None:
    """Return the run folder that a version was registered from, if it is on this machine."""
    registry = _local(model)
    logged = registry.list_runs() if registry else []
    same = (run.path for run in logged if run.info.get("run_sha256") == model.run_sha256)
    return next((path for path in same if path.is_dir()), None)


def _stored_run(model: RegisteredModel) -> Run | None:
    """Return the run of a version; None if it is damaged, or would have to be downloaded."""
    try:
        return model.open_run() if _local(model) else None
    except CifarMLError:
        return None


def _data_of(run: Run) -> str:
    """Return the source of a run's images, with absolute paths if the run records it."""
    from cifarml.train.data_source import Source

    source = Source.of_run(run)
    return shlex.join([source.data, *source.flags]) if source else str(run.info.get("dataset", ""))


def _target_flag(registry: ModelRegistry | None) -> str:
    """Return the flag that selects a registry (None: of this machine), unless it is the default."""
    from cifarml.registry.local.registry import LocalRegistry

    target = "local" if registry is None or isinstance(registry, LocalRegistry) else "azure"
    return "" if load_settings().effective_target == target else f" --target {target}"


def _model_name(run: Run) -> str:
    """Derive a name for a model and its endpoint from the data it was trained on."""
    source = run.info.get("source")
    data = source.get("data", "") if isinstance(source, dict) else ""
    stem = Path(str(data).rstrip("/")).name.partition(".")[0].partition(":")[0]
    name = re.sub("[^a-z0-9]+", "-", stem.lower()).strip("-")[:24].strip("-")
    return name if re.fullmatch("[a-z][a-z0-9-]{2,}", name) and name != DEFAULT_NAME else "my-model"
