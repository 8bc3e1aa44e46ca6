"""Index of the local registry: an atomically replaced JSON file, and one file per logged run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from cifarml.errors import CifarMLError, RegistryError
from cifarml.locks import hold, holder
from cifarml.registry.base import RegisteredModel, check_alias, check_model_name
from cifarml.registry.run_record import RunRecord, record_run
from cifarml.run import MANIFEST, Run, write_json

_LOCK_TIMEOUT_S: Final = 60
_T = TypeVar("_T")


@dataclass(frozen=True)
class Contents:
    """Content of the index.

    Args:
        versions: All versions, the oldest first.
        highest: Highest version number ever used, by model name.
    """

    versions: tuple[RegisteredModel, ...] = ()
    highest: Mapping[str, int] = field(default_factory=dict)


@cache
def _adapter(kind: type[_T]) -> TypeAdapter[_T]:
    """Return the cached adapter of a dataclass, whose creation takes milliseconds."""
    return TypeAdapter(kind)


class Index:
    """Reader and writer of ``index.json`` and ``runs/ID.json`` in a folder; reading creates no files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "index.json"
        self.runs_dir = folder / "runs"
        self._lock = FileLock(folder / ".lock", timeout=_LOCK_TIMEOUT_S)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the write lock of the registry; the lock of a killed process is released.

        Raises:
            RegistryError: If another process holds the lock for a minute, or the folder can't be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with hold(self._lock, "the model registry"):
                yield
        except Timeout:
            raise RegistryError(
                f"{holder(self._lock)} has been writing to the registry in {self.folder} for a minute",
                hint="wait for it or stop it, then try again",
            ) from None
        except OSError as error:
            raise RegistryError(
                f"can't write to the registry in {self.folder}: {error.strerror or error}",
                hint="free disk space or fix the permissions, or set CIFARML_REGISTRY_DIR to another folder",
            ) from error

    def read(self) -> Contents:
        """Return the content of the index; if it is missing, rebuild the content from the models' folders.

        Raises:
            RegistryError: If the index is damaged.
        """
        try:
            if not self.path.exists():
                return self._rebuild()
            contents: Contents = _adapter(Contents).validate_json(self.path.read_bytes())
            _check(contents)
        except (OSError, ValidationError, RegistryError) as error:
            raise RegistryError(
                f"can't read {self.path}: {_reason(error)}",
                hint="restore it from a backup, or move it away: the versions are then rebuilt from their "
                "folders; set their aliases again with: cifarml models promote MODEL",
            ) from error
        return contents

    def write(self, contents: Contents) -> None:
        """Replace the index; requires the lock (:meth:`locked`)."""
        exclude = {"versions": {"__all__": {"registry"}}}
        write_json(self.path, _adapter(Contents).dump_python(contents, mode="json", exclude=exclude))

    def add_run(self, record: RunRecord) -> None:
        """Log a run; an existing record is not changed.

        Raises:
            RegistryError: If it can't be written.
        """
        path = self.runs_dir / f"{record.run_id}.json"
        with self.locked():
            if not path.exists():
                self.runs_dir.mkdir(exist_ok=True)
                write_json(path, _adapter(RunRecord).dump_python(record, mode="json"))

    def read_runs(self) -> list[RunRecord]:
        """Return all logged runs, the oldest first.

        Raises:
            RegistryError: If a record is damaged.
        """
        records = []
        for path in self.runs_dir.glob("*.json"):
            try:
                record = _adapter(RunRecord).validate_json(path.read_bytes())
                if record.run_id != path.stem or not re.fullmatch("[0-9a-f]{32}", path.stem):
                    raise RegistryError(f"it contains run {record.run_id!r}")
            except (OSError, ValidationError, RegistryError) as error:
                raise RegistryError(
                    f"can't read {path}: {_reason(error)}",
                    hint="move it away; then log its run again: cifarml models register RUN",
                ) from error
            records.append(record)
        return sorted(records, key=lambda record: (record.ended_at, record.run_id))

    def place(self, name: str, version: str) -> Path:
        """Return the folder of a version's files.

        Raises:
            RegistryError: If its path contains a symbolic link.
        """
        place = self.folder / "models" / name / version
        if place.resolve() != self.folder.resolve() / "models" / name / version:
            raise RegistryError(
                f"the path {place} contains a symbolic link", hint="replace the link by the folder itself"
            )
        return place

    def _rebuild(self) -> Contents:
        found = []
        for manifest in self.folder.glob(f"models/*/*/{MANIFEST}"):
            name, version = manifest.parts[-3:-1]
            try:
                place = self.place(check_model_name(name), _check_number(version))
                registered = datetime.fromtimestamp(manifest.stat().st_mtime, UTC)
                found.append(new_version(name, version, record_run(Run.open(place)), registered))
            except CifarMLError:  # not a version
                continue
        found.sort(key=lambda model: (model.created_at, int(model.version)))
        numbers = sorted((int(model.version), model.name) for model in found)
        return Contents(tuple(found), {name: number for number, name in numbers})


def new_version(name: str, version: str, record: RunRecord, created_at: datetime) -> RegisteredModel:
    """Create a version of a model from the record of its run."""
    values = sorted(record.metrics, key=lambda metric: (metric.name, metric.step))
    return RegisteredModel(
        name=name,
        version=version,
        run_sha256=record.tags["run_sha256"],
        run=record.name,
        created_at=created_at,
        metrics={metric.name: metric.value for metric in values},  # the last epoch of each metric
        tags={"run": record.name} | record.identity,
    )


def _check(contents: Contents) -> None:
    """Validate names, numbers and aliases, since paths are built from them."""
    identifiers = [(each.name, part) for each in contents.versions for part in (each.version, *each.aliases)]
    if len(set(identifiers)) < len(identifiers):
        raise RegistryError("two versions have the same number or alias")
    for each in contents.versions:
        check_model_name(each.name)
        if int(_check_number(each.version)) > contents.highest.get(each.name, 0):
            raise RegistryError(f"the number of {each} is above the highest number")
        for alias in each.aliases:
            check_alias(alias)
        if not re.fullmatch("[0-9a-f]{64}", each.run_sha256):
            raise RegistryError(f"{each} has no valid hash")


def _check_number(version: str) -> str:
    if not re.fullmatch("[1-9][0-9]{0,8}", version):
        raise RegistryError(f"{version[:100]!r} is not a valid version number")
    return version


def _reason(error: Any) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return ": ".join([*map(str, first["loc"]), first["msg"]])
    return str(error.message if isinstance(error, CifarMLError) else error.strerror or error)
