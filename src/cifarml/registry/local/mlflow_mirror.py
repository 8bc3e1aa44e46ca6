"""One-way mirror of the local registry in an MLflow SQLite database, for ``mlflow ui``.

MLflow's client writes it in a separate process (``python -m``), since importing MLflow takes a second and
creating its tables several. The registry never reads it; the next update adds whatever is missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock

from cifarml.cifar10 import EXPERIMENT
from cifarml.errors import RegistryError
from cifarml.registry.base import RegisteredModel
from cifarml.registry.local.index import Index
from cifarml.registry.run_record import RunRecord, milliseconds
from cifarml.run import write_json
from cifarml.settings import silence_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

_DATABASE: Final = "mlflow.db"
_STATUS: Final = "mlflow.json"
_PACKAGES: Final = ("mlflow", "sqlalchemy", "alembic")
_SOURCE_TAGS: Final = {"mlflow.source.name": "cifarml", "mlflow.source.type": "LOCAL"}
_RUN_ID_TAG: Final = "cifarml_run_id"
"""Tag with cifarml's run ID; MLflow assigns its own."""

_VERSION_TAG: Final = "cifarml_version"
"""Tag with the version number in the registry; MLflow's number differs only if that one was taken."""


def ui_command(folder: Path) -> str:
    """Return the command that shows the mirror in a browser; empty if MLflow is not installed."""
    return f"mlflow ui --backend-store-uri sqlite:///{folder / _DATABASE}" if _is_installed() else ""


def mirror_failure(folder: Path) -> str | None:
    """Return the error message of the last update, or None if it succeeded."""
    return _read_status(folder).get("failure")


def start_mirror(folder: Path) -> None:
    """Update the mirror in a background process, if it is outdated and MLflow is installed."""
    with contextlib.suppress(OSError):  # retried by the next command
        if _is_installed() and _is_outdated(folder):
            _start(folder, stderr=subprocess.DEVNULL).returncode = 0  # not awaited; avoids a warning


def wait_for_mirror(folder: Path) -> None:
    """Update the mirror in another process, and wait for it.

    Raises:
        RegistryError: If it fails, or MLflow is not installed.
    """
    if not _is_installed():
        raise RegistryError(
            f"the MLflow mirror requires the packages {', '.join(_PACKAGES)}", "pip install 'cifarml[mlflow]'"
        )
    process = _start(folder, stderr=subprocess.PIPE)
    _, output = process.communicate()
    if process.returncode:
        reason = output.strip().rpartition("\n")[2] or f"exit code {process.returncode}"
        raise RegistryError(
            f"can't update the MLflow mirror of the registry: {reason}",
            hint=f"to recreate it, move {folder / _DATABASE} away; the registry does not depend on it",
        )


def update_mirror(folder: Path) -> None:
    """Update the mirror in this process, unless it is up to date.

    Raises:
        RegistryError: If it fails.
    """
    if _fingerprint(folder) is not None:
        with FileLock(folder / ".mlflow.lock"):
            if _is_outdated(folder) or mirror_failure(folder):
                _update(folder)


def _is_installed() -> bool:
    return all(map(importlib.util.find_spec, _PACKAGES))


def _start(folder: Path, *, stderr: int) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603  # this interpreter, fixed arguments
        [sys.executable, "-P", "-m", __name__, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        start_new_session=True,
        text=True,
        errors="replace",
    )


def _is_outdated(folder: Path) -> bool:
    """Return True if the registry has changed since the last update, or the mirror is missing."""
    current = _fingerprint(folder)
    is_mirrored = _read_status(folder).get("seen") == current and (folder / _DATABASE).exists()
    return current is not None and not is_mirrored


def _fingerprint(folder: Path) -> str | None:
    """Return a hash of the index and of the names of all logged runs; None if the registry is empty."""
    index = Index(folder)
    content = index.path.read_bytes() if index.path.exists() else b""
    runs = sorted(path.name for path in index.runs_dir.glob("*.json"))
    return hashlib.sha256(content + "\n".join(runs).encode()).hexdigest() if content or runs else None


def _read_status(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / _STATUS).read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}


def _update(folder: Path) -> None:
    seen, failure = _fingerprint(folder), None
    try:
        _write_database(folder)
    except Exception as error:  # of MLflow, SQLAlchemy, Alembic or the disk
        failure = str(error).partition("\n")[0] or type(error).__name__
        raise RegistryError(failure) from error
    finally:
        with contextlib.suppress(OSError):
            write_json(folder / _STATUS, {"seen": seen, "failure": failure})


