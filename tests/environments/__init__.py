"""Environments of their own for what can't or must not share ours, locked by hashes, made once for each lock.

To lock one again, in this folder:
``uv pip compile --universal --python-version 3.11 --generate-hashes --no-header NAME.in -o NAME.txt``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import filelock
import platformdirs
import pytest

from cifarml.deploy.azure import staging

FOLDER = Path(__file__).parent
SHIPPED = {"inference-server": Path(staging.__file__).with_name("scoring-environment.txt")}
CACHE = platformdirs.user_cache_path("cifarml-tests") / "environments"
UNREACHABLE = re.compile(r"dns error|name resolution|NewConnectionError|connect error|ConnectTimeout", re.I)


def environment(name: str) -> Path:
    """Return the folder of programs of an environment, installed from PyPI unless it is there."""
    lock = SHIPPED.get(name, FOLDER / f"{name}.txt")
    key = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = CACHE / f"{name}-{key}"
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    CACHE.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(CACHE / f"{name}.lock"):
        if not (folder / "installed").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            _install(folder, programs / "python", lock)
            (folder / "installed").touch()
    return programs


def _install(folder: Path, python: Path, lock: Path) -> None:
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if uv := shutil.which("uv", path=search):
        make: list[str | Path] = [uv, "venv", "--quiet", "--python", sys.executable, folder]
        install: list[str | Path] = [uv, "pip", "install", "--python", python, "--require-hashes", "-r", lock]
    else:
        make = [sys.executable, "-m", "venv", folder]
        install = [
            python,
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--require-hashes",
            "-r",
            lock,
        ]
    for command in (make, install):
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=280,
            check=False,
        )
        if done.returncode:
            lines = "\n".join(done.stdout.splitlines()[-15:])
            say = pytest.skip if UNREACHABLE.search(lines) else pytest.fail
            say(f"{lock.name} cannot be installed: {command[0]} ended with {done.returncode}.\n{lines}")
