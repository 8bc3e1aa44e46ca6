"""Fault injection for transfers: correct content, or a clear error and a resumable transfer.

By default, every third case of a list runs; the others run with
``pytest -m exhaustive tests/data/blob/test_faults.py``.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import secrets
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from azure.storage.blob import BlobServiceClient

from cifarml.cli.main import main
from cifarml.data.blob.store import BlobStore
from cifarml.errors import CifarMLError, CloudError, DataError
from tests.emulators.fault_proxy import (
    CutRequest,
    CutResponse,
    Fault,
    Flip,
    FlipRequest,
    LoseReply,
    Plan,
    Request,
    Stall,
    Status,
    Truncate,
)
from tests.emulators.storage_bench import Mode, StorageBench
from tests.image_files import flat, write_folder
from tests.processes import forking_context

pytestmark = pytest.mark.usefixtures("no_secrets_in_output")

PART = 4 * 2**20  # of a download
LARGE = 2 * PART + 1_000_123  # three parts when downloaded, two blocks when uploaded
SMALL = 5_000
SIZES = {"large": LARGE, "small": SMALL}
TIMEOUT_S = 1.0


class Stored(NamedTuple):
    """Container with two blobs, and their contents."""

    container: str
    contents: dict[str, bytes]


@pytest.fixture(scope="module")
def stored(bench: StorageBench) -> Iterator[Stored]:
    contents = {name: secrets.token_bytes(size) for name, size in SIZES.items()}
    name = f"c{uuid.uuid4().hex}"
    with BlobServiceClient(
        bench.local_url, credential=bench.key, connection_verify=str(bench.ca_path)
    ) as client:
        container = client.create_container(name)
        for blob, content in contents.items():
            metadata = {"sha256": hashlib.sha256(content).hexdigest()}
            container.upload_blob(blob, content, metadata=metadata)
        yield Stored(name, contents)
        container.delete_container()


def store_at(container: str) -> BlobStore:
    return BlobStore(f"az://{container}", timeout_s=TIMEOUT_S, retry_wait_s=0.01)


def at(number: int, fault: Fault) -> Plan:
    """Inject a fault into the request with this number."""
    return lambda request: fault if request.number == number else None


def on_get(fault: Fault) -> Plan:
    """Inject a fault into every GET request."""
    return lambda request: fault if request.method == "GET" else None


def check_error(error: CifarMLError) -> None:
    """Assert that an error has a hint; log its traceback, which is searched for secrets."""
    logging.getLogger("tests").error("refused", exc_info=error)
    assert error.hint


def sample(cases: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Mark all but every third case as exhaustive; three is odd, so that all kinds of faults are included."""
    rest = pytest.mark.exhaustive
    return [case if not number % 3 else pytest.param(*case, marks=rest) for number, case in enumerate(cases)]


def spread(count: int, size: int) -> list[int]:
    """Return ``count`` positions spread over ``size`` bytes, including the first and last."""
    return sorted({0, 1, size - 1, *(round(size * i / (count - 1)) for i in range(1, count - 1))})


STATUSES: list[Fault] = [
    Status(503, "ServerBusy"),
    Status(500, "InternalError"),
    Status(429, "TooManyRequests"),
    Status(403, "AuthorizationFailure"),
    Status(412, "ConditionNotMet"),
]
DOWNLOADS: list[tuple[str, Fault, int]] = [
    *(("large", CutResponse(k), n) for n, count in ((2, 14), (3, 14)) for k in spread(count, PART)),
    *(("large", CutResponse(k), 4) for k in spread(8, LARGE - 2 * PART)),
    *(("small", CutResponse(k), 2) for k in spread(20, SMALL)),
    *(("large", Truncate(k), n) for n in (2, 3, 4) for k in (1, 1000, 900_000)),
    *(("small", Truncate(k), 2) for k in (1, 1000, SMALL)),
    *(("large", Flip(k), n) for n in (2, 3, 4) for k in (0, 100_000, 900_000)),
    *(("small", Flip(k), 2) for k in (0, 2_500, SMALL - 1)),
    *(("large", fault, n) for n in (1, 2, 3, 4) for fault in STATUSES),
    *(("small", fault, n) for n in (1, 2) for fault in STATUSES),
    *(("large", LoseReply(), n) for n in (1, 2, 3, 4)),
    *(("large", Stall(60), n) for n in (1, 3)),
    ("small", Stall(60), 2),
    ("small", Status(503, "ServerBusy", {"Retry-After": "1"}), 2),
]


