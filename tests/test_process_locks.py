"""Lock between processes, and partial files."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cifarml.errors import DeployError
from cifarml.locks import ProcessLock, own_partial

HOLD = """
import sys
from pathlib import Path
from cifarml.locks import ProcessLock
with ProcessLock(Path(sys.argv[1]), "endpoint live").held("deploy cifar10:2"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Process that holds the lock until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "x.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def finish(process: subprocess.Popen[str]) -> None:
    with process:
        process.communicate()


def test_waiting_names_the_operation_and_the_process(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    lines: list[str] = []

    def on_wait(line: str) -> None:
        lines.append(line)
        finish(holder)

    with ProcessLock(tmp_path / "x.lock", "endpoint live", on_wait=on_wait).held("delete"):
        (line,) = lines
    assert line.startswith("waiting for endpoint live, in use: deploy cifar10:2 (process ")
    assert f"process {holder.pid}, since " in line


def test_lock_of_a_killed_process_is_released(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    finish(holder)
    assert (tmp_path / "x.json").exists()
    lines: list[str] = []
    with ProcessLock(tmp_path / "x.lock", "endpoint live", on_wait=lines.append).held("delete"):
        assert json.loads((tmp_path / "x.json").read_bytes())["operation"] == "delete"
    assert lines == []
    assert not (tmp_path / "x.json").exists()


def test_lock_that_is_not_released_in_time(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    lock = ProcessLock(tmp_path / "x.lock", "endpoint live", error=DeployError, timeout_s=0.1)
    with (
        pytest.raises(DeployError, match=r"endpoint live is in use: deploy cifar10:2") as caught,
        lock.held("x"),
    ):
        pass
    assert caught.value.hint
    finish(holder)


@pytest.mark.parametrize("about", [b"", b"{}", b"[1]", b'{"operation": "x"}', b"\xff"])
def test_damaged_description_of_the_holder(
    tmp_path: Path, holder: subprocess.Popen[str], about: bytes
) -> None:
    (tmp_path / "x.json").write_bytes(about)
    lock = ProcessLock(tmp_path / "x.lock", "endpoint live", timeout_s=0)
    with pytest.raises(Exception, match="in use: another process"), lock.held("x"):
        pass
    finish(holder)


def test_lock_is_reentrant_in_a_thread_and_excludes_others(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    events: list[str] = []

    def other() -> None:
        with ProcessLock(path, "x").held("other"):
            events.append("other")

    with ProcessLock(path, "x").held("outer"):
        thread = threading.Thread(target=other)
        thread.start()
        with ProcessLock(path, "x").held("inner"):
            pass
        assert json.loads((tmp_path / "x.json").read_bytes())["operation"] == "outer"
        events.append("outer")
    thread.join()
    assert events == ["outer", "other"]


def test_partial_files_of_killed_processes_are_deleted(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    left = tmp_path / f".run.{ended.pid}-1.partial"
    left.mkdir()
    foreign = tmp_path / ".other.1-1.partial"
    foreign.mkdir()
    mine = own_partial(tmp_path / "run")
    mine.mkdir()
    assert own_partial(tmp_path / "run") == mine
    assert sorted(tmp_path.iterdir()) == sorted([foreign, mine])
