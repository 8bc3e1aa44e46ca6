"""Where things are on this machine, and what the environment changes about it.

Each setting is read from the environment variable ``CIFARML_<NAME>``.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
from pydantic import AnyHttpUrl, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from cifarml.cifar10 import ARCHIVE_URL
from cifarml.errors import SettingsError

__all__ = ["Settings", "debugging", "hush_tensorflow", "load_settings"]


class Settings(BaseSettings):
    """The settings in force."""

    model_config = SettingsConfigDict(env_prefix="CIFARML_", frozen=True, env_ignore_empty=True)

    cache_dir: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("cifarml"),
        description="Downloads and decoded pictures; safe to delete.",
    )
    runs_dir: Path = Field(default=Path("runs"), description="Where training puts its run folders.")
    cifar10_url: AnyHttpUrl = Field(
        default=AnyHttpUrl(ARCHIVE_URL),
        description="Where the official archive is fetched from, such as a mirror; its hash is checked.",
    )


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        SettingsError: If a variable holds something unusable.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "CIFARML_" + "_".join(map(str, first["loc"])).upper()
        raise SettingsError(
            f"{name}: {first['msg']}", hint=f"set {name} to a valid value, or unset it"
        ) from error


def debugging() -> bool:
    """Tell whether CIFARML_DEBUG asks for tracebacks."""
    return os.environ.get("CIFARML_DEBUG", "") not in {"", "0"}


def hush_tensorflow() -> None:
    """Ask TensorFlow's native code for warnings only, unless the user has asked for something else."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