@pytest.mark.parametrize(("name", "fault", "number"), sample(DOWNLOADS), ids=str)
def test_download_with_a_fault(
    storage: StorageBench, stored: Stored, tmp_path: Path, name: str, fault: Fault, number: int
) -> None:
    target = tmp_path / "target"
    storage.route(faulty=True)
    storage.faults.reset(at(number, fault))
    with store_at(stored.container) as store:
        try:
            store.download([(name, target)])
        except CloudError as error:
            check_error(error)
            assert not target.exists()
            storage.faults.reset()
            store.download([(name, target)])
    assert target.read_bytes() == stored.contents[name]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


UPLOADS: list[tuple[str, Fault, int]] = [
    *(("small", CutRequest(k), 2) for k in spread(20, SMALL)),
    *(("large", CutRequest(k), n) for n in (3, 4) for k in spread(8, 1_000_000)),
    *(("large", CutRequest(k), 5) for k in (0, 1, 100)),
    *(
        (name, FlipRequest(k), n)
        for name, n in (("small", 2), ("large", 3), ("large", 4))
        for k in (0, 2_500)
    ),
    *(("small", fault, n) for n in (1, 2) for fault in (*STATUSES, LoseReply())),
    *(("large", fault, n) for n in (1, 2, 3, 4, 5) for fault in (*STATUSES, LoseReply())),
    *(("small", Stall(60), n) for n in (1, 2)),
    *(("large", Stall(60), n) for n in (2, 3, 5)),
]


@pytest.mark.parametrize(("name", "fault", "number"), sample(UPLOADS), ids=str)
def test_upload_with_a_fault(
    storage: StorageBench,
    client: BlobServiceClient,
    stored: Stored,
    tmp_path: Path,
    name: str,
    fault: Fault,
    number: int,
) -> None:
    path = tmp_path / name
    path.write_bytes(stored.contents[name])
    blob = client.get_blob_client(stored.container, uuid.uuid4().hex)
    storage.route(faulty=True)
    storage.faults.reset(at(number, fault))
    with store_at(stored.container) as store:
        try:
            store.upload({blob.blob_name: path})
        except (CloudError, DataError) as error:
            check_error(error)
            storage.faults.reset()
            store.upload({blob.blob_name: path})
    content = stored.contents[name]
    assert blob.download_blob(max_concurrency=1).readall() == content
    assert blob.get_blob_properties().metadata == {"sha256": hashlib.sha256(content).hexdigest()}


ALWAYS: list[Fault] = [
    *STATUSES,
    Status(503, "ServerBusy", {"Retry-After": "0"}),
    CutResponse(0),
    Truncate(1),
    Flip(1000),
    LoseReply(),
]


@pytest.mark.parametrize(("name", "fault"), sample(list(itertools.product(SIZES, ALWAYS))), ids=str)
def test_download_with_permanent_faults(
    storage: StorageBench, stored: Stored, tmp_path: Path, name: str, fault: Fault
) -> None:
    storage.route(faulty=True)
    storage.faults.reset(on_get(fault))
    with store_at(stored.container) as store:
        with pytest.raises(CloudError) as caught:
            store.download([(name, tmp_path / "target")])
        check_error(caught.value)
        assert not (tmp_path / "target").exists()
        storage.faults.reset()
        store.download([(name, tmp_path / "target")])
    assert (tmp_path / "target").read_bytes() == stored.contents[name]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


FOLDER: list[Fault] = [*STATUSES, CutResponse(10), Truncate(10), Flip(10), LoseReply(), Stall(60)]


@pytest.mark.parametrize(("number", "fault"), sample(list(itertools.product([2, 5, 11], FOLDER))), ids=str)
def test_folder_transfer_with_a_fault(
    storage: StorageBench, container: str, tmp_path: Path, number: int, fault: Fault
) -> None:
    files = flat(6)
    folder = write_folder(tmp_path / "mine", files)
    storage.route(faulty=True)
    with store_at(container) as store:
        for work in (
            lambda: store.upload({name: folder / name for name in files}),
            lambda: store.download([(name, tmp_path / "back" / name) for name in files]),
        ):
            storage.faults.reset(at(number, fault))
            try:
                work()
            except (CloudError, DataError) as error:
                check_error(error)
                storage.faults.reset()
                work()
    assert {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()} == files


