"""Code snapshot of a training job: the installed package, the settings and pinned requirements."""

from __future__ import annotations

import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cifarml.errors import TrainingError
from cifarml.train.config import TrainConfig

_PACKAGE: Final = Path(__file__).parents[2]
SETTINGS: Final = "train.json"
_EXCLUDED: Final = ("azure-ai-ml",)
"""Requirements that a job does not need, because it does not access the workspace."""


def stage_package(folder: Path, config: TrainConfig) -> None:
    """Copy the package and its metadata into a job's code folder; write the settings to train.json.

    Raises:
        TrainingError: If a file can't be copied or written.
    """
    try:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(_PACKAGE, folder / "cifarml", ignore=ignored, dirs_exist_ok=True)
        info = folder / f"cifarml-{metadata.version('cifarml')}.dist-info"
        info.mkdir(exist_ok=True)
        text = metadata.distribution("cifarml").read_text("METADATA") or ""
        (info / "METADATA").write_text(text, encoding="utf-8")
        (folder / SETTINGS).write_text(config.model_dump_json(exclude_none=True), encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"can't stage the code in {folder}: {error.strerror or error}") from error


def training_requirements() -> list[str]:
    """Pin the requirements of a training job to the versions installed on this machine.

    Returns:
        Lines for pip, such as ``"keras==3.15.1"``; TensorFlow includes its GPU libraries.
    """
    pinned: dict[str, str] = {}
    waiting = list(metadata.requires("cifarml") or ())
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name in pinned or name in _EXCLUDED:
            continue
        if requirement.marker and not any(
            requirement.marker.evaluate({"extra": extra}) for extra in (*requirement.extras, "")
        ):
            continue
        try:
            pinned[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # for another platform, or an extra that isn't installed
            continue
        waiting += metadata.requires(name) or ()
    pinned["tensorflow[and-cuda]"] = pinned.pop("tensorflow")
    return [f"{name}=={pinned[name]}" for name in sorted(pinned)]


def conda_file() -> dict[str, Any]:
    """Return the conda file of a job's environment."""
    python = ".".join(map(str, sys.version_info[:2]))
    return {
        "name": "cifarml-training",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": training_requirements()}],
    }
