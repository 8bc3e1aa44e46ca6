"""Pictures in Azure Blob Storage: the real SDK, the real Azurite, and a line with faults."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from azure.storage.blob import BlobServiceClient

from cifarml import load_dataset
from cifarml.data.address import BlobAddress
from cifarml.data.blob import BlobStore, check_rights, download_path, upload_path
from cifarml.errors import CloudError, DataError, SettingsError
from cifarml.settings import load_settings
from tests.azure.bench import Mode, StorageBench
from tests.azure.faults import (
    CutRequest,
    CutResponse,
    Fault,
    Flip,
    FlipRequest,
    LoseReply,
    Request,
    Status,
    Truncate,
)
from tests.conftest import CommandLine
from tests.pictures import flat, write_folder, write_zip

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
def test_every_way_to_sign_in(
    storage: StorageBench, container: str, tmp_path: Path, cifarml: CommandLine, mode: Mode
) -> None:
    path = write_zip(tmp_path / "pictures.zip", flat(10))
    env = storage.env(mode) if mode == "key" else {"AZURE_STORAGE_KEY": ""} | storage.env(mode)
    address = f"az://{container}/pictures.zip"
    sent = cifarml("--verbose", "data", "upload", path, address, env=env)
    assert sent.returncode == 0, sent.stderr
    assert "signing in with" in sent.stderr
    shown = cifarml("data", "show", address, env=env)
    assert "20 pictures, 2 classes" in shown.stdout
    listed = cifarml("data", "list", f"az://{container}", "--json", env=env)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in listed.stdout
    output = "".join(done.stdout + done.stderr for done in (sent, shown, listed))
    assert not [secret for secret in storage.secrets() if secret in output]


def test_a_folder_there_and_back(storage: StorageBench, container: str, tmp_path: Path) -> None:
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
    with pytest.raises(DataError, match="other content"):
        download_path(str(address), tmp_path / "back")
    download_path(str(address), tmp_path / "back", overwrite=True)
    assert (tmp_path / "back" / "cat_1.png").read_bytes() == files["cat_1.png"]


@pytest.mark.parametrize("as_folder", [True, False])
def test_the_second_training_only_asks_whether_it_has_changed(
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


def test_other_content_is_not_replaced_unseen(storage: StorageBench, container: str, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    for size in (100, LARGE):
        path.write_bytes(secrets.token_bytes(size))
        upload_path(path, f"az://{container}/{size}")
        path.write_bytes(secrets.token_bytes(size))
        with pytest.raises(DataError, match="other content"):
            upload_path(path, f"az://{container}/{size}")
        upload_path(path, f"az://{container}/{size}", overwrite=True)
        download_path(f"az://{container}/{size}", tmp_path / f"back{size}")
        assert (tmp_path / f"back{size}").read_bytes() == path.read_bytes()


FAULTS = [
    *(CutResponse(after) for after in (0, 1, 1000, 2**20, 4 * 2**20 - 1)),
    Truncate(1),
    Truncate(1000),
    Flip(0),
    Flip(100_000),
    *(
        Status(code, name)
        for code, name in ((503, "ServerBusy"), (500, "InternalError"), (429, "TooManyRequests"))
    ),
    Status(503, "ServerBusy", {"Retry-After": "1"}),
    Status(403, "AuthorizationFailure"),
    Status(412, "ConditionNotMet"),
]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_download_over_a_bad_line(
    storage: StorageBench, store: BlobStore, large: Path, tmp_path: Path, fault: Fault, number: int
) -> None:
    store.upload({"x": large})
    target = tmp_path / "target"
    storage.route(faulty=True)
    storage.faults.reset(lambda request: fault if request.number == number else None)
    with BlobStore(store.address, timeout_s=5, retry_wait_s=0.01) as bad:
        hinted = True
        try:
            bad.download([("x", target)])
        except CloudError as error:
            hinted = bool(error.hint)
            assert not target.exists()
            storage.faults.reset()
            bad.download([("x", target)])
    assert hinted
    assert target.read_bytes() == large.read_bytes()
    assert not list(tmp_path.glob("*.partial"))


UPLOAD_FAULTS = [
    *(CutRequest(after) for after in (0, 1, 1000, 2**20)),
    FlipRequest(0),
    FlipRequest(100_000),
    LoseReply(),
    *(
        Status(code, name)
        for code, name in ((503, "ServerBusy"), (500, "InternalError"), (429, "TooManyRequests"))
    ),
    Status(403, "AuthorizationPermissionMismatch"),
    Status(412, "ConditionNotMet"),
]


@pytest.mark.parametrize("size", [5_000, LARGE])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("fault", UPLOAD_FAULTS, ids=repr)
def test_upload_over_a_bad_line(
    storage: StorageBench,
    client: BlobServiceClient,
    container: str,
    tmp_path: Path,
    fault: Fault,
    number: int,
    size: int,
) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(secrets.token_bytes(size))
    storage.route(faulty=True)
    storage.faults.reset(lambda request: fault if request.number == number else None)
    with BlobStore(f"az://{container}", timeout_s=5, retry_wait_s=0.01) as bad:
        hinted = True
        try:
            bad.upload({"x": path})
        except (CloudError, DataError) as error:
            hinted = bool(error.hint)
            storage.faults.reset()
            bad.upload({"x": path})
    assert hinted
    blob = client.get_blob_client(container, "x").download_blob()
    assert blob.readall() == path.read_bytes()
    assert blob.properties.metadata == {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_what_arrived_is_kept(storage: StorageBench, store: BlobStore, large: Path, tmp_path: Path) -> None:
    store.upload({"x": large})
    storage.route(faulty=True)
    storage.faults.reset(
        lambda r: Status(403, "AuthorizationFailure") if "bytes=8388608" in str(r.headers) else None
    )
    with BlobStore(store.address, timeout_s=5, retry_wait_s=0.01) as bad:
        with pytest.raises(CloudError, match="firewall"):
            bad.download([("x", tmp_path / "target")])
        (partial,) = tmp_path.glob("target.*.partial")
        assert partial.read_bytes() == large.read_bytes()[: 8 * 2**20]
        storage.faults.reset()
        bad.download([("x", tmp_path / "target")])
    ranges = [request for request in storage.faults.requests if request.method == "GET"]
    assert len(ranges) == 1
    assert (tmp_path / "target").read_bytes() == large.read_bytes()


def test_a_blob_that_changes_meanwhile(
    storage: StorageBench, store: BlobStore, large: Path, tmp_path: Path
) -> None:
    store.upload({"x": large})
    new = secrets.token_bytes(LARGE)
    changed: list[bool] = []

    def plan(request: Request) -> Fault | None:
        if request.method == "GET" and not changed:
            changed.append(True)
            other = tmp_path / "other"
            other.write_bytes(new)
            store.upload({"x": other}, overwrite=True)
        return None

    storage.route(faulty=True)
    with BlobStore(store.address, timeout_s=5, retry_wait_s=0.01) as reader:
        storage.faults.reset(plan)
        reader.download([("x", tmp_path / "target")])
    assert changed
    assert (tmp_path / "target").read_bytes() == new


@pytest.mark.parametrize(
    ("code", "error_code", "words", "hint"),
    [
        (403, "AuthorizationPermissionMismatch", "no right", "Storage Blob Data Contributor"),
        (403, "AuthorizationFailure", "firewall", "network-rule"),
        (404, "ContainerNotFound", "no container", "container list"),
        (409, "ContainerBeingDeleted", "being deleted", "restore"),
        (403, "KeyBasedAuthenticationNotPermitted", "takes no keys", "az login"),
        (503, "ServerBusy", "throttled", "try again"),
    ],
)
def test_what_azure_says_is_translated(
    storage: StorageBench, store: BlobStore, code: int, error_code: str, words: str, hint: str
) -> None:
    storage.route(faulty=True)
    storage.faults.reset(lambda _: Status(code, error_code))
    with (
        BlobStore(store.address, timeout_s=5, retry_wait_s=0.01) as bad,
        pytest.raises(CloudError, match=words) as caught,
    ):
        bad.list_blobs()
    assert hint in str(caught.value.hint)
    assert caught.value.code == error_code
    assert caught.value.request_id


def test_wrong_key_and_expired_sas(
    storage: StorageBench, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_KEY", "d3Jvbmcga2V5" * 7)
    with pytest.raises(CloudError, match="AZURE_STORAGE_KEY is not the account's"):
        BlobStore(f"az://{container}").list_blobs()
    monkeypatch.setenv("AZURE_STORAGE_KEY", "not base64!")
    with pytest.raises(SettingsError, match="base64"):
        BlobStore(f"az://{container}")
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT")
    with pytest.raises(SettingsError, match="no storage account"):
        BlobStore(f"az://{container}")


def test_rights(storage: StorageBench, container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFARML_STORAGE_CONTAINER", container)
    assert dict(check_rights(load_settings())) == dict.fromkeys(("list", "write", "read", "delete"))


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
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(DataError) as caught:
        BlobAddress.parse(text)
    assert "SECRET" not in caught.value.message


def test_addresses() -> None:
    address = BlobAddress.parse("https://account.blob.core.windows.net/pics/a%20b/c.zip?sv=1&sig=SECRET")
    assert (address.account_url, address.container, address.name) == (
        "https://account.blob.core.windows.net",
        "pics",
        "a b/c.zip",
    )
    assert "SECRET" not in f"{address} {address!r}"
    assert str(address) == "https://account.blob.core.windows.net/pics/a%20b/c.zip"
    assert BlobAddress.parse("az://pics/x/").name == "x/"


def test_real_pictures(storage: StorageBench, container: str, tmp_path: Path, cifarml: CommandLine) -> None:
    """The article's steps 4a, 4c and 4d: upload, look, train, from storage."""
    folder = os.environ.get("CIFARML_TEST_DATA")
    path = Path(folder, "2000pics_cifar10.zip") if folder else write_zip(tmp_path / "p.zip", flat(40))
    address = f"az://{container}/pictures.zip"
    assert cifarml("data", "upload", path, address).returncode == 0
    assert "pictures" in cifarml("data", "show", address, "-o", "grid.png").stdout
    assert (tmp_path / "grid.png").stat().st_size > 10_000
    trained = cifarml("train", "--data", address, "--epochs", 1, "--name", "r")
    assert trained.returncode == 0, trained.stderr
    assert (
        address
        in (tmp_path / "runs" / "r" / "manifest.json").read_text()
        + (tmp_path / "runs" / "r" / "config.json").read_text()
    )
