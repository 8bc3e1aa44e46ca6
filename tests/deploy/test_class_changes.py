"""Statement of the classes that a deployment adds and removes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cifarml import Dataset, LocalRegistry, Run, TrainConfig, train_model
from cifarml.deploy.base import Endpoint
from cifarml.deploy.class_changes import ClassChanges, compare_classes
from cifarml.deploy.local.host import LocalHost
from tests.conftest import CommandLine


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory: pytest.TempPathFactory, drawn: Dataset) -> Run:
    """Run with two of the ten classes of `trained`, and one more."""
    chosen = drawn.take(np.flatnonzero(drawn.labels < 3))
    dataset = chosen.relabel(chosen.labels, ("airplane", "automobile", "zeppelin"))
    return train_model(
        TrainConfig(num_epochs=1, widths=(8,)), dataset, tmp_path_factory.mktemp("three") / "run"
    )


def test_lines() -> None:
    assert ClassChanges().lines == []
    changes = ClassChanges("v1", ("emu",), tuple(f"class {number}" for number in range(100)))
    added, removed = changes.lines
    assert added == "classes added, compared with live v1: emu"
    assert removed.endswith("... (100 in total)")
    assert len(removed) < 80


def test_deploy_states_class_changes(
    cifarml: CommandLine, trained: Run, three_classes: Run, own_cache: Path
) -> None:
    for run in (trained, three_classes):
        assert cifarml("models", "register", run.path).returncode == 0
    first = cifarml("deploy", "--model", "cifar10:1", "--json")
    try:
        assert first.returncode == 0, first.stderr
        assert json.loads(first.stdout)["classes_added"] == []
        assert "classes added" not in first.stderr
        plan = cifarml("deploy", "--model", "cifar10:2", "--dry-run").stdout
        assert "classes added, compared with live v1: zeppelin" in plan
        done = cifarml("deploy", "--model", "cifar10:2", "--canary-seconds", 0, "--json")
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["classes_added"] == ["zeppelin"]
        assert document["classes_removed"] == sorted(set(trained.class_names) - {"airplane", "automobile"})
        steps = done.stderr
        assert steps.index("classes removed") < steps.index("canary: v2 receives")
    finally:
        cifarml("endpoint", "delete", "cifar10")
    host = LocalHost(own_cache / "none")
    gone = Endpoint("gone", "http://127.0.0.1:9/score", "stopped", {"v1": 100}, ())
    assert compare_classes(host, gone, trained) == ClassChanges(), "a live deployment that does not respond"
    assert LocalRegistry().get("cifar10", "2").version == "2"
