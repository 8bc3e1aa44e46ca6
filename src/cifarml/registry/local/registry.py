"""The registry on this machine: MLflow's SQLite file, and a folder for the files of each version."""

from __future__ import annotations

import re
import shutil
import sqlite3
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cifarml.errors import ModelFileError
from cifarml.registry.base import (
    CHALLENGER,
    CHAMPION,
    DEFAULT_NAME,
    RegisteredModel,
    check_alias,
    check_alias_change,
    check_model_name,
)
from cifarml.registry.files import check_content, check_deletable, copy_whole, download_into, find_version
from cifarml.registry.local.database import Database
from cifarml.registry.run_record import RunRecord, insert_run, record_run, select_runs
from cifarml.run import Run, RunLike
from cifarml.run_folders import RunSummary
from cifarml.settings import load_settings

__all__ = ["LocalRegistry"]

_DELETED: Final = "Deleted_Internal"
"""Stage that MLflow gives to versions that were deleted; their numbers stay taken."""
_PARTIAL: Final = re.compile(r"\.([0-9a-f]{64})\.partial")


class LocalRegistry:
    """Models as versions, on this machine; several processes may use it at once.

    In its folder lie ``mlflow.db`` with all that is known of runs and versions, and
    ``models/NAME/VERSION/`` with the files of each version. A version is registered by one transaction;
    its files were written before, under a name that says they are not finished.

    Args:
        folder: Where it lies; the setting ``registry_dir`` when left out. It is made when something is
            written.

    Example:
        >>> registry = LocalRegistry("registry")  # doctest: +SKIP
        >>> str(registry.register("runs/first"))  # doctest: +SKIP
        'cifar10:1'
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = (load_settings().registry_dir if folder is None else Path(folder)).absolute()
        self._database = Database(self.folder)

    @property
    def ui_command(self) -> str:
        """What shows all of it in a browser, where the full MLflow is installed."""
        return f"mlflow ui --backend-store-uri sqlite:///{self._database.path}"

    def log_run(self, run: Run) -> str:
        """Write a training run into the experiment ``cifar10``; the same run is the same run.

        Args:
            run: What the run made.

        Returns:
            The run's id in MLflow.

        Raises:
            ModelFileError: If a file of the run is missing or changed.
            RegistryError: If it can't be written.
        """
        record = record_run(run)
        self.insert_run(record)
        return record.run_id

    def insert_run(self, run: RunRecord) -> None:
        """Write any run into the experiment ``cifar10``; one that is there stays as it is."""
        with self._database.writing() as connection:
            insert_run(connection, run, self.folder / "artifacts")

    def list_runs(self) -> list[RunSummary]:
        """Return the training runs that were logged, the oldest first.

        Raises:
            RegistryError: If the database can't be read.
        """
        return select_runs(self._database)

    def register(self, run: RunLike, name: str = DEFAULT_NAME) -> RegisteredModel:
        """Register a run, and log its run; see :class:`~cifarml.registry.base.ModelRegistry`."""
        check_model_name(name)
        run = Run.open(run)
        with self._database.locked():
            self._tidy()
            known = self._find_content(name, run.sha256)
            if known and self._is_whole(known):
                run.verify()
                return known
            record = record_run(run)
            partial = self._partial(name, run.sha256)
            copy_whole(run, partial)
            version = known.version if known else self._insert_version(name, record)
            self._settle(partial, version)
            return self.get(name, version)

    def get(self, name: str = DEFAULT_NAME, version: str = CHAMPION) -> RegisteredModel:
        """Return a version; see :class:`~cifarml.registry.base.ModelRegistry`."""
        check_model_name(name)
        return find_version(self.list_models(name), name, version, self.folder)

    def list_models(self, name: str | None = None) -> list[RegisteredModel]:
        """Return all versions; see :class:`~cifarml.registry.base.ModelRegistry`."""
        if not self._database.exists:
            return []
        with self._database.reading() as connection:
            return [replace(model, registry=self) for model in _select_versions(connection, name)]

    def open(self, model: RegisteredModel) -> Run:
        """Return a version's run; see :class:`~cifarml.registry.base.ModelRegistry`."""
        with self._database.locked():
            self._tidy()
            found = self.get(model.name, model.version)
            check_content(found, model)
            return self._open_kept(found)

    def download(self, model: RegisteredModel, to: Path) -> Run:
        """Copy a version's files; see :class:`~cifarml.registry.base.ModelRegistry`."""
        to = Path(to)
        with self._database.locked():
            model = self.get(model.name, model.version)
            self._tidy()
            kept = self._open_kept(model)
            return download_into(to, model, lambda folder: copy_whole(kept, folder))

    def set_alias(
        self, model: RegisteredModel, alias: str = CHAMPION, *, instead_of: RegisteredModel | None = None
    ) -> RegisteredModel:
        """Give a version an alias; see :class:`~cifarml.registry.base.ModelRegistry`."""
        check_alias(alias)
        with self._database.writing() as connection:
            versions = _select_versions(connection, model.name)
            check_alias_change(versions, model, alias, instead_of)
            _set_alias(connection, model.name, model.version, alias)
        return self.get(model.name, model.version)

    def delete(self, model: RegisteredModel) -> None:
        """Delete a version; see :class:`~cifarml.registry.base.ModelRegistry`."""
        with self._database.locked():
            model = self.get(model.name, model.version)
            check_deletable(model)
            now = time.time_ns() // 1_000_000
            with self._database.writing() as connection:  # as MLflow deletes; the number stays taken
                connection.execute(
                    "UPDATE model_versions SET current_stage = ?, last_updated_time = ?, run_id = NULL,"
                    " source = 'REDACTED-SOURCE-PATH' WHERE name = ? AND version = ?",
                    (_DELETED, now, model.name, int(model.version)),
                )
                connection.execute(
                    "DELETE FROM registered_model_aliases WHERE name = ? AND version = ?",
                    (model.name, int(model.version)),
                )
            self._tidy()

    def _insert_version(self, name: str, run: RunRecord) -> str:
        """Register a version in one transaction: the run, the version, its tags and its alias."""
        now = time.time_ns() // 1_000_000
        folder = self.folder / "models" / name
        with self._database.writing() as connection:
            insert_run(connection, run, self.folder / "artifacts")
            query = "SELECT max(version) FROM model_versions WHERE name = ?"
            highest = connection.execute(query, (name,)).fetchone()[0] or 0
            there = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
            version = max(highest, *there, 0) + 1
            source = (folder / str(version)).as_uri()
            connection.execute(
                "INSERT INTO registered_models (name, creation_time, last_updated_time) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET last_updated_time = excluded.last_updated_time",
                (name, now, now),
            )
            connection.execute(
                "INSERT INTO model_versions (name, version, creation_time, last_updated_time, user_id,"
                " current_stage, source, storage_location, run_id, status)"
                " VALUES (?, ?, ?, ?, '', 'None', ?, ?, ?, 'READY')",
                (name, version, now, now, source, source, run.run_id),
            )
            kept = ("run_sha256", "preset", "dataset", "dataset_fingerprint")
            tags = {"run": run.name} | {key: run.tags[key] for key in kept if key in run.tags}
            connection.executemany(
                "INSERT INTO model_version_tags (name, version, key, value) VALUES (?, ?, ?, ?)",
                [(name, version, key, value) for key, value in tags.items()],
            )
            has_champion = any(CHAMPION in model.aliases for model in _select_versions(connection, name))
            _set_alias(connection, name, str(version), CHALLENGER if has_champion else CHAMPION)
        return str(version)

    def _find_content(self, name: str, run_sha256: str) -> RegisteredModel | None:
        return next((m for m in self.list_models(name) if m.run_sha256 == run_sha256), None)

    def _path(self, model: RegisteredModel) -> Path:
        return self.folder / "models" / model.name / model.version

    def _partial(self, name: str, run_sha256: str) -> Path:
        return self.folder / "models" / name / f".{run_sha256}.partial"

    def _settle(self, partial: Path, version: str) -> None:
        """Give the finished files of a registered version their place."""
        place = partial.with_name(version)
        shutil.rmtree(place, ignore_errors=True)  # damaged ones, which are replaced
        partial.replace(place)

    def _tidy(self) -> None:
        """Finish or remove what a killed process has left half-done; files nobody knows of stay."""
        for partial in self.folder.glob("models/*/.*.partial"):
            content = _PARTIAL.fullmatch(partial.name)
            known = self._find_content(partial.parent.name, content[1]) if content else None
            if known and not self._path(known).exists():
                self._settle(partial, known.version)
            else:
                shutil.rmtree(partial)
        for name, version in self._deleted():
            place = self.folder / "models" / name / version
            if place.exists():
                shutil.rmtree(place)

    def _deleted(self) -> list[tuple[str, str]]:
        if not self._database.exists:
            return []
        query = "SELECT name, version FROM model_versions WHERE current_stage = ?"
        with self._database.reading() as connection:
            return [(row["name"], str(row["version"])) for row in connection.execute(query, (_DELETED,))]

    def _is_whole(self, model: RegisteredModel) -> bool:
        try:
            self._open_kept(model)
        except ModelFileError:
            return False
        return True

    def _open_kept(self, model: RegisteredModel) -> Run:
        """Return the stored run of a version, verified."""
        hint = f"register its run again, which puts the files back: cifarml models register {model.run}"
        try:
            run = Run.open(self._path(model))
            if run.sha256 != model.run_sha256:
                raise ModelFileError(f"{run.path} is not what was registered as {model}")
            run.verify()
        except ModelFileError as error:
            raise ModelFileError(f"the files of {model} are damaged: {error.message}", hint) from error
        return run


