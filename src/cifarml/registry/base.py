"""Model registry protocol, and registered models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from cifarml.errors import RegistryError
from cifarml.run import Run, RunLike

if TYPE_CHECKING:
    from cifarml.registry.run_record import RunRecord

DEFAULT_NAME: Final = "cifar10"
"""Name of the model, as in the article, where none is given."""

CHAMPION: Final = "champion"
"""Alias of the version that is in use."""

CHALLENGER: Final = "challenger"
"""Alias of the version that may replace it."""

LATEST: Final = "latest"
"""Stands for the highest version."""


@dataclass(frozen=True)
class RegisteredModel:
    """One version of a model. Wherever a run is expected, it can be passed: its registry opens it.

    Args:
        name: Name of the model.
        version: A number, as a string; the first is "1".
        aliases: Other names of the version, such as ``champion``.
        run_sha256: Hash of its run, which identifies the content.
        run: Name of the run that made it.
        created_at: When it was registered, with a time zone.
        metrics: Final metrics, such as ``test_accuracy`` (0 to 1).
        tags: Further strings, such as the fingerprint of its data.
        registry: The :class:`ModelRegistry` that returned it, or None.

    Example:
        >>> model = registry.get("cifar10", "champion")  # doctest: +SKIP
        >>> Run.open(model).predictor().predict("ship.png").label  # doctest: +SKIP
        'ship'
    """

    name: str
    version: str
    aliases: tuple[str, ...] = ()
    run_sha256: str = ""
    run: str = ""
    created_at: datetime | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    registry: Any = field(default=None, repr=False, compare=False)  # Any, for pydantic

    def __str__(self) -> str:
        """Return ``name:version``."""
        return f"{self.name}:{self.version}"

    def open_run(self) -> Run:
        """Return its run, verified; see :meth:`ModelRegistry.open`."""
        if self.registry is None:
            raise RegistryError(
                f"{self} does not come from a registry, so its files are unknown",
                hint=f'get it from one: LocalRegistry().get("{self.name}", "{self.version}")',
            )
        registry: ModelRegistry = self.registry
        return registry.open(self)


class ModelRegistry(Protocol):
    """Stores runs as versions of models. A version never changes."""

    @property
    def ui_command(self) -> str:
        """Command that shows runs and versions in a browser; empty if there is none."""

    def register(self, run: RunLike, name: str = DEFAULT_NAME) -> RegisteredModel:
        """Register a run; the same content gives the existing version.

        The first version of a name becomes its champion, since deploying needs one; a later one becomes
        its challenger. Version numbers are never reused.

        Raises:
            ModelFileError: If a file of the run is missing or changed.
            RegistryError: If it can't be registered; nothing half-done is left.
        """

    def get(self, name: str = DEFAULT_NAME, version: str = CHAMPION) -> RegisteredModel:
        """Return a version by its number, an alias, or ``latest``.

        Raises:
            RegistryError: If there is none.
        """

    def list_models(self, name: str | None = None) -> list[RegisteredModel]:
        """Return all versions (of one model), the oldest first."""

    def open(self, model: RegisteredModel) -> Run:
        """Return a version's run, verified, in a folder of the registry or the cache, to be read only.

        Raises:
            RegistryError: If there is no such version, or its files can't be fetched.
            ModelFileError: If its files are damaged.
        """

    def download(self, model: RegisteredModel, to: Path) -> Run:
        """Copy a version's run into a new folder ``to``, verified; all of it or nothing.

        Raises:
            RegistryError: If there is no such version, or ``to`` contains something else.
            ModelFileError: If the stored files are damaged.
        """

    def set_alias(
        self, model: RegisteredModel, alias: str = CHAMPION, *, instead_of: RegisteredModel | None = None
    ) -> RegisteredModel:
        """Move an alias to a version; a version that becomes champion loses the alias challenger.

        Args:
            model: The version.
            alias: The alias.
            instead_of: The version that is expected to have the alias now.

        Raises:
            RegistryError: If there is no such version, or a version other than ``instead_of`` has the alias.
        """

    def log_run(self, run: Run) -> str:
        """Log a training run in the experiment ``cifar10``; logging it again changes nothing.

        Returns:
            The run's id in the registry.

        Raises:
            ModelFileError: If a file of the run is missing or changed.
            RegistryError: If it can't be written.
        """

    def insert_run(self, run: RunRecord) -> str:
        """Log a run in the experiment ``cifar10``; an existing one stays as it is.

        Returns:
            The run's id in the registry.

        Raises:
            RegistryError: If it can't be written.
        """

    def delete(self, model: RegisteredModel) -> None:
        """Delete a version and its files.

        Raises:
            RegistryError: If there is no such version, or it is the champion.
        """


def check_model_name(name: str) -> str:
    """Return the name of a model, or raise a `RegistryError` if it is invalid here or in Azure."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", name):
        raise RegistryError(
            "a model's name must be 1 to 128 letters, digits, dots, hyphens and underscores, and begin with "
            f"a letter or a digit. Received: {name[:200]!r}"
        )
    return name


def check_alias(alias: str) -> str:
    """Return an alias, or raise a `RegistryError` if it is invalid or could be mistaken for a version."""
    if alias == LATEST or not re.fullmatch(r"(?!v\d)[a-z][a-z0-9_-]{0,63}", alias):
        raise RegistryError(
            "an alias must be 1 to 64 lower-case letters, digits, hyphens and underscores, begin with a "
            f"letter, and not be {LATEST} or like v1. Received: {alias[:200]!r}",
            hint=f"the usual ones are {CHAMPION} and {CHALLENGER}",
        )
    return alias


def check_alias_change(
    versions: Sequence[RegisteredModel],
    model: RegisteredModel,
    alias: str,
    instead_of: RegisteredModel | None,
) -> None:
    """Refuse to give an alias to what isn't there, or to take it from a version other than ``instead_of``."""
    if model.version not in {each.version for each in versions}:
        raise RegistryError(f"there is no model {model}", hint="list them with: cifarml models list")
    holder = next((each for each in versions if alias in each.aliases), None)
    if instead_of is not None and (holder is None or holder.version != instead_of.version):
        raise RegistryError(
            f"{holder or 'no version'} became {alias} while {model} was compared with {instead_of}",
            hint="compare again, with the new one",
        )


def parse_model(text: str) -> tuple[str, str]:
    """Return name and version (or alias) of a model as people type it.

    Args:
        text: ``cifar10:3``, ``cifar10@champion``, or ``cifar10`` for its champion; ``3``,
            ``champion``, ``challenger`` and ``latest`` mean the model named cifar10.

    Raises:
        RegistryError: If it is none of these.

    Example:
        >>> parse_model("cifar10:3"), parse_model("champion"), parse_model("pets")
        (('cifar10', '3'), ('cifar10', 'champion'), ('pets', 'champion'))
    """
    name, sign, version = text.partition(":") if ":" in text else text.partition("@")
    if not sign:
        short = re.fullmatch(r"\d+", text) or text in {CHAMPION, CHALLENGER, LATEST}
        name, version = (DEFAULT_NAME, text) if short else (text, CHAMPION)
    check_model_name(name)
    is_number = re.fullmatch(r"[1-9][0-9]{0,8}", version)
    if sign == ":" and not is_number and version != LATEST:
        raise RegistryError(
            f"a version is a number, such as {name}:3. Received: {text[:200]!r}",
            hint=f"an alias is typed {name}@{CHAMPION}",
        )
    if not is_number and version != LATEST:
        check_alias(version)
    return name, version
