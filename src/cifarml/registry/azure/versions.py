"""Model versions in Azure ML: their metrics, tags and aliases."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cifarml.registry.base import ModelRegistry, RegisteredModel

if TYPE_CHECKING:
    from azure.ai.ml.entities import Model

ALIAS_TAG: Final = "alias."
"""Prefix of alias tags, such as ``alias.champion``. The version with the highest number has the alias."""

METRIC_PROPERTY: Final = "metric."
"""Prefix of properties with final metrics."""


class Version(NamedTuple):
    """Registered version, with the sequence number of each of its alias tags."""

    model: RegisteredModel
    numbers: dict[str, int]


def parse_versions(models: Iterable[Model], registry: ModelRegistry) -> list[Version]:
    """Return the versions registered by cifarml, the oldest first, with their aliases."""
    managed = sorted(filter(_is_managed, models), key=lambda each: int(str(each.version)))
    aliases = {alias for each in managed for alias in _alias_numbers(each)}
    holders = {alias: _find_holder(managed, alias) for alias in aliases}
    return [
        _parse_version(each, registry, [a for a, held in holders.items() if held is each]) for each in managed
    ]


def _is_managed(model: Model) -> bool:
    number = str(model.version)
    sha256 = str((model.tags or {}).get("run_sha256"))
    return number.isascii() and number.isdecimal() and re.fullmatch("[0-9a-f]{64}", sha256) is not None


def _alias_numbers(model: Model) -> dict[str, int]:
    numbers = {}
    for key, value in (model.tags or {}).items():
        if key.startswith(ALIAS_TAG) and re.fullmatch(r"[1-9][0-9]{0,8}", str(value)):
            numbers[key.removeprefix(ALIAS_TAG)] = int(value)
    return numbers


def _find_holder(models: list[Model], alias: str) -> Model:
    """Return the version that has an alias: highest sequence number; if equal, the earliest update."""

    def rank(model: Model) -> tuple[int, float, int]:
        context = model.creation_context
        written = getattr(context, "last_modified_at", None) or getattr(context, "created_at", None)
        at = written.timestamp() if written is not None else 0.0
        return _alias_numbers(model).get(alias, 0), -at, -int(str(model.version))

    return max(models, key=rank)


def _parse_version(model: Model, registry: ModelRegistry, aliases: list[str]) -> Version:
    tags: dict[str, Any] = dict(model.tags or {})
    metrics: dict[str, float] = {}
    for key, value in (model.properties or {}).items():
        if key.startswith(METRIC_PROPERTY):
            with suppress(TypeError, ValueError):
                metrics[key.removeprefix(METRIC_PROPERTY)] = float(value)
    registered = RegisteredModel(
        name=str(model.name),
        version=str(model.version),
        aliases=tuple(sorted(aliases)),
        run_sha256=str(tags["run_sha256"]),
        run=str(tags.get("run", "")),
        created_at=getattr(model.creation_context, "created_at", None),
        metrics=metrics,
        tags={key: str(value) for key, value in tags.items() if not key.startswith(ALIAS_TAG)},
        registry=registry,
    )
    return Version(registered, _alias_numbers(model))
