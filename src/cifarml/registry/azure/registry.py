"""Model registry in an Azure ML workspace, with runs in the workspace's MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cifarml.azure.workspace import TAG, AzureWorkspace
from cifarml.errors import CloudError, CloudRegistryError, RegistryError
from cifarml.paths import expand_home
from cifarml.registry.azure.model_files import download_files, upload_files
from cifarml.registry.azure.runs import insert_run
from cifarml.registry.azure.versions import ALIAS_TAG, METRIC_PROPERTY, Version, parse_versions
from cifarml.registry.base import (
    CHALLENGER,
    CHAMPION,
    DEFAULT_NAME,
    RegisteredModel,
    check_alias,
    check_alias_change,
    check_model_name,
)
from cifarml.registry.files import (
    cached_copy,
    check_content,
    check_deletable,
    download_into,
    find_version,
)
from cifarml.registry.run_record import RunRecord, record_run
from cifarml.run import Run, RunLike
from cifarml.settings import load_settings

if TYPE_CHECKING:
    from azure.ai.ml.entities import Model

_TRIES: Final = 5


class AzureRegistry:
    """Model registry in an Azure ML workspace.

    Registration is atomic: the files are first uploaded under a content-addressed path, which an interrupted
    upload can reuse, and then one request creates the version. One request also moves an alias: it writes a
    tag with a higher sequence number than all versions have.

    Args:
        workspace: The workspace; from the settings if omitted.

    Example:
        ```python
        registry = AzureRegistry()
        model = registry.register("runs/first")
        str(model)  # "cifar10:1"
        registry.get("cifar10", "champion").open_run().predictor()
        ```
    """

    def __init__(self, workspace: AzureWorkspace | None = None) -> None:
        self.workspace = workspace or AzureWorkspace()

    @property
    def ui_command(self) -> str:
        """Empty, since Azure ML studio shows runs and versions."""
        return ""

    def log_run(self, run: Run) -> str:
        """Log a training run in the experiment `cifar10`; idempotent.

        Args:
            run: The training run.

        Returns:
            The run's ID in the workspace.

        Raises:
            ModelFileError: If a file of the run is missing or changed.
            CloudRegistryError: If it can't be written.
        """
        return self.insert_run(record_run(run))

    def insert_run(self, run: RunRecord) -> str:
        """Log any run in the experiment `cifar10`; an existing run is not changed.

        Args:
            run: The record of the run.

        Returns:
            The run's ID in the workspace.

        Raises:
            CloudRegistryError: If it can't be written.
        """
        with self._calling(f"log run {run.name}"):
            return insert_run(self.workspace, run)

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
        run.verify()
        record = record_run(run)
        if known := self._find_content(name, run.sha256):
            return known
        run_id = self.insert_run(record)
        path = upload_files(self.workspace, run)
        for attempt in range(_TRIES):
            versions = self._versions(name, archived=True)
            try:
                self._create_version(name, record, run_id, path, versions)
                break
            except CloudError:
                # The response was lost, or another process took the number: then try the next one.
                if known := self._find_content(name, run.sha256):
                    return known
                now = {each.model.version for each in self._versions(name, archived=True)}
                if attempt == _TRIES - 1 or now == {each.model.version for each in versions}:
                    raise
        if known := self._find_content(name, run.sha256):
            return known
        raise CloudRegistryError(f"{name} was registered, but the workspace does not list it", "try again")

    def get(self, name: str = DEFAULT_NAME, version: str = CHAMPION) -> RegisteredModel:
        """Return a version by its number, an alias, or `latest`.

        Args:
            name: Name of the model.
            version: Version number, alias, or `latest`.

        Raises:
            RegistryError: If it does not exist.
        """
        check_model_name(name)
        return find_version(self.list_models(name), name, version, f"workspace {self.workspace.name}")

    def list_models(self, name: str | None = None) -> list[RegisteredModel]:
        """Return the versions of one model, or of all models, the oldest first.

        Args:
            name: Name of the model; all models if omitted.

        Raises:
            RegistryError: If the registry can't be read.
        """
        if name is not None:
            return [each.model for each in self._versions(name)]
        with self._calling("list the models"):
            names = sorted({str(model.name) for model in self.workspace.client.models.list()})
        found = [each.model for name in names for each in self._versions(name)]
        return sorted(found, key=lambda model: (model.created_at is not None, model.created_at))

    def open(self, model: RegisteredModel) -> Run:
        """Return a version's run from the local cache, downloaded if necessary and verified.

        Args:
            model: The version.

        Raises:
            RegistryError: If the version does not exist, or its files can't be fetched.
        """
        check_content(self.get(model.name, model.version), model)
        return cached_copy(load_settings().cache_dir, model, partial(download_files, self.workspace, model))

    def download(self, model: RegisteredModel, to: Path) -> Run:
        """Download a version's run atomically into the new folder `to`, and verify it.

        Args:
            model: The version.
            to: The new folder; an existing copy is reused.

        Returns:
            The copied run.

        Raises:
            RegistryError: If the version does not exist, or `to` has other content.
        """
        model = self.get(model.name, model.version)
        return download_into(expand_home(to), model, partial(download_files, self.workspace, model))

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
            RegistryError: If the version does not exist, `instead_of` does not have the alias, or another
                version received it at the same time.
        """
        check_alias(alias)
        versions = self._versions(model.name)
        check_alias_change([each.model for each in versions], model, alias, instead_of)
        if alias not in next(each.model.aliases for each in versions if each.model.version == model.version):
            number = max((each.numbers.get(alias, 0) for each in versions), default=0) + 1
            removed = {ALIAS_TAG + CHALLENGER} if alias == CHAMPION else set()
            with self._calling(f"set the alias {alias} of {model}"):
                self._write_tags(model, {ALIAS_TAG + alias: str(number)}, removed)
            versions = self._versions(model.name)
            holder = next((each.model for each in versions if alias in each.model.aliases), model)
            if holder.version != model.version:
                with self._calling(f"remove the alias {alias} of {model}"):
                    self._write_tags(model, {}, {ALIAS_TAG + alias})
                raise RegistryError(
                    f"{holder} became {alias} at the same time; {model} did not get the alias",
                    hint="see: cifarml models list",
                )
        self._tidy(versions, alias)
        return self.get(model.name, model.version)

    def delete(self, model: RegisteredModel) -> None:
        """Archive a version, whose number Azure ML does not reuse.

        Args:
            model: The version.

        Raises:
            RegistryError: If the version does not exist, or is the champion.
        """
        model = self.get(model.name, model.version)
        check_deletable(model)
        with self._calling(f"delete {model}"):
            self.workspace.client.models.archive(model.name, version=model.version)

    def _create_version(
        self, name: str, run: RunRecord, run_id: str, path: str, versions: list[Version]
    ) -> None:
        """Register uploaded files as a version, with tags, metrics and an alias."""
        from azure.ai.ml.entities import Model

        numbers = [int(each.model.version) for each in versions]
        holders = {alias for each in versions for alias in each.model.aliases}
        alias = CHALLENGER if CHAMPION in holders else CHAMPION
        number = max((each.numbers.get(alias, 0) for each in versions), default=0) + 1
        final = {metric.name: metric.value for metric in run.metrics if not metric.step}
        tags = run.identity | {
            TAG: metadata.version("cifarml"),
            "run": run.name,
            "run_id": run_id,
            "accuracy": f"{final.get('test_accuracy', 0.0):.4f}",
            ALIAS_TAG + alias: str(number),
        }
        model = Model(
            name=name,
            version=str(max(numbers, default=0) + 1),
            path=path,
            type="custom_model",
            description=f"Keras CNN of run {run.name}, as ONNX; created by cifarml",
            tags={key: value[:256] for key, value in tags.items()},
            properties={METRIC_PROPERTY + metric: repr(value) for metric, value in final.items()},
        )
        with self._calling(f"register {name}:{model.version}"):
            self.workspace.client.models.create_or_update(model)
        if alias in holders:
            self._tidy(self._versions(name), alias)

    def _find_content(self, name: str, run_sha256: str) -> RegisteredModel | None:
        return next((m for m in self.list_models(name) if m.run_sha256 == run_sha256), None)

    def _versions(self, name: str, *, archived: bool = False) -> list[Version]:
        """Return the versions registered by cifarml, the oldest first, with their aliases."""
        from azure.ai.ml.constants import ListViewType

        view = ListViewType.ALL if archived else ListViewType.ACTIVE_ONLY
        listed = self.workspace.find(
            f"list the versions of {name}",
            lambda: list(self.workspace.client.models.list(name, list_view_type=view)),
            CloudRegistryError,
        )
        return parse_versions(listed or (), self)

    def _tidy(self, versions: list[Version], alias: str) -> None:
        """Delete an alias's tag from its previous versions, whose lower sequence numbers are obsolete."""
        for each in versions:
            if alias in each.numbers and alias not in each.model.aliases:
                with self._calling(f"remove the alias {alias} of {each.model}"):
                    self._write_tags(each.model, {}, {ALIAS_TAG + alias})

    def _write_tags(self, model: RegisteredModel, added: Mapping[str, str], removed: set[str]) -> None:
        client = self.workspace.client
        found: Model = client.models.get(model.name, version=model.version)
        tags = {key: value for key, value in (found.tags or {}).items() if key not in removed}
        found.tags = {**tags, **added}
        client.models.create_or_update(found)

    def _calling(self, action: str) -> AbstractContextManager[None]:
        return self.workspace.calling(action, CloudRegistryError)
