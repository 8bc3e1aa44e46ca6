"""Errors for missing optional dependencies, which name the extra to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cifarml.errors import SettingsError

_EXTRAS: Final = {
    "jax": ("jax", "KERAS_BACKEND=jax"),
    "pillow_heif": ("heic", "HEIC (iPhone) images"),
    "pyarrow": ("parquet", "Parquet"),
    "optuna": ("tune", "hyperparameter search"),
}
"""Packages with the extra that installs each, and what requires it."""


@contextmanager
def explain_missing_extra() -> Iterator[None]:
    """Translate the import error of an optional dependency that is not installed.

    Raises:
        SettingsError: If an import in the block fails because an extra is missing.

    Example:
        >>> with explain_missing_extra():
        ...     import optuna
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        extra, feature = _EXTRAS[package]
        raise SettingsError(
            f"{feature} requires the package `{package}`, which is not installed",
            hint=f"pip install 'cifarml[{extra}]'",
        ) from error
