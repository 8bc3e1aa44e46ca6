"""YAML specifications for ``az ml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from cifarml.errors import CloudError

SCHEMA: Final = "https://azuremlschemas.azureedge.net/latest/{}.schema.json"


def new_folder(folder: Path) -> Path:
    """Create a folder, unless it exists and is empty.

    Raises:
        CloudError: If it is not empty, or can't be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise CloudError(f"{folder} is not empty", "pass a new folder")
    except OSError as error:
        raise CloudError(f"can't write to {folder}: {error.strerror}") from error
    return folder


def write_documents(folder: Path, documents: dict[str, dict[str, Any]]) -> list[Path]:
    """Write documents as YAML files; return their paths."""
    import yaml

    for name, document in documents.items():
        text = yaml.safe_dump(document, sort_keys=False, width=1_000_000, allow_unicode=True)
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in documents]
