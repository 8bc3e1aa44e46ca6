"""Fixtures for the emulators of Azure Storage and Azure ML; their libraries are imported on first use."""

from __future__ import annotations

import io
import logging
import os
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

    from tests.emulators.azureml.cloud import Cloud
    from tests.emulators.storage_bench import StorageBench

NETWORK = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "CURL_CA_BUNDLE", "SSL_CERT_DIR")
FOREIGN = ("AZURE_", "AZUREML_", "MLFLOW_", "CIFARML_STORAGE", "ARM_CLOUD_")


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageBench]:
    from tests.emulators.storage_bench import StorageBench

    bench = StorageBench(tmp_path_factory.mktemp("storage"))
    yield bench
    bench.close()


@pytest.fixture
def storage(bench: StorageBench, monkeypatch: pytest.MonkeyPatch) -> StorageBench:
    """Emulated storage account without faults; the environment contains its key and the proxy."""
    for name in list(os.environ):
        if name.startswith(("AZURE_", "CIFARML_STORAGE")) or name.upper() in NETWORK:
            monkeypatch.delenv(name)
    for name, value in bench.env("key").items():
        monkeypatch.setenv(name, value)
    bench.route(faulty=False)
    bench.faults.reset()
    bench.proxy.refused.clear()
    return bench


@pytest.fixture
def client(storage: StorageBench) -> Iterator[BlobServiceClient]:
    """Azure's client, connected directly to Azurite, without proxy and faults."""
    from azure.storage.blob import BlobServiceClient

    with BlobServiceClient(storage.local_url, credential=storage.key) as client:
        yield client


@pytest.fixture
def container(client: BlobServiceClient) -> Iterator[str]:
    """Name of a new container, deleted after the test."""
    name = f"c{uuid.uuid4().hex}"
    client.create_container(name)
    yield name
    client.delete_container(name)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Debug log of cifarml and all libraries."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    loggers = [logging.getLogger(name) for name in ("", "azure", "msal", "urllib3", "cifarml")]
    before = [(logger.level, logger.handlers[:], logger.propagate) for logger in loggers]
    loggers[0].addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.propagate = True
    yield text
    for logger, (level, handlers, propagate) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers, logger.propagate = handlers, propagate


@pytest.fixture
def no_secrets_in_output(
    storage: StorageBench,
    log: io.StringIO,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """Assert that nothing logged or printed contains a secret."""
    monkeypatch.setenv("CIFARML_DEBUG", "1")
    yield
    shown = log.getvalue() + "".join(capfd.readouterr())
    for secret in storage.secrets():
        assert secret not in shown, f"a secret of {len(secret)} characters was shown"


@pytest.fixture(scope="session")
def ml_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    from tests.emulators.azureml.cloud import Cloud

    cloud = Cloud(tmp_path_factory.mktemp("cloud"))
    yield cloud
    cloud.close()


@pytest.fixture
def cloud(ml_cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """Empty emulated workspace; the environment variables point to it."""
    ml_cloud.reset()
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name.upper() in NETWORK:
            monkeypatch.delenv(name)
    for name, value in ml_cloud.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")  # the client sets it; monkeypatch restores it
    yield ml_cloud
    assert not ml_cloud.crashes, "\n".join(ml_cloud.crashes)


@pytest.fixture(scope="module")
def workspace_of_module(ml_cloud: Cloud) -> Iterator[Cloud]:
    """Empty emulated workspace for all tests of a module; the environment variables point to it."""
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
