"""Azure Blob Storage with the real SDK, against Azurite and a fault-injecting proxy."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from azure.storage.blob import BlobServiceClient

from cifarml import load_dataset
from cifarml.data.blob.address import BlobAddress
from cifarml.data.blob.permissions import check_permissions
from cifarml.data.blob.store import BlobStore
from cifarml.data.blob.transfer import download_path, upload_path
from cifarml.errors import CloudError, DataError, SettingsError
from cifarml.settings import load_settings
from tests.conftest import CommandLine
from tests.emulators.fault_proxy import Status
from tests.emulators.storage_bench import Mode, StorageBench
from tests.image_files import flat, write_folder, write_zip

pytestmark = pytest.mark.usefixtures("no_secrets_in_output")

LARGE = 9 * 2**20 + 123


@pytest.fixture
def store(storage: StorageBench, container: str) -> Iterator[BlobStore]:
    with BlobStore(f"az://{container}", timeout_s=5, retry_wait_s=0.01) as store:
        yield store


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.bin"
    path.write_bytes(secrets.token_bytes(LARGE))
    return path


@pytest.mark.parametrize("mode", ["key", "sas", "oauth", "connection-string"])
def test_authentication_methods(
    storage: StorageBench, container: str, tmp_path: Path, cifarml: CommandLine, mode: Mode
) -> None:
    path = write_zip(tmp_path / "images.zip", flat(10))
    env = storage.env(mode) if mode == "key" else {"AZURE_STORAGE_KEY": ""} | storage.env(mode)
    address = f"az://{container}/images.zip"
    sent = cifarml("--verbose", "data", "upload", path, address, env=env)
    assert sent.returncode == 0, sent.stderr
    assert "signing in with" in sent.stderr
    shown = cifarml("data", "show", address, env=env)
    assert "20 images, 2 classes" in shown.stdout
    listed = cifarml("data", "list", f"az://{container}", "--json", env=env)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in listed.stdout
    output = "".join(done.stdout + done.stderr for done in (sent, shown, listed))
    assert not [secret for secret in storage.secrets() if secret in output]


def test_log_of_all_libraries_is_captured(store: BlobStore, log: io.StringIO) -> None:
    store.find("x")
    store.list_blobs()
    assert "Request method: 'HEAD'" in log.getvalue()  # azure-core
    assert "Starting new HTTPS connection" in log.getvalue()  # urllib3
    assert "signing in with AZURE_STORAGE_KEY" in log.getvalue()  # cifarml


def test_folder_upload_download_round_trip(storage: StorageBench, container: str, tmp_path: Path) -> None:
    files = flat(15)
    folder = write_folder(tmp_path / "mine", files)
    (folder / ".hidden").write_bytes(b"not this one")
    address, done = upload_path(folder, f"az://{container}")
    assert str(address) == f"az://{container}/mine"
    assert done.num_sent == len(done.names) == 30
    assert upload_path(folder, f"az://{container}")[1].num_sent == 0
    back = download_path(str(address), tmp_path / "back")
    assert {path.name: path.read_bytes() for path in back.paths} == files
    assert download_path(str(address), tmp_path / "back").fetched_bytes == 0
    (tmp_path / "back" / "cat_1.png").write_bytes(b"mine")
    with pytest.raises(DataError, match="different content"):
        download_path(str(address), tmp_path / "back")
    download_path(str(address), tmp_path / "back", overwrite=True)
    assert (tmp_path / "back" / "cat_1.png").read_bytes() == files["cat_1.png"]


@pytest.mark.parametrize("as_folder", [True, False])
def test_second_load_uses_the_cache(
    storage: StorageBench, container: str, tmp_path: Path, as_folder: bool
) -> None:
    path = write_folder(tmp_path / "x", flat(12)) if as_folder else write_zip(tmp_path / "x.zip", flat(12))
    address, _ = upload_path(path, f"az://{container}")
    first = load_dataset(str(address))
    storage.route(faulty=True)
    storage.faults.reset()
    again = load_dataset(str(address))
    assert storage.faults.requests
    assert again.fingerprint == first.fingerprint == load_dataset(path).fingerprint
    assert np.array_equal(again.images, first.images)
    assert again.origin == str(address)
    assert not [
        request
        for request in storage.faults.requests
        if request.method == "GET" and "comp" not in str(request.query)
    ]


def test_archive_in_use_by_another_process_is_not_evicted(
    storage: StorageBench, container: str, tmp_path: Path
) -> None:
    """Another process may have found the previous version in the cache, and is about to open it."""
    address = f"az://{container}/x.zip"
    folder = load_settings().cache_dir / "blobs"

    def load(number: int) -> set[Path]:
        upload_path(write_zip(tmp_path / "x.zip", flat(number)), address, overwrite=True)
        assert len(load_dataset(address)) == 2 * number
        return {path for path in folder.rglob("*-*") if path.is_file()}

    first = load(12)
    both = load(20)
    assert first < both
    old = time.time() - 7200
    for path in both:
        os.utime(path, (old, old))
    third = load(30)
    assert len(third) == 1
    assert not third & both


def test_different_content_requires_overwrite(storage: StorageBench, container: str, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    for size in (100, LARGE):
        path.write_bytes(secrets.token_bytes(size))
        upload_path(path, f"az://{container}/{size}")
        path.write_bytes(secrets.token_bytes(size))
        with pytest.raises(DataError, match="different content"):
            upload_path(path, f"az://{container}/{size}")
        upload_path(path, f"az://{container}/{size}", overwrite=True)
        download_path(f"az://{container}/{size}", tmp_path / f"back{size}")
        assert (tmp_path / f"back{size}").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("code", "error_code", "message", "hint"),
    [
        (403, "AuthorizationPermissionMismatch", "permission denied", "Storage Blob Data Contributor"),
        (403, "AuthorizationFailure", "firewall", "network-rule"),
        (404, "ContainerNotFound", "does not exist", "container list"),
        (409, "ContainerBeingDeleted", "being deleted", "restore"),
        (403, "KeyBasedAuthenticationNotPermitted", "does not allow key-based", "az login"),
        (503, "ServerBusy", "throttled", "try again"),
    ],
)
def test_service_errors_are_translated(
    storage: StorageBench, store: BlobStore, code: int, error_code: str, message: str, hint: str
) -> None:
    storage.route(faulty=True)
    storage.faults.reset(lambda _: Status(code, error_code))
    with (
        BlobStore(store.address, timeout_s=5, retry_wait_s=0.01) as bad,
        pytest.raises(CloudError, match=message) as caught,
    ):
        bad.list_blobs()
    assert hint in str(caught.value.hint)
    assert caught.value.code == error_code
    assert caught.value.request_id


@pytest.mark.parametrize(
    ("mode", "service_message", "message", "hint"),
    [
        (
            "key",
            "The MAC signature found in the HTTP request 'x' is not the same",
            "does not match the account",
            "az",
        ),
        ("key", "Request date header too old: 'Mon, 02 Nov 2026'", "clock is wrong", "timedatectl"),
        (
            "sas",
            "Signature not valid in the specified time frame: Start [x] - Expiry [y] - Current [z]",
            "has expired",
            "generate-sas",
        ),
        ("sas", "Signature did not match. String to sign used was x", "not valid for this account", "sas"),
    ],
)
def test_authentication_errors_are_translated(
    storage: StorageBench,
    monkeypatch: pytest.MonkeyPatch,
    mode: Mode,
    service_message: str,
    message: str,
    hint: str,
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    for name, value in storage.env(mode).items():
        monkeypatch.setenv(name, value)
    storage.route(faulty=True)
    response = Status(
        403, "AuthenticationFailed", message=f"Server failed to authenticate.\n{service_message}"
    )
    storage.faults.reset(lambda _: response)
    with pytest.raises(CloudError, match=message) as caught:
        BlobStore("az://images").list_blobs()
    assert hint in str(caught.value.hint)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.message, again.hint, again.code, again.request_id) == (
        caught.value.message,
        caught.value.hint,
        "AuthenticationFailed",
        caught.value.request_id,
    )


def test_unknown_storage_account(storage: StorageBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the proxy, the host name is resolved by this machine, which fails."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "nosuchaccount")
    with (
        BlobStore("az://images", retry_wait_s=0.01) as store,
        pytest.raises(CloudError, match=r"can't be resolved"),
    ):
        store.list_blobs()


def test_list_blobs_equals_find(
    storage: StorageBench, store: BlobStore, client: BlobServiceClient, container: str, tmp_path: Path
) -> None:
    names = [f"a/{number:02}" for number in range(15)] + ["ü & <b>/c d+%41.png", "z"]
    path = tmp_path / "x"
    path.write_bytes(b"content")
    store.upload(dict.fromkeys(names, path))
    (client.get_blob_client(container, "raw")).upload_blob(b"other", metadata={"SHA256": "no hash"})
    listed = {blob.name: blob for blob in store.list_blobs()}
    assert list(listed) == sorted([*names, "raw"])
    for name, blob in listed.items():
        assert blob == store.find(name)
    assert listed["z"].sha256 == hashlib.sha256(b"content").hexdigest()
    assert listed["raw"].sha256 is None
    assert [blob.name for blob in store.list_blobs("a/1")] == names[10:15]


def test_invalid_key_or_missing_account(
    storage: StorageBench, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_KEY", "d3Jvbmcga2V5" * 7)
    with pytest.raises(CloudError, match="AZURE_STORAGE_KEY does not match the account"):
        BlobStore(f"az://{container}").list_blobs()
    monkeypatch.setenv("AZURE_STORAGE_KEY", "not base64!")
    with pytest.raises(SettingsError, match="base64"):
        BlobStore(f"az://{container}")
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT")
    with pytest.raises(SettingsError, match="no storage account"):
        BlobStore(f"az://{container}")


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://x.blob.core.windows.net.example.com",
        "https://example.com/x.blob.core.windows.net",
        "https://169.254.169.254",
    ],
)
def test_credentials_are_not_sent_to_other_hosts(
    storage: StorageBench, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", url)
    for name, value in storage.env("sas").items():
        if name != "AZURE_STORAGE_ACCOUNT":
            monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="not a host of Azure Blob Storage"):
        BlobStore("az://images")
    assert not storage.proxy.refused


def test_check_permissions(storage: StorageBench, container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFARML_STORAGE_CONTAINER", container)
    assert dict(check_permissions(load_settings())) == dict.fromkeys(("list", "write", "read", "delete"))


@pytest.mark.parametrize(
    "text",
    [
        "az://",
        "az://UPPER/x",
        "az://a--b/x",
        "az://good/x?sv=1&sig=SECRET",
        "http://account.blob.core.windows.net/c/x",
        "https://example.com/c/x?sig=SECRET",
        "https://account.blob.core.windows.net.evil.com/c/x?sig=SECRET",
        "https://user:SECRET@account.blob.core.windows.net/c/x",
        "https://account.blob.core.windows.net/container/x?versionId=1",
        "https://[::1/x",
        "az://good/" + "x" * 1025,
        "az://good/a\0b",
    ],
)
def test_invalid_addresses(text: str) -> None:
    with pytest.raises(DataError) as caught:
        BlobAddress.parse(text)
    assert "SECRET" not in caught.value.message


def test_parse_addresses() -> None:
    address = BlobAddress.parse("https://account.blob.core.windows.net/pics/a%20b/c.zip?sv=1&sig=SECRET")
    assert (address.account_url, address.container, address.name) == (
        "https://account.blob.core.windows.net",
        "pics",
        "a b/c.zip",
    )
    assert "SECRET" not in f"{address} {address!r}"
    assert str(address) == "https://account.blob.core.windows.net/pics/a%20b/c.zip"
    assert BlobAddress.parse("az://pics/x/").name == "x/"


def test_train_from_storage(
    storage: StorageBench, container: str, tmp_path: Path, cifarml: CommandLine
) -> None:
    """Steps 4a, 4c and 4d of the article from storage: upload, show, train."""
    folder = os.environ.get("CIFARML_TEST_DATA")
    path = Path(folder, "2000pics_cifar10.zip") if folder else write_zip(tmp_path / "p.zip", flat(40))
    address = f"az://{container}/images.zip"
    assert cifarml("data", "upload", path, address).returncode == 0
    assert "images" in cifarml("data", "show", address, "-o", "grid.png").stdout
    assert (tmp_path / "grid.png").stat().st_size > 10_000
    (tmp_path / "narrow.toml").write_text("widths = [8]")
    trained = cifarml("train", "--data", address, "--epochs", 1, "--name", "r", "--config", "narrow.toml")
    assert trained.returncode == 0, trained.stderr
    assert (
        address
        in (tmp_path / "runs" / "r" / "manifest.json").read_text()
        + (tmp_path / "runs" / "r" / "config.json").read_text()
    )


@pytest.mark.exhaustive
def test_quickstart_through_storage(
    storage: StorageBench, container: str, tmp_path: Path, cifarml: CommandLine
) -> None:
    done = cifarml("quickstart", "--epochs", 1, "--storage", f"az://{container}")
    assert done.returncode == 0, done.stderr
    assert f"az://{container}/2000pics.zip" in done.stdout
    assert "Deleted the endpoint" in done.stdout
    assert json.loads(cifarml("endpoint", "list", "--json").stdout) == []
    _, run = sorted((tmp_path / "quickstart" / "runs").iterdir())
    assert f"az://{container}/2000pics.zip" in (run / "manifest.json").read_text()
    assert (
        load_dataset(f"az://{container}/2000pics.zip").fingerprint == load_dataset("drawn:2000").fingerprint
    )