@pytest.mark.parametrize("debug", ["0", "1"])
@pytest.mark.parametrize("mode", ["key", "sas", "oauth", "connection-string"])
def test_command_line_shows_no_secrets(
    storage: StorageBench, stored: Stored, monkeypatch: pytest.MonkeyPatch, mode: Mode, debug: str
) -> None:
    """Not even if the service's error message contains them."""
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    for name, value in storage.env(mode).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CIFARML_DEBUG", debug)
    message = " ".join(storage.secrets())
    for fault in (
        Status(403, "AuthenticationFailed", message=message),
        Status(400, "Odd", message=message),
        Flip(9),
    ):
        storage.route(faulty=True)
        storage.faults.reset(on_get(fault))
        for command in (
            ["data", "list", f"az://{stored.container}"],
            ["data", "show", f"az://{stored.container}/small"],
        ):
            monkeypatch.setattr("sys.argv", ["cifarml", "--verbose", *command])
            with pytest.raises((SystemExit, CloudError)) as caught:
                main()
            logging.getLogger("tests").error("ended", exc_info=caught.value)


def test_download_resumes_after_an_error(storage: StorageBench, stored: Stored, tmp_path: Path) -> None:
    storage.route(faulty=True)
    third = f"bytes={2 * PART}"
    storage.faults.reset(lambda r: Status(403, "AuthorizationFailure") if third in str(r.headers) else None)
    with store_at(stored.container) as store:
        with pytest.raises(CloudError, match="firewall"):
            store.download([("large", tmp_path / "target")])
        (partial,) = tmp_path.glob("target.*.partial")
        assert partial.read_bytes() == stored.contents["large"][: 2 * PART]
        storage.faults.reset()
        store.download([("large", tmp_path / "target")])
    assert [request.method for request in storage.faults.requests] == ["HEAD", "GET"]
    assert (tmp_path / "target").read_bytes() == stored.contents["large"]


