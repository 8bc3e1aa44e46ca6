"""The registry in an Azure ML workspace: models as versions with tags, runs in its MLflow."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cifarml.azure.datastore import DEFAULT_STORE, open_datastore
from cifarml.azure.workspace import TAG, AzureWorkspace
from cifarml.errors import CloudError, CloudRegistryError, RegistryError
from cifarml.registry.azure.runs import insert_run
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
    copy_whole,
    download_into,
    find_version,
)
from cifarml.registry.run_record import RunRecord, record_run
from cifarml.run import MANIFEST, Run, RunLike
from cifarml.settings import load_settings

if TYPE_CHECKING:
    from azure.ai.ml.entities import Model

_ALIAS: Final = "alias."
"""An alias is a tag: ``alias.champion`` with a number. Of several versions the highest number counts."""

_METRIC: Final = "metric."
_TRIES: Final = 5


class AzureRegistry:
    """Models as versions, in an Azure ML workspace.

    A version is registered by one request: its files are in storage before, under a name made of their
    hash, so what a killed process left is found and used by the next. An alias changes hands by one
    request as well, which writes a higher number than any before.

    Args:
        workspace: Where; from settings when left out.

    Example:
        >>> str(AzureRegistry().register("runs/first"))  # doctest: +SKIP
        'cifar10:1'
    """

    def __init__(self, workspace: AzureWorkspace | None = None) -> None:
        self.workspace = workspace or AzureWorkspace()

    @property
    def ui_command(self) -> str:
        """Empty: the workspace's own pages show runs and versions."""
        return ""

    def log_run(self, run: Run) -> str:
        """Write a training run into the experiment; see :class:`~cifarml.registry.base.ModelRegistry`."""
        return self.insert_run(record_run(run))

    def insert_run(self, run: RunRecord) -> str:
        """Write any run into the experiment; see :class:`~cifarml.registry.base.ModelRegistry`."""
        with self._calling(f"log run {run.name}"):
            return insert_run(self.workspace, run)

    def register(self, run: RunLike, name: str = DEFAULT_NAME) -> RegisteredModel:
        """Register a run, and log its run; see :class:`~cifarml.registry.base.ModelRegistry`."""
        check_model_name(name)
        run = Run.open(run)
        run.verify()
        record = record_run(run)
        if known := self._find_content(name, run.sha256):
            return known
        run_id = self.insert_run(record)
        path = self._upload(run)
        for attempt in range(_TRIES):
            versions = self._versions(name, archived=True)
            try:
                self._create_version(name, record, run_id, path, versions)
                break
            except CloudError:
                # The answer was lost, perhaps, or somebody else took the number: then the next is tried.
                if known := self._find_content(name, run.sha256):
                    return known
                now = {each.model.version for each in self._versions(name, archived=True)}
                if attempt == _TRIES - 1 or now == {each.model.version for each in versions}:
                    raise
        if known := self._find_content(name, run.sha256):
            return known
        raise CloudRegistryError(f"{name} was registered, but the workspace does not list it", "try again")

    def get(self, name: str = DEFAULT_NAME, version: str = CHAMPION) -> RegisteredModel:
        """Return a version; see :class:`~cifarml.registry.base.ModelRegistry`."""
        check_model_name(name)
        return find_version(self.list_models(name), name, version, f"workspace {self.workspace.name}")

    def list_models(self, name: str | None = None) -> list[RegisteredModel]:
        """Return all versions; see :class:`~cifarml.registry.base.ModelRegistry`."""
        if name is not None:
            return [each.model for each in self._versions(name)]
        with self._calling("list the models"):
            names = sorted({str(model.name) for model in self.workspace.client.models.list()})
        found = [each.model for name in names for each in self._versions(name)]
        return sorted(found, key=lambda model: (model.created_at is not None, model.created_at))

    def open(self, model: RegisteredModel) -> Run:
        """Return a version's run; see :class:`~cifarml.registry.base.ModelRegistry`."""
        check_content(self.get(model.name, model.version), model)
        return cached_copy(load_settings().cache_dir, model, lambda folder: self._fetch(model, folder))

    def download(self, model: RegisteredModel, to: Path) -> Run:
        """Copy a version's files; see :class:`~cifarml.registry.base.ModelRegistry`."""
        model = self.get(model.name, model.version)
        return download_into(Path(to), model, lambda folder: self._fetch(model, folder))

    def set_alias(
        self, model: RegisteredModel, alias: str = CHAMPION, *, instead_of: RegisteredModel | None = None
    ) -> RegisteredModel:
        """Give a version an alias; see :class:`~cifarml.registry.base.ModelRegistry`.

        Raises:
            RegistryError: As there; also if another version got it at the same time.
        """
        check_alias(alias)
        versions = self._versions(model.name)
        check_alias_change([each.model for each in versions], model, alias, instead_of)
        if alias not in next(each.model.aliases for each in versions if each.model.version == model.version):
            number = max((each.numbers.get(alias, 0) for each in versions), default=0) + 1
            dropped = {_ALIAS + CHALLENGER} if alias == CHAMPION else set()
            with self._calling(f"make {model} the {alias}"):
                self._write_tags(model, {_ALIAS + alias: str(number)}, dropped)
            versions = self._versions(model.name)
            holder = next((each.model for each in versions if alias in each.model.aliases), model)
            if holder.version != model.version:
                with self._calling(f"take the alias {alias} back from {model}"):
                    self._write_tags(model, {}, {_ALIAS + alias})
                raise RegistryError(
                    f"{holder} became {alias} at the same time; {model} did not",
                    hint="look at: cifarml models list",
                )
        self._tidy(versions, alias)
        return self.get(model.name, model.version)

    def delete(self, model: RegisteredModel) -> None:
        """Archive a version: Azure ML keeps its number; see :class:`~cifarml.registry.base.ModelRegistry`."""
        model = self.get(model.name, model.version)
        check_deletable(model)
        with self._calling(f"delete {model}"):
            self.workspace.client.models.archive(model.name, version=model.version)

    def _fetch(self, model: RegisteredModel, folder: Path) -> None:
        """Download a version's files into a new folder, verified."""
        with tempfile.TemporaryDirectory(prefix="cifarml-") as temporary:
            with self._calling(f"download {model}"):
                self.workspace.client.models.download(model.name, model.version, download_path=temporary)
            found = sorted(Path(temporary).rglob(MANIFEST))
            if not found or (run := Run.open(found[0].parent)).sha256 != model.run_sha256:
                raise RegistryError(
                    f"the files of {model} are missing in the workspace's storage, or damaged",
                    hint=f"register its run again, under another name: cifarml models register {model.run}",
                )
            copy_whole(run, folder)

    def _upload(self, run: Run) -> str:
        """Bring the files into the workspace's storage, unless they are there, and return where they lie.

        The client's own upload can't go on with what a killed one has left (azure-ai-ml 1.35: 409 for each
        file that is there already, where the first one isn't).
        """
        from cifarml.data.blob.store import BlobStore

        store = open_datastore(self.workspace, DEFAULT_STORE)
        place = f"cifarml/models/{run.sha256}/run"
        with tempfile.TemporaryDirectory(prefix="cifarml-") as folder:
            copy = Path(folder, "run")
            copy_whole(run, copy)
            try:
                with BlobStore(store.address(""), settings=store.settings) as blobs:
                    blobs.upload(
                        {f"{place}/{path.name}": path for path in sorted(copy.iterdir())}, overwrite=True
                    )
            except CloudError as error:
                raise CloudRegistryError(error.message, error.hint, code=error.code) from None
        return f"azureml://datastores/{DEFAULT_STORE}/paths/{place}"

    def _create_version(
        self, name: str, run: RunRecord, run_id: str, path: str, versions: list[_Version]
    ) -> None:
        """Register files in storage, with all that is known of them."""
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
            _ALIAS + alias: str(number),
        }
        model = Model(
            name=name,
            version=str(max(numbers, default=0) + 1),
            path=path,
            type="custom_model",
            description=f"Keras CNN of run {run.name}, as ONNX; made by cifarml",
            tags={key: value[:256] for key, value in tags.items()},
            properties={_METRIC + metric: repr(value) for metric, value in final.items()},
        )
        with self._calling(f"register {name}:{model.version}"):
            self.workspace.client.models.create_or_update(model)
        if alias in holders:
            self._tidy(self._versions(name), alias)

    def _find_content(self, name: str, run_sha256: str) -> RegisteredModel | None:
        return next((m for m in self.list_models(name) if m.run_sha256 == run_sha256), None)

    def _versions(self, name: str, *, archived: bool = False) -> list[_Version]:
        """Return the versions that we registered, the oldest first, with who has which alias."""
        from azure.ai.ml.constants import ListViewType

        view = ListViewType.ALL if archived else ListViewType.ACTIVE_ONLY
        listed = self.workspace.find(
            f"list the versions of {name}",
            lambda: list(self.workspace.client.models.list(name, list_view_type=view)),
            CloudRegistryError,
        )
        ours = sorted(filter(_is_ours, listed or ()), key=lambda each: int(each.version))
        aliases = {alias for each in ours for alias in _alias_numbers(each)}
        holders = {alias: _find_holder(ours, alias) for alias in aliases}
        return [
            _parse_version(each, self, [a for a, held in holders.items() if held is each]) for each in ours
        ]

    def _tidy(self, versions: list[_Version], alias: str) -> None:
        """Take an alias's tag off the versions that have lost it; until then their lower number says so."""
        for each in versions:
            if alias in each.numbers and alias not in each.model.aliases:
                with self._calling(f"take the alias {alias} from {each.model}"):
                    self._write_tags(each.model, {}, {_ALIAS + alias})

    def _write_tags(self, model: RegisteredModel, added: Mapping[str, str], dropped: set[str]) -> None:
        client = self.workspace.client
        found: Model = client.models.get(model.name, version=model.version)
        tags = {key: value for key, value in (found.tags or {}).items() if key not in dropped}
        found.tags = {**tags, **added}
        client.models.create_or_update(found)

    def _calling(self, what: str) -> AbstractContextManager[None]:
        return self.workspace.calling(what, CloudRegistryError)


