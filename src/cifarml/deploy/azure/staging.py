"""The code folder of a deployment: the scoring script, and what it imports of ours, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cifarml.errors import DeployError

SCORING_SCRIPT: Final = "cifarml/scoring/score.py"
"""Where the scoring script lies in the code folder."""

_PACKAGE_ROOT: Final = Path(__file__).parents[3]
_LOCK: Final = Path(__file__).with_name("scoring-environment.txt")
"""Made from scoring-environment.in, in this folder, by ``uv pip compile --universal --python-version 3.11
--generate-hashes --no-header scoring-environment.in -o scoring-environment.txt``."""

# What is imported is seen by importing it: in an interpreter of its own, where nothing else is.
_LOOK: Final = """
import json, sys
import cifarml.scoring.score
files = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "cifarml"]
json.dump({"files": files, "imported": sorted({name.split(".")[0] for name in sys.modules})}, sys.stdout)
"""


def scoring_files() -> dict[str, Path]:
    """Return what a deployment's code folder holds.

    Returns:
        Each file by its path in the folder, such as ``"cifarml/run.py"``.

    Raises:
        DeployError: If the scoring script can't be imported here.
    """
    files = [Path(file) for file in _look()["files"]]
    return {file.relative_to(_PACKAGE_ROOT).as_posix(): file for file in sorted(files)}


def scoring_requirements() -> list[str]:
    """Return the libraries that a deployment needs, in the versions that are installed here.

    Returns:
        Lines for pip, such as ``"numpy==2.4.6"``.

    Raises:
        DeployError: If the scoring script can't be imported here.
    """
    required = {canonicalize_name(Requirement(line).name) for line in metadata.requires("cifarml") or ()}
    owners = metadata.packages_distributions()
    imported = {
        canonicalize_name(owner) for module in _look()["imported"] for owner in owners.get(module, ())
    }
    return [f"{name}=={metadata.version(name)}" for name in sorted(imported & required)]


def locked_requirements() -> list[str]:
    """Return what a scoring environment in Azure installs, the inference server included, all by hash.

    Returns:
        Lines for pip, each with all its hashes, such as ``"numpy==2.4.6 --hash=sha256:..."``.
    """
    text = _LOCK.read_text(encoding="utf-8").replace("\\\n", " ")
    return [
        " ".join(line.split()) for line in text.splitlines() if line and not line.lstrip().startswith("#")
    ]


def stage_scoring(folder: Path) -> Path:
    """Copy the code folder of a deployment.

    Args:
        folder: Where to; what is there of these files is written over.

    Returns:
        The scoring script in it.

    Raises:
        DeployError: If the scoring script can't be imported here.
    """
    for name, file in scoring_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / name)
    return folder / SCORING_SCRIPT


def _look() -> Any:
    done = subprocess.run(  # noqa: S603  # our own interpreter and code
        [sys.executable, "-P", "-c", _LOOK], capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise DeployError(f"the scoring script can't be imported: {reason}", "see: cifarml doctor")
    return json.loads(done.stdout)
