"""Plans of clusters as YAML that ``az ml`` takes."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from cifarml.azure.compute import ClusterOptions
from cifarml.azure.workspace import TAG
from cifarml.errors import CloudError

SCHEMA: Final = "https://azuremlschemas.azureedge.net/latest/{}.schema.json"


def new_folder(folder: Path) -> Path:
    """Make a folder, or return one that is empty.

    Raises:
        CloudError: If it holds something, or can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise CloudError(f"{folder} is not empty", "name a new folder")
    except OSError as error:
        raise CloudError(f"can't write to {folder}: {error.strerror}") from error
    return folder


def write_documents(folder: Path, documents: dict[str, dict[str, Any]]) -> list[Path]:
    """Write documents as YAML files, in their order.

    Args:
        folder: Where.
        documents: Content by file name.
    """
    import yaml

    for name, document in documents.items():
        text = yaml.safe_dump(document, sort_keys=False, width=1_000_000, allow_unicode=True)
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in documents]


def write_cluster_yaml(folder: Path, name: str, options: ClusterOptions) -> list[Path]:
    """Write a cluster as a file that ``az ml compute create`` takes.

    Raises:
        CloudError: If the folder is not empty, or can't be written.
    """
    document = {
        "$schema": SCHEMA.format("amlCompute"),
        "name": name,
        "type": "amlcompute",
        "size": options.size,
        "min_instances": 0,
        "max_instances": options.max_nodes,
        "idle_time_before_scale_down": 60 * options.idle_minutes,
        "tier": "low_priority" if options.low_priority else "dedicated",
        "identity": {"type": "system_assigned"},
        "tags": {TAG: version("cifarml")},
    }
    return write_documents(new_folder(folder), {"compute.yml": document})