def _select_versions(connection: sqlite3.Connection, name: str | None) -> list[RegisteredModel]:
    """Return the versions that we registered and nobody deleted, by age."""
    tags: dict[tuple[str, int], dict[str, str]] = {}
    for row in connection.execute("SELECT name, version, key, value FROM model_version_tags"):
        tags.setdefault((row["name"], row["version"]), {})[row["key"]] = row["value"]
    aliases: dict[tuple[str, int], list[str]] = {}
    for row in connection.execute("SELECT name, version, alias FROM registered_model_aliases ORDER BY alias"):
        aliases.setdefault((row["name"], row["version"]), []).append(row["alias"])
    metrics: dict[str, dict[str, float]] = {}
    for row in connection.execute(
        "SELECT run_uuid, key, value FROM latest_metrics"
        " WHERE run_uuid IN (SELECT run_id FROM model_versions) ORDER BY key"
    ):
        metrics.setdefault(row["run_uuid"], {})[row["key"]] = row["value"]
    rows = connection.execute(
        "SELECT * FROM model_versions WHERE current_stage IS NOT ? AND (name = ? OR ? IS NULL)"
        " ORDER BY creation_time, name, version",
        (_DELETED, name, name),
    )
    models = []
    for row in rows:
        key = (row["name"], row["version"])
        known = tags.get(key, {})
        if "run_sha256" in known:
            models.append(
                RegisteredModel(
                    name=row["name"],
                    version=str(row["version"]),
                    aliases=tuple(aliases.get(key, ())),
                    run_sha256=known["run_sha256"],
                    run=known.get("run", ""),
                    created_at=datetime.fromtimestamp(row["creation_time"] / 1000, UTC),
                    metrics=metrics.get(row["run_id"], {}),
                    tags=known,
                )
            )
    return models


def _set_alias(connection: sqlite3.Connection, name: str, version: str, alias: str) -> None:
    connection.execute(
        "INSERT INTO registered_model_aliases (name, version, alias) VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET version = excluded.version",
        (name, int(version), alias),
    )
    if alias == CHAMPION:
        connection.execute(
            "DELETE FROM registered_model_aliases WHERE name = ? AND version = ? AND alias = ?",
            (name, int(version), CHALLENGER),
        )
