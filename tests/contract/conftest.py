"""The places over which the contract suites run: this machine, and Azure ML as far as it is emulated."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.azure.conftest import NETWORK
from tests.azure.ml.cloud import Cloud
from tests.azure.ml.fixtures import FOREIGN, ml_cloud

__all__ = ["ml_cloud"]


@pytest.fixture(scope="module")
def workspace_of_module(ml_cloud: Cloud) -> Iterator[Cloud]:
    """An empty workspace, and an environment that leads to it, for all tests of a file."""
    ml_cloud.reset()
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(FOREIGN) or name.upper() in NETWORK:
                patch.delenv(name)
        for name, value in ml_cloud.env().items():
            patch.setenv(name, value)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")
        yield ml_cloud
    assert not ml_cloud.crashes, "\n".join(ml_cloud.crashes)
