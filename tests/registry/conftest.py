"""An empty registry on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cifarml.registry.local.registry import LocalRegistry


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take it seconds to make."""
    folder = tmp_path_factory.mktemp("made")
    with LocalRegistry(folder)._database.writing():
        pass
    return folder / "mlflow.db"


@pytest.fixture
def local_registry(own_cache: Path, made: Path) -> LocalRegistry:
    folder = own_cache / "registry"
    folder.mkdir()
    shutil.copyfile(made, folder / "mlflow.db")
    return LocalRegistry()
