"""Local model registry."""

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
from cifarml.paths import expand_home
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
    """Model registry in a local folder, safe for concurrent processes.

    The folder contains `models/NAME/VERSION/` with the files of each version, `index.json` with all versions
    and aliases, and `runs/ID.json` for each logged run. Registration is atomic: the files are first written
    to a temporary folder, and the update of the index then registers the version.

    Args:
        folder: The folder, created by the first write; by default the setting `registry_dir`.

    Example:
        ```python
        registry = LocalRegistry("registry")
        model = registry.register("runs/first")
        str(model)  # "cifar10:1"
        registry.get("cifar10", "champion").open_run().predictor()
        ```
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = (load_settings().registry_dir if folder is None else expand_home(folder)).absolute()
        self._index = Index(self.folder)

    @property
    def ui_command(self) -> str:
        """Command that shows runs and versions in a browser; empty if not available.

        It requires the full MLflow package and the setting `mlflow_mirror`.
        """
        return ui_command(self.folder) if load_settings().mlflow_mirror else ""

    def start_mirror(self) -> None:
        """Update the MLflow mirror in a background process, if it is outdated."""
        start_mirror(self.folder)

    def update_mlflow(self) -> None:
        """Update the MLflow mirror, which `ui_command` shows.

        Raises:
            RegistryError: If MLflow is not installed or can't write the mirror. The registry is not affected.
        """
        wait_for_mirror(self.folder)

    def log_run(self, run: Run) -> str:
        """Log a training run in the experiment `cifar10`; idempotent.

        Args:
            run: The training run.

        Returns:
            The run's ID.

        Raises:
            ModelFileError: If a file of the run is missing or changed.
            RegistryError: If it can't be written.
        """
        return self.insert_run(record_run(run))

    def insert_run(self, run: RunRecord) -> str:
        """Log any run in the experiment `cifar10`; an existing run is not changed.

        Args:
            run: The record of the run.

        Returns:
            The run's ID.

        Raises:
            RegistryError: If it can't be written.
        """
        self._index.add_run(run)
        return run.run_id

    def list_runs(self) -> list[RunSummary]:
        """Return the logged training runs, the oldest first.

        Raises:
            RegistryError: If a record can't be read.
        """
        return [summarise(run) for run in self._index.read_runs() if "run_sha256" in run.tags]

    def register(self, run: RunLike, name: str = DEFAULT_NAME) -> RegisteredModel:
        """Register a run as a new version; return the existing version if the content is the same.

        The first version of a model becomes its champion, a later one its challenger.

        Args:
            run: The run, or the path of its folder.
            name: Name of the model.

        Returns:
            The version.

        Raises:
            ModelFileError: If a file of the run is missing or changed.
            RegistryError: If the name is invalid, or the run can't be registered.
        """
        check_model_name(name)
        run = Run.open(run)
        with self._index.locked():
            self._tidy()
            known = self._find_content(name, run.sha256)
            if known:
                run.verify()
                with suppress(ModelFileError):
                    self._open_stored(known)
                    return known
            record = record_run(run)
            partial = self._partial(name, run.sha256)
            copy_whole(run, partial)
            if known is None:
                self._index.add_run(record)
                known = self._add_version(name, record)
            self._finish(partial, known)
            return replace(known, registry=self)

    def get(self, name: str = DEFAULT_NAME, version: str = CHAMPION) -> RegisteredModel:
        """Return a version by its number, an alias, or `latest`.

        Args:
            name: Name of the model.
            version: Version number, alias, or `latest`.

        Raises:
            RegistryError: If it does not exist.
        """
        check_model_name(name)
        return find_version(self.list_models(name), name, version, self.folder)

    def list_models(self, name: str | None = None) -> list[RegisteredModel]:
        """Return the versions of one model, or of all models, the oldest first.

        Args:
            name: Name of the model; all models if omitted.

        Raises:
            RegistryError: If the registry can't be read.
        """
        found = self._index.read().versions
        return [replace(model, registry=self) for model in found if name in {None, model.name}]

    def open(self, model: RegisteredModel) -> Run:
        """Return a version's run in the registry after verifying its files; they must not be modified.

        Args:
            model: The version.

        Raises:
            RegistryError: If the version does not exist.
            ModelFileError: If its files are damaged.
        """
        with self._index.locked():
            self._tidy()
            check_content(found := self.get(model.name, model.version), model)
            return self._open_stored(found)

    def download(self, model: RegisteredModel, to: Path) -> Run:
        """Copy a version's run atomically into the new folder `to`, and verify it.

        Args:
            model: The version.
            to: The new folder; an existing copy is reused.

        Returns:
            The copied run.

        Raises:
            RegistryError: If the version does not exist, or `to` has other content.
            ModelFileError: If the stored files are damaged.
        """
        with self._index.locked():
            model = self.get(model.name, model.version)
            self._tidy()
            stored = self._open_stored(model)
            return download_into(expand_home(to), model, lambda folder: copy_whole(stored, folder))

    def set_alias(
        self, model: RegisteredModel, alias: str = CHAMPION, *, instead_of: RegisteredModel | None = None
    ) -> RegisteredModel:
        """Move an alias to a version; a new champion loses the alias `challenger`.

        Args:
            model: The version.
            alias: The alias.
            instead_of: The version that must have the alias now (compare-and-swap).

        Returns:
            The version, with its new aliases.

        Raises:
            RegistryError: If the version does not exist, or `instead_of` does not have the alias.
        """
        check_alias(alias)
        with self._index.locked():
            contents = self._index.read()
            check_alias_change(self.list_models(model.name), model, alias, instead_of)
            self._index.write(replace(contents, versions=_with_alias(contents.versions, model, alias)))
            return self.get(model.name, model.version)

    def delete(self, model: RegisteredModel) -> None:
        """Delete a version and its files.

        Args:
            model: The version.

        Raises:
            RegistryError: If the version does not exist, or is the champion.
        """
        with self._index.locked():
            self._tidy()
            model = self.get(model.name, model.version)
            check_deletable(model)
            partial = self._partial(model.name, model.run_sha256)
            place = self._index.place(model.name, model.version)
            if place.exists():
                place.replace(partial)  # if the process is killed now, _tidy restores it
            contents = self._index.read()
            remaining = tuple(each for each in contents.versions if str(each) != str(model))
            self._index.write(replace(contents, versions=remaining))  # from now on, _tidy deletes it
            shutil.rmtree(partial, ignore_errors=True)

    def _add_version(self, name: str, record: RunRecord) -> RegisteredModel:
        """Register a version by adding it to the index, with its tags and alias."""
        contents = self._index.read()
        existing = [
            int(path.name) for path in (self.folder / "models" / name).iterdir() if path.name.isdecimal()
        ]
        number = max(contents.highest.get(name, 0), *existing, 0) + 1
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

    def _finish(self, partial: Path, model: RegisteredModel) -> None:
        """Move the copied files of a registered version to their final folder."""
        place = self._index.place(model.name, model.version)
        shutil.rmtree(place, ignore_errors=True)  # damaged files, which are replaced
        partial.replace(place)

    def _tidy(self) -> None:
        """Complete or delete the temporary folders of killed processes; unknown files are kept."""
        for path in self.folder.glob("models/*/.*.partial"):
            if content := _PARTIAL.fullmatch(path.name):
                partial = self._partial(path.parent.name, content[1])
                known = self._find_content(path.parent.name, content[1])
                if known and not self._index.place(known.name, known.version).exists():
                    self._finish(partial, known)
                else:
                    shutil.rmtree(partial)

    def _open_stored(self, model: RegisteredModel) -> Run:
        """Return the stored run of a version after verifying its files."""
        hint = f"register its run again to restore the files: cifarml models register {model.run}"
        try:
            run = Run.open(self._index.place(model.name, model.version))
            if run.sha256 != model.run_sha256:
                raise ModelFileError(f"{run.path} differs from the registered {model}")
            run.verify()
        except ModelFileError as error:
            damaged = ModelFileError(f"the files of {model} are damaged: {error.message}", hint)
            raise (error if error.newer else damaged) from error
        return run


def _with_alias(
    versions: Sequence[RegisteredModel], model: RegisteredModel, alias: str
) -> tuple[RegisteredModel, ...]:
    """Return the versions with an alias moved to one of them; a champion loses the alias challenger."""
    changed = []
    for each in versions:
        aliases = set(each.aliases)
        if each.name == model.name:
            aliases -= {alias}
        if str(each) == str(model):
            aliases = (aliases | {alias}) - ({CHALLENGER} if alias == CHAMPION else set())
        changed.append(replace(each, aliases=tuple(sorted(aliases))))
    return tuple(changed)
