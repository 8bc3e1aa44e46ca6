"""PyTorch in its own virtual environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import filelock

from tests.environments import CACHE

VERSION = "2.13.0"


def pytorch_python() -> Path:
    """Return a Python interpreter with PyTorch, which pip installs if it is missing.

    On Linux, PyPI has the CUDA build (several gigabytes), which also runs without a GPU. For the small CPU
    build, set ``PIP_INDEX_URL=https://download.pytorch.org/whl/cpu``. Because both are allowed, there is no
    lock file with hashes.
    """
    folder = CACHE / f"torch-{VERSION}-{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    CACHE.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(CACHE / "torch.lock"):
        if not (folder / "installed").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            install: list[str | Path] = [
                python,
                "-m",
                "pip",
                "install",
                "--quiet",
                f"torch=={VERSION}",
                "numpy",
            ]
            subprocess.run(install, check=True)
            (folder / "installed").touch()
    return python
