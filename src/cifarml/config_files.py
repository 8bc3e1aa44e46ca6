"""Readers for settings files: cifarml.toml, Azure ML's config.json and files of training settings."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from cifarml.errors import SettingsError

WORKSPACE: Final = ("subscription_id", "resource_group", "workspace_name")
"""Keys of Azure ML's config.json."""
_MAX_BYTES: Final = 1 << 20


def read_toml(
    path: Path, names: tuple[str, ...], secrets: tuple[str, ...], paths: tuple[str, ...]
) -> dict[str, Any]:
    """Read settings from a cifarml.toml.

    Args:
        path: The file.
        names: Names of all settings.
        secrets: Settings that must not be in a file.
        paths: Settings whose relative paths are resolved against the file's folder.

    Raises:
        SettingsError: If the file can't be read, or contains a secret or an unknown setting.
    """
    text = _read_text(path)
    values = _parse_settings(path, text, tomllib.loads)
    known = [name for name in names if name not in secrets]
    for key in values:
        name = key.lower().replace("-", "_").removeprefix("cifarml_").removeprefix("azure_")
        found = re.search(rf"^[ \t]*\[*[ \t]*[\"']?{re.escape(key)}\b", text, re.MULTILINE)
        where = f"{path}, line {text.count(chr(10), 0, found.start()) + 1}" if found else str(path)
        if name in secrets:
            raise SettingsError(
                f"{where}: {name} is a secret, and cifarml.toml must not contain secrets",
                hint=f"delete the line, and set the environment variable CIFARML_{name.upper()}",
            )
        if key not in known:
            close = get_close_matches(name, known)
            raise SettingsError(
                f"{where}: there is no setting {redact(key)}",
                hint=f"did you mean {' or '.join(close)}?" if close else f"settings: {', '.join(known)}",
            )
    for name in paths:
        if isinstance(values.get(name), str) and values[name] and not values[name].startswith("~"):
            values[name] = str(path.parent / values[name])
    return {name: value for name, value in values.items() if value != ""}


def read_workspace(path: Path) -> dict[str, Any] | None:
    """Read an Azure ML workspace config.json; return None if the file belongs to another program.

    Raises:
        SettingsError: If the file is certainly Azure ML's, and can't be read.
    """
    surely = path.parent.name == ".azureml"
    text = ""
    try:
        text = _read_text(path)
        values = json.loads(text)
    except SettingsError:
        if surely:
            raise
        return None
    except (ValueError, RecursionError) as error:
        if not surely and "workspace_name" not in text:
            return None
        raise SettingsError(
            f"{path} is not valid JSON: {error}", hint="download config.json from the workspace again"
        ) from error
    if not isinstance(values, dict) or not all(name in values for name in WORKSPACE):
        return None
    return {name: values[name] for name in WORKSPACE if values[name] not in ("", None)}


def read_train_settings(path: Path) -> dict[str, Any]:
    """Read a file of training settings: JSON if its suffix is .json, otherwise TOML.

    Raises:
        SettingsError: If the file can't be read, or contains no settings.
    """
    hint = "pass a .toml or .json file, such as config.json of a run folder"
    if not path.exists():
        raise SettingsError(f"there is no file {path}", hint=hint)
    text = _read_text(path, hint)
    values = _parse_settings(path, text, json.loads if path.suffix.lower() == ".json" else tomllib.loads)
    if not isinstance(values, dict) or not values:
        raise SettingsError(f"{path} contains no settings", hint="add one, such as: num_epochs = 20")
    return values


def redact(text: str) -> str:
    """Return a received value for an error message, or only its length if it could be a secret."""
    plain = len(text) <= 63 and re.fullmatch(r"[\w.:/ -]*", text)
    return repr(text) if plain else f"{len(text)} characters"


def _parse_settings(path: Path, text: str, loads: Callable[[str], Any]) -> Any:
    try:
        return loads(text)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if loads is json.loads else "TOML"
        raise SettingsError(f"{path} is not valid {kind}: {error}", hint=f"correct {path}") from error


def _read_text(path: Path, hint: str = "") -> str:
    hint = hint or f"rename it; {path.name} must be a settings file"
    try:
        if path.exists() and not path.is_file():
            raise SettingsError(f"{path} is not a file", hint=hint)
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}", hint="make it readable") from error
    if len(content) > _MAX_BYTES:
        raise SettingsError(f"{path} is larger than 1 MiB", hint=hint)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}, line {line}: not UTF-8 text", hint="save it as UTF-8") from error
