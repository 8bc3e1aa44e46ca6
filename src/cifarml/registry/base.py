"""Model registry protocol and registered models."""

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
"""Default model name, as in the article."""

CHAMPION: Final = "champion"
"""Alias of the version in use."""

CHALLENGER: Final = "challenger"
"""Alias of the version that may replace the champion."""

LATEST: Final = "latest"
"""Refers to the highest version."""


@dataclass(frozen=True)
class RegisteredModel:
    """Version of a registered model, which can be passed wherever a run is expected.

    Args:
        name: Name of the model.
        version: Version number, as a string; the first is "1".
        aliases: Aliases of the version, such as `champion`.
        run_sha256: Hash of the run's content.
        run: Name of the training run.
        created_at: Time of the registration, with a time zone.
        metrics: Final metrics, such as `test_accuracy` (0 to 1).
        tags: Additional strings, such as the fingerprint of the training data.
        registry: The `ModelRegistry` that returned it, or None.

    Example:
        ```python
        model = LocalRegistry().get("cifar10", "champion")
        Run.open(model).predictor().predict("ship.png").label  # "ship"
        ```
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
        """Return the version's run after verifying its files; see `ModelRegistry.open`."""
        if self.registry is None:
            raise RegistryError(
                f"{self} does not come from a registry, so its files are unknown",
                hint=f'get it from a registry: LocalRegistry().get("{self.name}", "{self.version}")',
            )
        registry: ModelRegistry = self.registry
        return registry.open(self)


class ModelRegistry(Protocol):
    """Registry that stores training runs as immutable, numbered versions of models."""

    @property
    def ui_command(self) -> str:
        """Command that shows runs and versions in a browser; empty if not available."""

    def register(self, run: RunLike, name: str = DEFAULT_NAME) -> RegisteredModel:
        """Register a run as a new version; return the existing version if the content is the same.

        The first version of a model becomes its champion, a later one its challenger. Version numbers are
        never reused.

        Raises:
            ModelFileError: If a file of the run is missing or changed.
            RegistryError: If it can't be registered; the registry is unchanged.
        """

    def get(self, name: str = DEFAULT_NAME, version: str = CHAMPION) -> RegisteredModel:
        """Return a version by its number, an alias, or ``latest``.

        Raises:
            RegistryError: If it does not exist.
        """

    def list_models(self, name: str | None = None) -> list[RegisteredModel]:
        """Return the versions of one model or of all models, the oldest first."""

    def open(self, model: RegisteredModel) -> Run:
        """Return a version's run after verifying its files; they must not be modified.

        Raises:
            RegistryError: If the version does not exist, or its files can't be fetched.
            ModelFileError: If its files are damaged.
        """

    def download(self, model: RegisteredModel, to: Path) -> Run:
        """Copy a version's run atomically into the new folder ``to``, and verify it.

        Raises:
            RegistryError: If the version does not exist, or ``to`` has other content.
            ModelFileError: If the stored files are damaged.
        """

    def set_alias(
        self, model: RegisteredModel, alias: str = CHAMPION, *, instead_of: RegisteredModel | None = None
    ) -> RegisteredModel:
        """Move an alias to a version; a new champion loses the alias ``challenger``.

        Args:
            model: The version.
            alias: The alias.
            instead_of: The version that must have the alias now (compare-and-swap).

        Raises:
            RegistryError: If the version does not exist, or ``instead_of`` does not have the alias.
        """

    def log_run(self, run: Run) -> str:
        """Log a training run in the experiment ``cifar10``; idempotent.

        Returns:
            The run's ID in the registry.

        Raises:
            ModelFileError: If a file of the run is missing or changed.
            RegistryError: If it can't be written.
        """

    def insert_run(self, run: RunRecord) -> str:
        """Log any run in the experiment ``cifar10``; an existing run is not changed.

        Returns:
            The run's ID in the registry.

        Raises:
            RegistryError: If it can't be written.
        """

    def delete(self, model: RegisteredModel) -> None:
        """Delete a version and its files.

        Raises:
            RegistryError: If the version does not exist, or is the champion.
        """


def check_model_name(name: str) -> str:
    """Return a model name, or raise a `RegistryError` if it is invalid here or in Azure."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", name):
        raise RegistryError(
            "a model name must be 1 to 128 letters, digits, dots, hyphens and underscores, and begin with "
            f"a letter or a digit. Received: {name[:200]!r}"
        )
    return name


def check_alias(alias: str) -> str:
    """Return an alias, or raise a `RegistryError` if it is invalid or could be mistaken for a version."""
    if alias == LATEST or not re.fullmatch(r"(?!v\d)[a-z][a-z0-9_-]{0,63}", alias):
        raise RegistryError(
            "an alias must be 1 to 64 lower-case letters, digits, hyphens and underscores, begin with a "
            f"letter, and not be {LATEST} or look like a version (v1). Received: {alias[:200]!r}",
            hint=f"the usual aliases are {CHAMPION} and {CHALLENGER}",
        )
    return alias


def check_alias_change(
    versions: Sequence[RegisteredModel],
    model: RegisteredModel,
    alias: str,
    instead_of: RegisteredModel | None,
) -> None:
    """Raise a `RegistryError` if the version does not exist, or ``instead_of`` does not have the alias."""
    if model.version not in {each.version for each in versions}:
        raise RegistryError(f"there is no model {model}", hint="list them with: cifarml models list")
    holder = next((each for each in versions if alias in each.aliases), None)
    if instead_of is not None and (holder is None or holder.version != instead_of.version):
        raise RegistryError(
            f"{holder or 'no version'} became {alias} while {model} was compared with {instead_of}",
            hint=f"compare again, with the current {alias}",
        )


def parse_model(text: str) -> tuple[str, str]:
    """Parse a model reference into its name and its version or alias.

    Args:
        text: ``cifar10:3``, ``cifar10@champion``, or ``cifar10`` for its champion; ``3``,
            ``champion``, ``challenger`` and ``latest`` refer to the model named cifar10.

    Raises:
        RegistryError: If it is not a valid reference.

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
            f"a version must be a number, such as {name}:3. Received: {text[:200]!r}",
            hint=f"write an alias as {name}@{CHAMPION}",
        )
    if not is_number and version != LATEST:
        check_alias(version)
    return name, version
