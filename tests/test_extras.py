"""What is missing when an extra is not installed: an error that names it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HIDE = """
import sys
from importlib.machinery import PathFinder

class WithoutExtra(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == {package!r} else super().find_spec(name, path, target)

sys.meta_path[:] = [WithoutExtra if each is PathFinder else each for each in sys.meta_path]
"""


def run_without(package: str, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a piece of Python that cannot find a package."""
    return subprocess.run(
        [sys.executable, "-c", HIDE.format(package=package) + code],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("extra", "package", "feature", "command", "variables"),
    [
        ("tune", "optuna", "hyperparameter search", "tune --data drawn:100", {}),
        ("jax", "jax", "KERAS_BACKEND=jax", "train --data drawn:100", {"KERAS_BACKEND": "jax"}),
    ],
)
def test_a_command_names_the_missing_extra(
    extra: str, package: str, feature: str, command: str, variables: dict[str, str]
) -> None:
    code = f"sys.argv = ['cifarml', *{command.split()!r}]\nfrom cifarml.cli.main import main\nmain()"
    done = run_without(package, code, **variables)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        f"Error: {feature} requires the package `{package}`, which is not installed",
        f"Hint: pip install 'cifarml[{extra}]'",
    ]


def test_all_public_names_are_there_without_extras() -> None:
    done = run_without("optuna", "from cifarml import *\nprint(tune_model.__name__)")
    assert done.stdout.strip() == "tune_model", done.stderr


def test_a_function_names_the_missing_extra() -> None:
    code = """
import cifarml
from cifarml.errors import SettingsError
try:
    cifarml.train_model
except SettingsError as error:
    print(error.hint)
"""
    done = run_without("jax", code, KERAS_BACKEND="jax")
    assert done.stdout.strip() == "pip install 'cifarml[jax]'", done.stderr


def test_other_missing_packages_are_import_errors() -> None:
    done = run_without("simplejpeg", "import cifarml\ncifarml.load_dataset")
    assert "ModuleNotFoundError: No module named 'simplejpeg'" in done.stderr
