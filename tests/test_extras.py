"""Errors for extras that are not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.image_files import image_bytes, write_folder

HIDE = """
import sys
from importlib.machinery import PathFinder

class WithoutExtra(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == {package!r} else super().find_spec(name, path, target)

sys.meta_path[:] = [WithoutExtra if each is PathFinder else each for each in sys.meta_path]
"""

RunWithout = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_without(tmp_path: Path) -> RunWithout:
    """Run Python in a process in which, as in its children, a package cannot be found."""

    def run(package: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "sitecustomize.py").write_text(HIDE.format(package=package))
        path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
        return subprocess.run(
            [sys.executable, *arguments],
            env=os.environ | {"PYTHONPATH": path} | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    return run


def test_search_names_its_extra(run_without: RunWithout) -> None:
    """All public names exist without the extra; the error is raised on use."""
    code = """
from cifarml import *
try:
    tune_model(TrainConfig(), load_dataset("drawn:100"), "tuning")
except CifarMLError as error:
    print(error.message, error.hint, sep="\\n")
"""
    done = run_without("optuna", "-c", code)
    assert done.stdout.splitlines() == [
        "hyperparameter search requires the package `optuna`, which is not installed",
        "pip install 'cifarml[tune]'",
    ], done.stderr


def test_parquet_names_its_extra(run_without: RunWithout, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1" + bytes(40))
    done = run_without("pyarrow", "-m", "cifarml", "data", "check", "x.parquet")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        "Error: Parquet requires the package `pyarrow`, which is not installed",
        "Hint: pip install 'cifarml[parquet]'",
    ]


def test_heic_images_name_their_extra(run_without: RunWithout, tmp_path: Path) -> None:
    """Images in HEIC are counted, and named if their suffix says otherwise."""
    heic = b"\0\0\0\x18ftypheic" + bytes(12) + b"\0"
    for name in ("cat", "dog"):
        files = {f"{i}.HEIC": heic for i in range(17)} | {
            f"{i}.png": image_bytes(i + len(name)) for i in range(3)
        }
        write_folder(tmp_path / "photos" / name, files)
    done = run_without("pillow_heif", "-m", "cifarml", "data", "check", "photos")
    assert done.returncode == 1
    assert "34 HEIC (iPhone) images not read" in done.stdout
    assert "pip install 'cifarml[heic]'" in done.stdout
    (tmp_path / "photos" / "cat" / "really.jpg").write_bytes(heic)
    done = run_without("pillow_heif", "-m", "cifarml", "train", "--data", "photos", "--epochs", "1")
    assert (
        "cat/really.jpg: HEIC (iPhone) image, which can't be read; pip install 'cifarml[heic]'" in done.stderr
    )


def test_training_on_jax_names_its_extra(run_without: RunWithout) -> None:
    done = run_without("jax", "-m", "cifarml", "train", "--data", "drawn:100", KERAS_BACKEND="jax")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        "Error: KERAS_BACKEND=jax requires the package `jax`, which is not installed",
        "Hint: pip install 'cifarml[jax]'",
    ]


def test_doctor_names_the_extra(run_without: RunWithout) -> None:
    done = run_without("jax", "-m", "cifarml", "doctor", "--json", KERAS_BACKEND="jax")
    assert done.returncode == 1
    assert "KERAS_BACKEND=jax requires the package `jax`" in done.stdout
    assert "pip install 'cifarml[jax]'" in done.stdout


def test_importing_a_public_name_names_the_extra(run_without: RunWithout) -> None:
    code = """
import cifarml
try:
    cifarml.train_model
except cifarml.CifarMLError as error:
    print(error.hint)
"""
    done = run_without("jax", "-c", code, KERAS_BACKEND="jax")
    assert done.stdout.strip() == "pip install 'cifarml[jax]'", done.stderr


def test_other_missing_packages_are_import_errors(run_without: RunWithout) -> None:
    done = run_without("simplejpeg", "-c", "import cifarml\ncifarml.load_dataset")
    assert "ModuleNotFoundError: No module named 'simplejpeg'" in done.stderr


def test_registry_works_without_mlflow(run_without: RunWithout) -> None:
    """Only updating the MLflow copy is an error, which names the extra."""
    code = """
from cifarml import CifarMLError, LocalRegistry
registry = LocalRegistry("registry")
registry.start_mirror()
print(repr(registry.ui_command))
try:
    registry.update_mlflow()
except CifarMLError as error:
    print(error.message, error.hint, sep="\\n")
"""
    done = run_without("mlflow", "-c", code)
    assert done.stdout.splitlines() == [
        "''",
        "the MLflow mirror requires the packages mlflow, sqlalchemy, alembic",
        "pip install 'cifarml[mlflow]'",
    ], done.stderr