def test_blob_changed_during_download(storage: StorageBench, container: str, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for path in (old, new):
        path.write_bytes(secrets.token_bytes(LARGE))
    changed = threading.Event()

    def plan(request: Request) -> Fault | None:
        if request.method == "GET" and not changed.is_set():
            changed.set()
            with BlobStore(f"{storage.url}/{container}?{storage.sas}") as other:
                other.upload({"x": new}, overwrite=True)
        return None

    with store_at(container) as store:
        store.upload({"x": old})
    storage.route(faulty=True)
    storage.faults.reset(lambda request: plan(request) if "bytes=0" in str(request.headers) else None)
    with store_at(container) as store:
        store.download([("x", tmp_path / "target")])
    assert changed.is_set()
    assert (tmp_path / "target").read_bytes() == new.read_bytes()


# --- killed and concurrent processes ---


def download(env: dict[str, str], container: str, name: str, target: Path) -> None:
    os.environ.update(env)
    with store_at(container) as store:
        store.download([(name, target)])


def upload(env: dict[str, str], container: str, name: str, path: Path, overwrite: bool) -> None:
    os.environ.update(env)
    with store_at(container) as store:
        try:
            store.upload({name: path}, overwrite=overwrite)
        except DataError as error:
            raise SystemExit(3 if "different content" in error.message else 1) from None


Start = Callable[..., BaseProcess]


@pytest.fixture
def start(storage: StorageBench, own_cache: Path) -> Iterator[Start]:
    """Start a function in a process forked from one that has imported everything, which is fast."""
    context = forking_context()
    env = storage.env("key") | {"CIFARML_CACHE_DIR": str(own_cache)}
    started: list[BaseProcess] = []

    def start(work: Callable[..., None], *arguments: object) -> BaseProcess:
        process = context.Process(target=work, args=(env, *arguments))
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


class KillAt:
    """Kill a process during its request with this number."""

    def __init__(self, number: int, fault: Fault | None = None) -> None:
        self.number, self.fault = number, fault
        self.process: BaseProcess | None = None
        self.known = threading.Event()

    def __call__(self, request: Request) -> Fault | None:
        if request.number != self.number:
            return None
        assert self.known.wait(30)
        assert self.process
        assert self.process.pid
        os.kill(self.process.pid, signal.SIGKILL)
        return self.fault

    def __enter__(self) -> KillAt:
        return self

    def aim(self, process: BaseProcess) -> None:
        self.process = process
        self.known.set()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL

    def __exit__(self, *_: object) -> None:
        self.known.set()


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_killed_download_resumes(
    storage: StorageBench, stored: Stored, tmp_path: Path, start: Start, number: int, name: str
) -> None:
    if name == "small" and number > 2:
        name, fault = "large", Stall(0.05)  # killed while other parts are written
    else:
        fault = None
    target = tmp_path / "target"
    storage.route(faulty=True)
    with KillAt(number, fault) as kill:
        storage.faults.reset(kill)
        kill.aim(start(download, stored.container, name, target))
    assert not target.exists()
    arrived = sum(path.stat().st_size for path in tmp_path.iterdir())
    storage.faults.reset()
    with store_at(stored.container) as store:
        store.download([(name, target)])
    assert target.read_bytes() == stored.contents[name]
    ranges = [request for request in storage.faults.requests if request.method == "GET"]
    assert len(ranges) == -(-(SIZES[name] - arrived) // PART)  # no part is downloaded twice
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_killed_upload_resumes(
    storage: StorageBench,
    client: BlobServiceClient,
    stored: Stored,
    tmp_path: Path,
    start: Start,
    number: int,
    name: str,
) -> None:
    fault = None
    if name == "small" and number > 2:
        name, fault = "large", CutRequest(100)  # killed before the service received the request
    path = tmp_path / name
    path.write_bytes(stored.contents[name])
    blob = client.get_blob_client(stored.container, uuid.uuid4().hex)
    storage.route(faulty=True)
    with KillAt(number, fault) as kill:
        storage.faults.reset(kill)
        kill.aim(start(upload, stored.container, blob.blob_name, path, False))
    existed = blob.exists()
    storage.faults.reset()
    with store_at(stored.container) as store:
        done = store.upload({blob.blob_name: path})
    assert done.sent_bytes + done.saved_bytes == SIZES[name]
    assert not (existed and done.num_sent)
    assert blob.download_blob(max_concurrency=1).readall() == stored.contents[name]
    committed, uncommitted = blob.get_block_list("all")
    assert not uncommitted
    assert sum(block.size for block in committed) in {0, SIZES[name]}  # 0: uploaded in one request


def test_repeatedly_killed_download_makes_progress(
    storage: StorageBench, stored: Stored, tmp_path: Path, start: Start
) -> None:
    """Each attempt completes at least one more part."""
    target = tmp_path / "target"
    storage.route(faulty=True)
    for number in (2, 3, 3):
        with KillAt(number, Stall(0.2)) as kill:
            storage.faults.reset(kill)
            kill.aim(start(download, stored.container, "large", target))
        assert not target.exists()
        assert len(list(tmp_path.iterdir())) <= 1
    storage.faults.reset()
    with store_at(stored.container) as store:
        store.download([("large", target)])
    assert target.read_bytes() == stored.contents["large"]


@pytest.mark.parametrize("name", SIZES)
def test_two_processes_download_to_one_file(
    storage: StorageBench, stored: Stored, tmp_path: Path, start: Start, name: str
) -> None:
    target = tmp_path / "target"
    storage.route(faulty=True)
    storage.faults.reset()
    processes = [start(download, stored.container, name, target) for _ in range(2)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert target.read_bytes() == stored.contents[name]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    if name == "large":
        ranges = [request for request in storage.faults.requests if request.method == "GET"]
        assert len(ranges) == 3  # one process downloads, the other waits


@pytest.mark.parametrize("size", SIZES.values())
@pytest.mark.parametrize("overwrite", [False, True])
def test_two_processes_upload_to_one_blob(
    storage: StorageBench,
    client: BlobServiceClient,
    container: str,
    tmp_path: Path,
    start: Start,
    size: int,
    overwrite: bool,
) -> None:
    """Both check before either writes: one succeeds, the other reports different content."""
    blob = client.get_blob_client(container, "x")
    if overwrite:
        blob.upload_blob(b"old")
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(secrets.token_bytes(size))
    both = threading.Barrier(2)

    def plan(request: Request) -> Fault | None:
        if request.number <= 2:
            both.wait(30)
        return None

    storage.route(faulty=True)
    storage.faults.reset(plan)
    processes = [start(upload, container, "x", path, overwrite) for path in paths]
    for process in processes:
        process.join(60)
    assert sorted(process.exitcode or 0 for process in processes) == [0, 3]
    winner = next(path for path, process in zip(paths, processes, strict=True) if process.exitcode == 0)
    assert blob.download_blob(max_concurrency=1).readall() == winner.read_bytes()
