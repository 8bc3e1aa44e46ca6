"""Azure Storage for tests; bench.py says what it is made of."""

from __future__ import annotations

import io
import logging
import os
import uuid
from collections.abc import Iterator

import pytest
from azure.storage.blob import BlobServiceClient

from tests.azure.bench import StorageBench

NETWORK = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "CURL_CA_BUNDLE", "SSL_CERT_DIR")


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageBench]:
    bench = StorageBench(tmp_path_factory.mktemp("storage"))
    yield bench
    bench.close()


@pytest.fixture
def storage(bench: StorageBench, monkeypatch: pytest.MonkeyPatch) -> StorageBench:
    """The bench without faults, and an environment that leads to it with the account's key."""
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
    """The real client for a look behind the scenes: it passes neither proxy nor faults."""
    with BlobServiceClient(storage.local_url, credential=storage.key) as client:
        yield client


@pytest.fixture
def container(client: BlobServiceClient) -> Iterator[str]:
    """The name of a new container, deleted afterwards."""
    name = f"c{uuid.uuid4().hex}"
    client.create_container(name)
    yield name
    client.delete_container(name)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that any library has to say."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    loggers = [logging.getLogger(name) for name in ("", "azure", "msal", "urllib3", "cifarml")]
    levels = [logger.level for logger in loggers]
    loggers[0].addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield text
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    loggers[0].removeHandler(handler)


@pytest.fixture
def no_secret_shows(
    storage: StorageBench,
    log: io.StringIO,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """Look for secrets in all that was logged or printed."""
    monkeypatch.setenv("CIFARML_DEBUG", "1")
    yield
    shown = log.getvalue() + "".join(capfd.readouterr())
    for secret in storage.secrets():
        assert secret not in shown, f"a secret of {len(secret)} characters was shown"
