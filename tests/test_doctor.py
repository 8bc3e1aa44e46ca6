"""``cifarml doctor`` on this machine, and checks with simulated values."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from cifarml import doctor
from cifarml.doctor import Check, run_checks
from cifarml.hardware.devices import Memory, cpu_features, measure_memory
from cifarml.settings import Settings
from tests.conftest import CommandLine

NAMES = [
    "python",
    "settings",
    "cache_dir",
    "runs_dir",
    "registry_dir",
    "memory",
    "tensorflow",
    "processor",
    "training",
    "storage",
]
SECRET = "c2VjcmV0LW9mLW91cnMhISEhISEhISEhISEhISEhISEhISEhISEh+/=="


def test_run_checks_reports_each_check(tmp_path: Path) -> None:
    seen: list[Check] = []
    settings = Settings(cache_dir=tmp_path / "not" / "there", runs_dir=tmp_path)
    checks = run_checks(settings, on_check=seen.append)
    assert checks == seen
    assert [check.name for check in checks] == [name for name in NAMES if name != "settings"]
    assert not (tmp_path / "not").exists(), "no folder is created"
    assert list(tmp_path.iterdir()) == []
    by_name = {check.name: check for check in checks}
    assert by_name["python"].status == by_name["tensorflow"].status == by_name["processor"].status == "ok"
    assert by_name["training"].status == "ok", by_name["training"]
    assert "Keras 3." in by_name["tensorflow"].message
    assert "images are read from this machine" in by_name["storage"].message
    assert all(check.hint for check in checks if check.status != "ok")


def test_doctor_command(cifarml: CommandLine) -> None:
    done = cifarml("doctor", env={"AZURE_STORAGE_KEY": SECRET})
    assert done.stderr == ""
    assert SECRET not in done.stdout
    lines = [line.split() for line in done.stdout.splitlines() if line[:1].strip()]
    assert [line[1] for line in lines[:-1]] == NAMES
    assert {line[0] for line in lines[:-1]} <= {"ok", "warn", "PROBLEM"}
    assert done.returncode == ("PROBLEM" in done.stdout)
    assert "\x1b" not in done.stdout


def test_invalid_settings_file_is_a_problem(cifarml: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "cifarml.toml").write_text(f'storage_key = "{SECRET}"')
    done = cifarml("doctor", "--json", env={"CIFARML_DEBUG": "1"})
    assert done.returncode == 1
    assert SECRET not in done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert document["ok"] is False
    (problem,) = [check for check in document["checks"] if check["status"] == "problem"]
    assert problem["name"] == "settings"
    assert "is a secret" in problem["message"]
    assert "CIFARML_STORAGE_KEY" in problem["hint"]
    assert [check["name"] for check in document["checks"]][-3:] == ["tensorflow", "processor", "training"]


def test_origins_of_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    (tmp_path / "cifarml.toml").write_text('storage_container = "abc"')
    monkeypatch.chdir(tmp_path)
    assert doctor._check_origins() == Check(
        "settings", "ok", f"from {tmp_path / 'cifarml.toml'}, environment"
    )


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 10), "problem"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "problem"), ((4, 0), "problem")],
)
def test_python_versions(version: tuple[int, int], status: str) -> None:
    assert doctor._check_python(version).status == status


@pytest.mark.parametrize(
    ("free_bytes", "status"),
    [(0, "problem"), (499_999_999, "problem"), (10**9, "warning"), (5 * 10**9, "ok")],
)
def test_free_disk_space(free_bytes: int, status: str) -> None:
    check = doctor._check_room("runs_dir", Path("/x"), free_bytes)
    assert check.status == status
    assert (check.hint is None) == (status == "ok")


def test_unwritable_folders(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = doctor._check_folder("cache_dir", tmp_path / "file" / "sub")
    assert check.status == "problem"
    assert "CIFARML_CACHE_DIR" in str(check.hint)
    (tmp_path / "link").symlink_to("nowhere")
    assert doctor._check_folder("cache_dir", tmp_path / "link").status == "problem"
    assert doctor._check_folder("runs_dir", Path("/proc/nothing")).status == "problem"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert doctor._check_folder("runs_dir", tmp_path / "runs").status == "problem"


def test_memory(tmp_path: Path) -> None:
    meminfo, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    meminfo.write_text("MemTotal:       8000000 kB\nMemFree:  1 kB\nMemAvailable:   4000000 kB\n")
    assert measure_memory(meminfo, limit) == Memory(8_192_000_000, 4_096_000_000)
    limit.write_text("max\n")
    assert measure_memory(meminfo, limit) == Memory(8_192_000_000, 4_096_000_000)
    limit.write_text("1000000000\n")
    assert measure_memory(meminfo, limit) == Memory(10**9, 10**9)
    meminfo.write_text("?")
    assert measure_memory(meminfo, limit) is None
    assert doctor._check_memory(None).status == "ok"
    assert doctor._check_memory(Memory(10**9, 10**9)).status == "warning"
    assert doctor._check_memory(Memory(8 * 10**9, 4 * 10**9)).status == "ok"


def test_processor_features(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert cpu_features(cpuinfo) is None
    cpuinfo.write_text("model name : x\nflags\t: fpu avx avx2 avx512_bf16 amx_bf16\n")
    assert cpu_features(cpuinfo) == ("avx", "avx2", "avx512_bf16", "amx_bf16")
    cpuinfo.write_text("Features\t: fp asimd bf16\n")
    assert cpu_features(cpuinfo) == ("asimd", "bf16")
    cpuinfo.write_text("?")
    assert cpu_features(cpuinfo) is None

    gpu = doctor._check_processor(["gpu:0", "gpu:1"], ("avx",), nvidia_driver=True)
    assert gpu == Check("processor", "ok", "trains on gpu:0, gpu:1")
    unused = doctor._check_processor(["cpu:0"], ("avx",), nvidia_driver=True)
    assert unused.status == "warning"
    assert "--extra gpu" in str(unused.hint)
    assert doctor._check_processor(["cpu:0"], None, nvidia_driver=False).status == "ok"
    assert "avx2" in doctor._check_processor(["cpu:0"], ("avx", "avx2"), nvidia_driver=False).message


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only Intel and AMD processors have AVX")
def test_processor_without_avx() -> None:
    assert doctor._check_processor([], (), nvidia_driver=False).status == "problem"


def test_tensorflow_import_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor survives an import error, and a build for another processor, which crashes."""
    broken = tmp_path / "tensorflow.py"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    broken.write_text("raise ImportError('libx.so: cannot open shared object file')")
    raised, _ = doctor._check_training()
    assert (raised.name, raised.status) == ("tensorflow", "problem")
    assert "libx.so" in raised.message
    broken.write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    killed, _ = doctor._check_training()
    assert "signal 4" in killed.message


def test_training_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that only training needs, and a variable that may be the cause."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "tf2onnx.py").write_text("raise ImportError('libx.so: cannot open shared object file')")
    tensorflow, _, training = doctor._check_training()
    assert tensorflow.status == "ok"
    assert (training.name, training.status) == ("training", "problem")
    assert "tf2onnx" in training.message
    assert "-u OMP_NUM_THREADS" in str(training.hint)


def test_unusable_storage_account() -> None:
    """An invalid key and an unreachable address are problems with hints, which do not show the key."""
    address = "https://127.0.0.1:9/devstoreaccount1"
    (check,) = doctor._check_storage(Settings(storage_account=address, storage_key=SecretStr("notbase64!")))
    assert (check.name, check.status) == ("storage: sign in", "problem")
    assert check.hint
    assert "notbase64!" not in check.message + check.hint
    checks = list(doctor._check_storage(Settings(storage_account=address, storage_key=SecretStr(SECRET))))
    assert (checks[0].name, checks[0].status) == ("storage: list", "problem")
    assert SECRET not in str(checks)
