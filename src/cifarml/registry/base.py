"""What a registry of models does, wherever it lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from cifarml.bundle import Bundle

__all__ = ["CHALLENGER", "CHAMPION", "DEFAULT_NAME", "ModelRegistry", "RegisteredModel"]

DEFAULT_NAME: Final = "cifar10"
"""Name of the model, as in the article, where none is given."""

CHAMPION: Final = "champion"
"""Alias of the version that is in use."""

CHALLENGER: Final = "challenger"
"""Alias of the version that may replace it."""


@dataclass(frozen=True)
class RegisteredModel:
    """One version of a model.

    Args:
        name: Name of the model.
        version: A number, as text; the first is "1".
        aliases: What else the version is called, such as ``champion``.
        bundle_sha256: Hash of its bundle, by which the same content is known again.
        run: Name of the run that made it.
        created_at: When it was registered, with a time zone.
        metrics: Final figures, such as ``test_accuracy`` (0 to 1).
        tags: What else is known, such as the fingerprint of its data.
    """

    name: str
    version: str
    aliases: tuple[str, ...] = ()
    bundle_sha256: str = ""
    run: str = ""
    created_at: datetime | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return it as people type it."""
        return f"{self.name}:{self.version}"


class ModelRegistry(Protocol):
    """Keeps bundles as versions of models. What is registered never changes."""

    def register(self, bundle: Bundle, name: str = DEFAULT_NAME) -> RegisteredModel:
        """Register a bundle; the same content gives the version that is there.

        Raises:
            ModelFileError: If a file of the bundle is missing or changed.
            RegistryError: If it can't be registered; nothing half-done is left.
        """

    def get(self, name: str = DEFAULT_NAME, version: str = CHAMPION) -> RegisteredModel:
        """Return a version by its number, an alias, or ``latest``.

        Raises:
            RegistryError: If there is none.
        """

    def list_models(self, name: str | None = None) -> list[RegisteredModel]:
        """Return all versions (of one model), the oldest first."""

    def download(self, model: RegisteredModel, to: Path) -> Bundle:
        """Copy a version's bundle into a new folder ``to``, verified; all of it or nothing.

        Raises:
            RegistryError: If there is no such version, or ``to`` holds something else.
            ModelFileError: If what is kept has been damaged.
        """

    def set_alias(self, model: RegisteredModel, alias: str = CHAMPION) -> RegisteredModel:
        """Give a version an alias, taking it from the version that had it.

        Raises:
            RegistryError: If there is no such version.
        """

    def delete(self, model: RegisteredModel) -> None:
        """Delete a version and its files.

        Raises:
            RegistryError: If there is no such version, or it is the champion.
        """
