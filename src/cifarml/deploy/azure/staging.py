"""Code folder of a deployment: the scoring script and the cifarml modules that it imports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from cifarml.errors import DeployError

SCORING_SCRIPT: Final = "cifarml/scoring/score.py"
"""Path of the scoring script in the code folder."""

_PACKAGE_ROOT: Final = Path(__file__).parents[3]
_LOCK: Final = Path(__file__).with_name("scoring-environment.txt")
"""Compiled in this folder with ``uv pip compile --universal --python-version 3.11 --generate-hashes
--no-header scoring-environment.in -o scoring-environment.txt``."""

# Import the script in a new interpreter to list exactly its modules.
_LIST_FILES: Final = """
import json, sys
import cifarml.scoring.score
files = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "cifarml"]
json.dump(files, sys.stdout)
"""


def scoring_files() -> dict[str, Path]:
    """Return the files of a deployment's code folder by their relative paths, such as ``"cifarml/run.py"``.

    Raises:
        DeployError: If the scoring script can't be imported.
    """
    done = subprocess.run(  # noqa: S603  # this interpreter, fixed arguments
        [sys.executable, "-P", "-c", _LIST_FILES],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise DeployError(f"the scoring script can't be imported: {reason}", "see: cifarml doctor")
    files = [Path(file) for file in json.loads(done.stdout)]
    return {file.relative_to(_PACKAGE_ROOT).as_posix(): file for file in sorted(files)}


def locked_requirements() -> list[str]:
    """Return the pip requirements of a scoring environment: ``"numpy==2.4.6 --hash=sha256:..."``."""
    text = _LOCK.read_text(encoding="utf-8").replace("\\\n", " ")
    return [
        " ".join(line.split()) for line in text.splitlines() if line and not line.lstrip().startswith("#")
    ]


def stage_scoring(folder: Path) -> Path:
    """Create the code folder of a deployment, and return the path of the scoring script in it.

    Raises:
        DeployError: If the scoring script can't be imported.
    """
    for name, file in scoring_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / name)
    return folder / SCORING_SCRIPT