class _Version(NamedTuple):
    model: RegisteredModel
    numbers: dict[str, int]


def _is_ours(model: Model) -> bool:
    number = str(model.version)
    sha256 = str((model.tags or {}).get("run_sha256"))
    return number.isascii() and number.isdecimal() and re.fullmatch("[0-9a-f]{64}", sha256) is not None


def _alias_numbers(model: Model) -> dict[str, int]:
    numbers = {}
    for key, value in (model.tags or {}).items():
        if key.startswith(_ALIAS) and re.fullmatch(r"[1-9][0-9]{0,8}", str(value)):
            numbers[key.removeprefix(_ALIAS)] = int(value)
    return numbers


def _find_holder(models: list[Model], alias: str) -> Model:
    """Return who has an alias: the highest number, and of equal ones the one that was written first."""

    def rank(model: Model) -> tuple[int, float, int]:
        context = model.creation_context
        written = getattr(context, "last_modified_at", None) or getattr(context, "created_at", None)
        at = written.timestamp() if written is not None else 0.0
        return _alias_numbers(model).get(alias, 0), -at, -int(str(model.version))

    return max(models, key=rank)


def _parse_version(model: Model, registry: AzureRegistry, aliases: list[str]) -> _Version:
    tags: dict[str, Any] = dict(model.tags or {})
    metrics: dict[str, float] = {}
    for key, value in (model.properties or {}).items():
        if key.startswith(_METRIC):
            with suppress(TypeError, ValueError):
                metrics[key.removeprefix(_METRIC)] = float(value)
    registered = RegisteredModel(
        name=str(model.name),
        version=str(model.version),
        aliases=tuple(sorted(aliases)),
        run_sha256=str(tags["run_sha256"]),
        run=str(tags.get("run", "")),
        created_at=getattr(model.creation_context, "created_at", None),
        metrics=metrics,
        tags={key: str(value) for key, value in tags.items() if not key.startswith(_ALIAS)},
        registry=registry,
    )
    return _Version(registered, _alias_numbers(model))
