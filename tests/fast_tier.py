"""Fast tier (`pytest -m fast`): selection of its tests, and a guard that keeps it fast.

A test belongs to it if its module is listed in `MODULES`, unless it uses one of `SLOW_FIXTURES` or is marked
`slow`. When only this tier runs, a test that imports TensorFlow, connects or starts a process fails.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

MODULES = frozenset({
    "data/archives/test_archive.py",
    "data/blob/test_blob_cache.py",
    "data/cifar10/test_official.py",
    "data/drawn/test_drawings.py",
    "data/test_dataset.py",
    "data/tables/test_tables.py",
    "data/test_decode.py",
    "data/test_describe.py",
    "data/test_ignored.py",
    "data/test_load.py",
    "data/test_save.py",
    "evaluation/test_accuracy.py",
    "imaging/test_depth.py",
    "imaging/test_opening.py",
    "evaluation/test_calibration.py",
    "evaluation/test_statistics.py",
    "report/test_plots.py",
    "scoring/test_request.py",
    "scoring/test_score.py",
    "serve/test_exposure.py",
    "serve/test_keys.py",
    "test_docs.py",
    "test_docs_examples.py",
    "test_images.py",
    "test_network_checks.py",
    "test_predict.py",
    "test_progress.py",
    "test_settings.py",
    "train/inputs/test_augmentation.py",
    "cli/test_config.py",
    "cli/test_help.py",
    "test_style.py",
})  # fmt: skip
SLOW_FIXTURES = frozenset({
    "bench", "cifarml", "installed", "ml_cloud", "python", "real_data", "trained", "trained_runs",
})  # fmt: skip
"""Fixtures that train, start servers or processes, or read thousands of files."""

TESTS = Path(__file__).parent
SLOW_PACKAGES = frozenset({"azure.ai.ml", "jax", "keras", "mlflow", "tensorflow", "torch"})
SLOW_EVENTS = frozenset({
    "os.fork", "os.posix_spawn", "socket.bind", "socket.connect", "socket.getaddrinfo", "subprocess.Popen",
})  # fmt: skip

_guarded: list[str] = []
"""The guarded test, or the module being collected."""


def pytest_configure() -> None:
    sys.addaudithook(_refuse)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip other modules if only this tier runs, since importing them takes longer than its tests."""
    if collection_path.suffix == ".py" and _runs_alone(config) and not _is_fast(collection_path):
        return True
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        marks = {mark.name for mark in item.iter_markers()}
        if _is_fast(item.path) and not fixtures & SLOW_FIXTURES and not marks & {"exhaustive", "slow"}:
            item.add_marker("fast")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    return (yield from _guarding(_runs_alone(collector.config) and collector.nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    return (yield from _guarding(_runs_alone(item.config) and item.nodeid))


def _guarding(name: str | bool) -> Iterator[None]:
    if name:
        _guarded.append(str(name))
    try:
        return (yield)
    finally:
        _guarded.clear()


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if not _guarded:
        return
    if event in SLOW_EVENTS or (event == "import" and arguments[0] in SLOW_PACKAGES):
        what = f"imports {arguments[0]}" if event == "import" else f"calls {event}"
        pytest.fail(f"{_guarded[0]} {what}, so it does not belong to the fast tier (tests/fast_tier.py)")


def _is_fast(path: Path) -> bool:
    return path.is_relative_to(TESTS) and path.relative_to(TESTS).as_posix() in MODULES


def _runs_alone(config: pytest.Config) -> bool:
    return bool(config.getoption("markexpr") == "fast")
