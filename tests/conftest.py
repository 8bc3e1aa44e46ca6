"""Shared fixtures."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Set before the imports: tests contact no download site, and TensorFlow logs warnings only.
os.environ["CIFARML_CIFAR10_URL"] = "http://127.0.0.1:9/cifar-10-python.tar.gz"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
if "PYTEST_XDIST_WORKER" in os.environ:  # other workers share the cores
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started in the background of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)
IN_AZURE = (
    "STORAGE_ACCOUNT", "STORAGE_CONTAINER", "STORAGE_CONNECTION_STRING", "STORAGE_SAS_TOKEN", "STORAGE_KEY",
    "SUBSCRIPTION_ID", "RESOURCE_GROUP", "WORKSPACE_NAME",
)  # fmt: skip
for variable in (
    *("CIFARML_RUNS_DIR", "CIFARML_CACHE_DIR", "CIFARML_ENDPOINTS_DIR", "CIFARML_DEBUG", "KERAS_BACKEND"),
    *(f"{prefix}_{name}" for prefix in ("CIFARML", "AZURE") for name in IN_AZURE),
):
    os.environ.pop(variable, None)

from cifarml import Dataset, Run, load_dataset
from cifarml.run import write_json, write_manifest
from cifarml.settings import Settings
from tests.processes import run_forked
from tests.runs import MakeRun, TrainedRuns

pytest_plugins = ["tests.emulators.fixtures", "tests.fast_tier"]

LONG = (
    "azure",
    "deploy/azure",
    "emulators",
    "data/blob",
    "train",
    "tune",
    "hardware",
    "model",
    "cli",
    "test_docs",
)
CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run slow files first, so that all workers finish at about the same time."""
    folder = Path(__file__).parent
    items.sort(key=lambda item: not item.path.relative_to(folder).as_posix().startswith(LONG))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test its own cache, endpoints and registry, in this process and its children."""
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CIFARML_CACHE_DIR", str(path))
    monkeypatch.setenv("CIFARML_ENDPOINTS_DIR", str(path / "endpoints"))
    monkeypatch.setenv("CIFARML_REGISTRY_DIR", str(path / "registry"))
    monkeypatch.setenv("CIFARML_MLFLOW_MIRROR", "false")  # its process would outlive the test
    return path


@pytest.fixture
def settings(own_cache: Path) -> Settings:
    return Settings(cache_dir=own_cache)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with 2000pics_cifar10.zip and cifar10-images.zip."""
    folder = os.environ.get("CIFARML_TEST_DATA")
    if not folder:
        pytest.skip("CIFARML_TEST_DATA is not set to a folder with real images")
    return Path(folder)


@pytest.fixture(scope="session")
def drawn() -> Dataset:
    return load_dataset("drawn:200")


@pytest.fixture(scope="session")
def trained_runs(tmp_path_factory: pytest.TempPathFactory) -> TrainedRuns:
    return TrainedRuns.of_session(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def trained(trained_runs: TrainedRuns) -> Run:
    """Run trained for two epochs on 200 drawn images."""
    return trained_runs.get("trained", num_epochs=2)


@pytest.fixture(scope="session")
def narrow(trained_runs: TrainedRuns) -> Run:
    """Like `trained`, with a network that is small enough to be trained repeatedly."""
    return trained_runs.get("narrow", num_epochs=2, widths=(8,))


@pytest.fixture
def make_run(trained: Run, tmp_path: Path) -> MakeRun:
    """Create a finished run with unique content for each number."""

    def make(number: int) -> Run:
        path = tmp_path / "runs" / f"run{number}"
        if not path.exists():
            shutil.copytree(trained.path, path)
            (path / "manifest.json").unlink()
            write_json(path / "extra.json", number)
        return write_manifest(path, trained.class_names, dict(trained.info) | {"run": f"run{number}"})

    return make


@pytest.fixture
def cifarml(tmp_path: Path) -> CommandLine:
    """Run the command line in its own process and folder; ``env`` adds variables."""
    return in_folder(run_forked, tmp_path)


def in_folder(start: Callable[..., subprocess.CompletedProcess[str]], folder: Path) -> CommandLine:
    """Return a function that runs a command in a folder, with the environment of the test."""

    def run(
        *arguments: object, env: dict[str, str] | None = None, cwd: Path = folder
    ) -> subprocess.CompletedProcess[str]:
        return start(*map(str, arguments), env=os.environ | (env or {}), cwd=cwd)

    return run


@pytest.fixture
def python(tmp_path: Path) -> Callable[[str], str]:
    """Run Python code in a new interpreter and return its standard output."""

    def run(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