def _write_database(folder: Path) -> None:
    """Update the database; a new one is created under a temporary name and then renamed."""
    from mlflow import MlflowClient

    index = Index(folder)
    contents = index.read()  # before the runs, so that each version's run is among them
    records = index.read_runs()
    database, scratch = folder / _DATABASE, folder / ".mlflow.partial"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    path = database if database.exists() else scratch / _DATABASE
    client = MlflowClient(tracking_uri=f"sqlite:///{path}", registry_uri=f"sqlite:///{path}")
    run_ids = _write_runs(client, records, folder / "artifacts" / EXPERIMENT)
    for name in contents.highest:
        versions = [each for each in contents.versions if each.name == name]
        sources = {each.version: index.place(name, each.version).as_uri() for each in versions}
        _write_versions(client, name, versions, sources, run_ids)
    if path != database:
        database.with_name(f"{_DATABASE}-journal").unlink(missing_ok=True)  # left by a deleted database
        path.replace(database)
    shutil.rmtree(scratch)


def _write_runs(client: MlflowClient, records: Sequence[RunRecord], artifacts: Path) -> dict[str, str]:
    """Write missing and incomplete runs; return MLflow's run IDs by cifarml's."""
    from mlflow.entities import ViewType

    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        experiment_id = client.create_experiment(EXPERIMENT, artifacts.as_uri())
    else:
        experiment_id = experiment.experiment_id
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment_id)
    found: dict[str | None, MlflowRun] = {}
    token = None
    while token != "":
        page = client.search_runs([experiment_id], "", ViewType.ALL, 1000, page_token=token)
        found |= {run.data.tags.get(_RUN_ID_TAG): run for run in page}
        token = page.token or ""
    return {each.run_id: _write_run(client, experiment_id, each, found.get(each.run_id)) for each in records}


def _write_run(client: MlflowClient, experiment_id: str, record: RunRecord, found: MlflowRun | None) -> str:
    """Write a run, or complete a partly written one; return MLflow's run ID."""
    from mlflow.entities import Metric, Param, RunTag

    if found is None:
        tags = {_RUN_ID_TAG: record.run_id, "mlflow.runName": record.name}
        found = client.create_run(experiment_id, milliseconds(record.started_at), tags, record.name)
    run_id = str(found.info.run_id)
    if found.info.status in {"FINISHED", "KILLED", "FAILED"}:
        return run_id
    metrics = [
        Metric(
            re.sub(r"[^\w.\- :/]", "_", each.name),  # class names can contain any character
            each.value,
            milliseconds(each.at or record.ended_at),
            each.step,
        )
        for each in record.metrics
    ]
    parameters = [Param(key, value) for key, value in record.parameters.items()]
    client.log_batch(
        run_id, metrics, parameters, [RunTag(*tag) for tag in {**record.tags, **_SOURCE_TAGS}.items()]
    )
    status = "KILLED" if record.interrupted else "FINISHED"
    client.set_terminated(run_id, status, milliseconds(record.ended_at))
    return run_id


def _write_versions(
    client: MlflowClient,
    name: str,
    versions: Sequence[RegisteredModel],
    sources: Mapping[str, str],
    run_ids: Mapping[str, str],
) -> None:
    """Synchronize the versions of a model and their aliases; versions of others are not changed."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    current = {each.version for each in versions}
    numbers: dict[str, int] = {}
    stale = []
    for found in client.search_model_versions(f"name = '{name}'"):
        wanted, number = found.tags.get(_VERSION_TAG), int(found.version)
        if wanted in current and number >= int(wanted):
            numbers[wanted] = number
        elif wanted is not None:
            stale.append(number)
    for model in versions:
        while model.version not in numbers:
            created = client.create_model_version(
                name,
                sources[model.version],
                run_ids.get(model.run_sha256[:32]),
                tags={**model.tags, _VERSION_TAG: model.version},
            )
            if (number := int(created.version)) >= int(model.version):
                numbers[model.version] = number
            else:  # the number of a version that was deleted before it was mirrored
                client.delete_model_version(name, str(number))
    aliases = {alias: numbers[model.version] for model in versions for alias in model.aliases}
    _write_aliases(client, name, aliases, {*numbers.values(), *stale})
    for number in stale:
        client.delete_model_version(name, str(number))


def _write_aliases(client: MlflowClient, name: str, aliases: Mapping[str, int], mirrored: set[int]) -> None:
    """Set the aliases of a model, and delete other aliases of mirrored versions."""
    shown = {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()}
    for alias, number in shown.items():
        if alias not in aliases and number in mirrored:
            client.delete_registered_model_alias(name, alias)
    for alias, number in aliases.items():
        if shown.get(alias) != number:
            client.set_registered_model_alias(name, alias, str(number))


def main() -> None:
    """Update the mirror in the folder given on the command line."""
    silence_mlflow()
    try:
        update_mirror(Path(sys.argv[1]))
    except RegistryError as error:
        sys.exit(error.message)


if __name__ == "__main__":
    main()
