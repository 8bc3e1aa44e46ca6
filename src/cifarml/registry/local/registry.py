"""Model registry on this machine."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
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
from cifarml.registry.local.index import Contents, Index, new_version
from cifarml.registry.local.mlflow_mirror import start_mirror, ui_command, wait_for_mirror
from cifarml.registry.run_record import RunRecord, record_run, summarise
from cifarml.run import Run, RunLike
from cifarml.run_folders import RunSummary
from cifarml.settings import load_settings

_PARTIAL: Final = re.compile(r"\.([0-9a-f]{64})\.partial")


class LocalRegistry:
    """Model versions on this machine; several processes may use it at once.

    Its folder contains ``models/NAME/VERSION/`` with the files of each version, ``index.json`` with what is
    known of versions, and ``runs/ID.json`` for each logged run. A version is registered when the index names
    it; its files are written before, in a folder whose name says that they are not finished.

    Args:
        folder: Where it is located; by default the setting ``registry_dir``. It is created when something
            is written.

    Example:
        >>> registry = LocalRegistry("registry")  # doctest: +SKIP
        >>> str(registry.register("runs/first"))  # doctest: +SKIP
        'cifar10:1'
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = (load_settings().registry_dir if folder is None else Path(folder)).absolute()
        self._index = Index(self.folder)

    @property
    def ui_command(self) -> str:
        """Command that shows runs and versions in a browser, if the full MLflow is installed.

        Empty if the setting ``mlflow_mirror`` is off.
        """
        return ui_command(self.folder) if load_settings().mlflow_mirror else ""

    def start_mirror(self) -> None:
        """Start a process that brings MLflow's copy of runs and versions up to date, if it is not."""
        start_mirror(self.folder)

    def update_mlflow(self) -> None:
        """Bring MLflow's copy of runs and versions up to date; see :attr:`ui_command`.

        Raises:
            RegistryError: If MLflow can't write it. The registry doesn't need the copy.
        """
        wait_for_mirror(self.folder)

    def log_run(self, run: Run) -> str:
        """Log a training run; see :class:`~cifarml.registry.base.ModelRegistry`."""
        return self.insert_run(record_run(run))

    def insert_run(self, run: RunRecord) -> str:
        """Log any run; see :class:`~cifarml.registry.base.ModelRegistry`."""
        self._index.add_run(run)
        return run.run_id

    def list_runs(self) -> list[RunSummary]:
        """Return the logged training runs, the oldest first.

        Raises:
            RegistryError: If the record of one can't be read.
        """
        return [summarise(run) for run in self._index.read_runs() if "run_sha256" in run.tags]

    def register(self, run: RunLike, name: str = DEFAULT_NAME) -> RegisteredModel:
        """Register a run, and log it; see :class:`~cifarml.registry.base.ModelRegistry`."""
        check_model_name(name)
        run = Run.open(run)
        with self._index.locked():
            self._tidy()
            known = self._find_content(name, run.sha256)
            if known:
                run.verify()
                with suppress(ModelFileError):
                    self._open_kept(known)
                    return known
            record = record_run(run)
            partial = self._partial(name, run.sha256)
            copy_whole(run, partial)
            if known is None:
                self._index.add_run(record)
                known = self._add_version(name, record)
            self._settle(partial, known)
            return replace(known, registry=self)

    def get(self, name: str = DEFAULT_NAME, version: str = CHAMPION) -> RegisteredModel:
        """Return a version; see :class:`~cifarml.registry.base.ModelRegistry`."""
        check_model_name(name)
        return find_version(self.list_models(name), name, version, self.folder)

    def list_models(self, name: str | None = None) -> list[RegisteredModel]:
        """Return all versions; see :class:`~cifarml.registry.base.ModelRegistry`."""
        versions = self._index.read().versions
        return [replace(model, registry=self) for model in versions if name in {None, model.name}]

    def open(self, model: RegisteredModel) -> Run:
        """Return a version's run; see :class:`~cifarml.registry.base.ModelRegistry`."""
        with self._index.locked():
            self._tidy()
            found = self.get(model.name, model.version)
            check_content(found, model)
            return self._open_kept(found)

    def download(self, model: RegisteredModel, to: Path) -> Run:
        """Copy a version's files; see :class:`~cifarml.registry.base.ModelRegistry`."""
        to = Path(to)
        with self._index.locked():
            model = self.get(model.name, model.version)
            self._tidy()
            kept = self._open_kept(model)
            return download_into(to, model, lambda folder: copy_whole(kept, folder))

    def set_alias(
        self, model: RegisteredModel, alias: str = CHAMPION, *, instead_of: RegisteredModel | None = None
    ) -> RegisteredModel:
        """Give a version an alias; see :class:`~cifarml.registry.base.ModelRegistry`."""
        check_alias(alias)
        with self._index.locked():
            contents = self._index.read()
            check_alias_change(self.list_models(model.name), model, alias, instead_of)
            self._index.write(replace(contents, versions=_with_alias(contents.versions, model, alias)))
            return self.get(model.name, model.version)

    def delete(self, model: RegisteredModel) -> None:
        """Delete a version; see :class:`~cifarml.registry.base.ModelRegistry`."""
        with self._index.locked():
            self._tidy()
            model = self.get(model.name, model.version)
            check_deletable(model)
            partial = self._partial(model.name, model.run_sha256)
            place = self._index.place(model.name, model.version)
            if place.exists():
                place.replace(partial)  # if killed from here on, tidying puts it back,
            contents = self._index.read()
            left = tuple(each for each in contents.versions if str(each) != str(model))
            self._index.write(replace(contents, versions=left))  # and from here on, removes it
            shutil.rmtree(partial, ignore_errors=True)

    def _add_version(self, name: str, record: RunRecord) -> RegisteredModel:
        """Write a version with its tags and alias into the index, which registers it."""
        contents = self._index.read()
        there = [
            int(path.name) for path in (self.folder / "models" / name).iterdir() if path.name.isdecimal()
        ]
        number = max(contents.highest.get(name, 0), *there, 0) + 1
        model = new_version(name, str(number), record, datetime.now(UTC))
        versions = (*contents.versions, model)
        has_champion = any(CHAMPION in each.aliases for each in versions if each.name == name)
        versions = _with_alias(versions, model, CHALLENGER if has_champion else CHAMPION)
        self._index.write(Contents(versions, {**contents.highest, name: number}))
        return replace(versions[-1], registry=self)

    def _find_content(self, name: str, sha256: str) -> RegisteredModel | None:
        return next((m for m in self.list_models(name) if m.run_sha256 == sha256), None)

    def _partial(self, name: str, sha256: str) -> Path:
        return self._index.place(name, f".{sha256}.partial")

    def _settle(self, partial: Path, model: RegisteredModel) -> None:
        """Move the finished files of a registered version to their place."""
        place = self._index.place(model.name, model.version)
        shutil.rmtree(place, ignore_errors=True)  # damaged ones, which are replaced
        partial.replace(place)

    def _tidy(self) -> None:
        """Finish or remove what a killed process has left half-done; unknown files stay."""
        for path in self.folder.glob("models/*/.*.partial"):
            if content := _PARTIAL.fullmatch(path.name):
                partial = self._partial(path.parent.name, content[1])
                known = self._find_content(path.parent.name, content[1])
                if known and not self._index.place(known.name, known.version).exists():
                    self._settle(partial, known)
                else:
                    shutil.rmtree(partial)

    def _open_kept(self, model: RegisteredModel) -> Run:
        """Return the stored run of a version, verified."""
        hint = f"register its run again, which puts the files back: cifarml models register {model.run}"
        try:
            run = Run.open(self._index.place(model.name, model.version))
            if run.sha256 != model.run_sha256:
                raise ModelFileError(f"{run.path} is not what was registered as {model}")
            run.verify()
        except ModelFileError as error:
            raise ModelFileError(f"the files of {model} are damaged: {error.message}", hint) from error
        return run


def _with_alias(
    versions: Sequence[RegisteredModel], model: RegisteredModel, alias: str
) -> tuple[RegisteredModel, ...]:
    """Return the versions with an alias moved to one of them; a champion is no challenger."""
    changed = []
    for each in versions:
        aliases = set(each.aliases)
        if each.name == model.name:
            aliases -= {alias}
        if str(each) == str(model):
            aliases = (aliases | {alias}) - ({CHALLENGER} if alias == CHAMPION else set())
        changed.append(replace(each, aliases=tuple(sorted(aliases))))
    return tuple(changed)
