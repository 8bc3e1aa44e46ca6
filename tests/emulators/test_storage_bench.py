"""Tests of the emulated storage account and its fault injection."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
)
from azure.identity import DefaultAzureCredential
from azure.storage.blob import BlobServiceClient

from tests.emulators.fault_proxy import (
    CutRequest,
    CutResponse,
    Fault,
    Flip,
    FlipRequest,
    LoseReply,
    Plan,
    Stall,
    Status,
    Truncate,
)
from tests.emulators.storage_bench import Mode, StorageBench
from tests.waiting import wait_until

CONTENT = bytes(range(256)) * 300


def once(fault: Fault) -> Plan:
    """Inject a fault into the first request only."""
    return lambda request: fault if request.number == 1 else None


@pytest.fixture
def faulty(storage: StorageBench, container: str) -> Iterator[Callable[[Fault], BlobServiceClient]]:
    """Factory of clients that never retry, and whose first request has the given fault."""
    clients = []

    def connect(fault: Fault) -> BlobServiceClient:
        storage.route(faulty=True)
        storage.faults.reset(once(fault))
        clients.append(BlobServiceClient(storage.url, credential=storage.key, retry_total=0))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.mark.parametrize("through_faults", [False, True])
@pytest.mark.parametrize("mode", ["key", "sas", "oauth", "connection-string"])
def test_authentication_methods(
    storage: StorageBench,
    container: str,
    monkeypatch: pytest.MonkeyPatch,
    mode: Mode,
    through_faults: bool,
) -> None:
    storage.route(through_faults)
    for name, value in storage.env(mode).items():
        monkeypatch.setenv(name, value)
    if mode == "connection-string":
        client = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])
    elif mode == "oauth":
        client = BlobServiceClient(storage.url, credential=DefaultAzureCredential())
    else:
        client = BlobServiceClient(storage.url, credential=storage.key if mode == "key" else storage.sas)
    with client, client.get_container_client(container) as blobs:
        blobs.upload_blob("a folder/ü.bin", CONTENT)
        blobs.upload_blob("empty", b"")
        assert [blob.name for blob in blobs.list_blobs()] == ["a folder/ü.bin", "empty"]
        assert blobs.download_blob("a folder/ü.bin").readall() == CONTENT
        assert blobs.download_blob("empty").readall() == b""
        assert not blobs.get_blob_client("missing").exists()
    assert bool(storage.faults.requests) == through_faults
    assert storage.proxy.refused == []


def test_wrong_credentials(storage: StorageBench, container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        BlobServiceClient(storage.url, credential="AAAA") as client,
        pytest.raises(ClientAuthenticationError, match="InvalidAuthenticationInfo"),
    ):
        client.get_container_client(container).get_container_properties()
    with (
        BlobServiceClient(storage.url, credential=storage.sas.replace("sig=", "sig=A")) as client,
        pytest.raises(HttpResponseError, match="AuthorizationFailure"),
    ):
        client.get_container_client(container).get_container_properties()
    for name, value in storage.env("oauth").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong")
    with (
        DefaultAzureCredential() as credential,
        pytest.raises(ClientAuthenticationError, match="AADSTS7000215"),
    ):
        credential.get_token("https://storage.azure.com/.default")


def test_secrets_are_listed(storage: StorageBench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in storage.env("oauth").items():
        monkeypatch.setenv(name, value)
    with DefaultAzureCredential() as credential:
        assert credential.get_token("https://storage.azure.com/.default").token in storage.secrets()
    variables: list[tuple[Mode, str]] = [
        ("key", "AZURE_STORAGE_KEY"),
        ("oauth", "AZURE_CLIENT_SECRET"),
        ("connection-string", "AZURE_STORAGE_CONNECTION_STRING"),
    ]
    for mode, name in variables:
        assert storage.env(mode)[name] in storage.secrets()
    assert any(f"sig={text}" in storage.env("sas")["AZURE_STORAGE_SAS_TOKEN"] for text in storage.secrets())


def test_other_hosts_are_refused(storage: StorageBench) -> None:
    for url in ("https://other.blob.core.windows.net/", "https://example.org/", "http://example.org/"):
        with pytest.raises(requests.RequestException):
            requests.get(url, timeout=5).raise_for_status()
    assert storage.proxy.refused == ["other.blob.core.windows.net", "example.org", "http://example.org/"]


def test_untrusted_certificate_is_refused(storage: StorageBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.delenv("SSL_CERT_FILE")
    for faulty in (False, True):
        storage.route(faulty)
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(storage.url, timeout=5)
        with (
            BlobServiceClient(storage.url, credential=storage.key, retry_total=0) as client,
            pytest.raises(ServiceRequestError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            client.get_account_information()


def test_injected_status(
    faulty: Callable[[Fault], BlobServiceClient],
    storage: StorageBench,
    container: str,
    client: BlobServiceClient,
) -> None:
    fault = Status(503, headers={"Retry-After": "7"})
    with pytest.raises(HttpResponseError) as raised:
        faulty(fault).get_blob_client(container, "blob").upload_blob(CONTENT)
    assert raised.value.status_code == 503
    assert raised.value.error_code == "ServerBusy"  # type: ignore[attr-defined]
    assert raised.value.response.headers["Retry-After"] == "7"  # type: ignore[union-attr]
    assert [(seen.number, seen.method, seen.status) for seen in storage.faults.requests] == [(1, "PUT", 503)]
    assert storage.faults.requests[0].path == f"/{container}/blob"
    assert not client.get_blob_client(container, "blob").exists()
    again = faulty(Status(404, "BlobNotFound"))
    assert not again.get_blob_client(container, "blob").exists()  # HEAD: no body
    again.get_blob_client(container, "blob").upload_blob(CONTENT)  # on the same connection
    assert client.get_blob_client(container, "blob").exists()


@pytest.mark.parametrize(
    ("fault", "stored"),
    [(CutRequest(70_000), False), (CutRequest(len(CONTENT)), False), (LoseReply(), True)],
)
def test_put_without_response(
    faulty: Callable[[Fault], BlobServiceClient],
    container: str,
    client: BlobServiceClient,
    fault: Fault,
    stored: bool,
) -> None:
    sender = faulty(fault)
    with pytest.raises(AzureError):
        sender.get_blob_client(container, "blob").upload_blob(CONTENT)
    assert client.get_blob_client(container, "blob").exists() == stored
    sender.get_blob_client(container, "blob").upload_blob(CONTENT, overwrite=True)


def test_corrupted_request(
    faulty: Callable[[Fault], BlobServiceClient], container: str, client: BlobServiceClient
) -> None:
    faulty(FlipRequest(70_000)).get_blob_client(container, "blob").upload_blob(CONTENT)
    stored = client.get_blob_client(container, "blob").download_blob().readall()
    assert [index for index in range(len(CONTENT)) if stored[index] != CONTENT[index]] == [70_000]
    with pytest.raises(HttpResponseError, match="Md5Mismatch"):
        faulty(FlipRequest(len(CONTENT) + 5)).get_blob_client(container, "md5").upload_blob(
            CONTENT, validate_content=True
        )


def get_raw(storage: StorageBench, container: str) -> requests.Response:
    return requests.get(f"{storage.url}/{container}/blob?{storage.sas}", timeout=5, stream=True)


def read_all(reply: requests.Response) -> tuple[bytes, Exception | None]:
    got = b""
    try:
        while block := reply.raw.read(1):
            got += block
    except Exception as error:  # noqa: BLE001 - returned to the caller
        return got, error
    return got, None


@pytest.mark.parametrize("count", [0, 1, 70_000])
@pytest.mark.parametrize("fault", [CutResponse, Truncate])
def test_short_response(
    storage: StorageBench,
    container: str,
    client: BlobServiceClient,
    fault: type[CutResponse] | type[Truncate],
    count: int,
) -> None:
    client.get_blob_client(container, "blob").upload_blob(CONTENT)
    storage.route(faulty=True)
    storage.faults.reset(once(fault(count)))
    wanted = count if fault is CutResponse else len(CONTENT) - count
    with get_raw(storage, container) as reply:
        assert reply.headers["Content-Length"] == str(len(CONTENT))
        got, error = read_all(reply)
    assert len(got) == wanted
    assert got == CONTENT[:wanted]
    # the exception for a reset differs between builds of Python and OpenSSL
    assert "IncompleteRead" in repr(error) or "ConnectionReset" in repr(error) or wanted == len(CONTENT)
    with get_raw(storage, container) as reply:
        assert read_all(reply) == (CONTENT, None)


def test_corrupted_response(
    faulty: Callable[[Fault], BlobServiceClient], container: str, client: BlobServiceClient
) -> None:
    client.get_blob_client(container, "blob").upload_blob(CONTENT)
    got = faulty(Flip(70_000)).get_blob_client(container, "blob").download_blob().readall()
    assert [index for index in range(len(CONTENT)) if got[index] != CONTENT[index]] == [70_000]
    listing = faulty(Flip(0)).get_container_client(container)
    with pytest.raises(AzureError):
        list(listing.list_blobs())


def test_stalled_response(storage: StorageBench, container: str, client: BlobServiceClient) -> None:
    client.get_blob_client(container, "blob").upload_blob(CONTENT)
    storage.route(faulty=True)
    storage.faults.reset(once(Stall(0.5)))
    with get_raw(storage, container) as reply:
        assert read_all(reply) == (CONTENT, None)
    storage.faults.reset(once(Stall(60)))
    address = f"{storage.url}/{container}/blob?{storage.sas}"
    with pytest.raises(requests.Timeout):
        requests.get(address, timeout=0.3)


def test_killed_session_leaves_no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    code = f"""
import os, pathlib
from tests.emulators.storage_bench import StorageBench
from tests.waiting import wait_until
print(StorageBench(pathlib.Path({str(tmp_path)!r})).port, flush=True)
os._exit(9)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 9

    def is_gone() -> bool:
        try:
            socket.create_connection(("127.0.0.1", int(done.stdout))).close()
        except ConnectionRefusedError:
            return True
        return False

    wait_until(is_gone)
