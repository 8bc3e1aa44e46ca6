"""The workspace for tests: one for a session, empty for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.azure.conftest import NETWORK
from tests.azure.ml.cloud import Cloud

FOREIGN = ("AZURE_", "AZUREML_", "MLFLOW_", "CIFARML_STORAGE", "ARM_CLOUD_")


@pytest.fixture(scope="session")
def ml_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path_factory.mktemp("cloud"))
    yield cloud
    cloud.close()


@pytest.fixture
def cloud(ml_cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """An empty workspace, and an environment that leads to it."""
    ml_cloud.reset()
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name.upper() in NETWORK:
            monkeypatch.delenv(name)
    for name, value in ml_cloud.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")  # the client sets it, and then it goes again
    yield ml_cloud
    assert not ml_cloud.crashes, "\n".join(ml_cloud.crashes)
