"""Training on images without much variance, which must not make rounding errors decide."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cifarml import Run, TrainConfig, explain_image, resume_training, train_model
from cifarml.data.save import save_images
from cifarml.errors import TrainingError
from cifarml.model.presets import PRESETS
from cifarml.train import export
from cifarml.train.config import PresetName
from cifarml.train.data_source import Source
from tests.conftest import CommandLine
from tests.flat_images import KINDS, UNSEEN, flat_images

PRECISIONS = ("float32", "mixed_bfloat16")


def train(kind: str, run_dir: Path, **settings: Any) -> Run:
    return train_model(TrainConfig(**settings), flat_images(kind), run_dir)


def check_predictions(run: Run) -> None:
    """Predict and explain constant images; warnings are errors here."""
    assert run.info["onnx_difference"] <= export.TOLERANCE
    probabilities = run.predictor().predict_images(UNSEEN)
    assert np.isfinite(probabilities).all()
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    for image in UNSEEN[[0, 4, 5]]:
        heat = explain_image(run, image).heat  # it fails if Keras and ONNX Runtime differ
        assert np.isfinite(heat).all()


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        ("dots", "float32"),
        pytest.param("black", "float32", marks=pytest.mark.exhaustive),
        ("xrays", "mixed_bfloat16"),
    ],
)
def test_export_agrees_with_the_network(kind: str, precision: str, tmp_path: Path) -> None:
    check_predictions(train(kind, tmp_path / "run", num_epochs=2, precision=precision))


@pytest.mark.exhaustive
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", KINDS)
def test_export_agrees_for_all_presets(kind: str, preset: PresetName, precision: str, tmp_path: Path) -> None:
    check_predictions(train(kind, tmp_path / "run", num_epochs=3, precision=precision, preset=preset))


@pytest.mark.exhaustive
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["faint", "xrays", "dots", "black", "digits"])
def test_export_agrees_on_jax(kind: str, precision: str, tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from tests.train.test_flat_images import check_predictions, train
check_predictions(train({kind!r}, Path("run").absolute(), num_epochs=2, precision={precision!r}))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.exhaustive
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"black", "few"}])
def test_accuracy_is_at_least_that_of_the_tutorial(kind: str, precision: str, tmp_path: Path) -> None:
    """Both with the number of epochs of the preset; accuracy is the mean recall of the classes."""
    recalls = []
    for preset in ("tutorial", "fast"):
        run = train(kind, tmp_path / preset, preset=preset, precision=precision)
        confusion = np.array(json.loads((run.path / "metrics.json").read_text())["test"]["confusion"])
        recalls.append((confusion.diagonal() / confusion.sum(axis=1)).mean())
    assert recalls[1] >= recalls[0]


def test_a_failed_export_keeps_the_training(
    tmp_path: Path, cifarml: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint is a command that finishes the run in another precision, without another epoch."""
    images = save_images(flat_images("patches"), tmp_path / "images.zip")
    tolerance = export.TOLERANCE
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"num_epochs": 2, "widths": [8], "precision": "mixed_bfloat16"}))
    source = Source(data=str(images))
    run_dir = tmp_path / "runs" / "one"
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(TrainingError, match="differs") as caught:
        train_model(TrainConfig.load(config), source.load(), run_dir, source=source)
    monkeypatch.setattr(export, "TOLERANCE", tolerance)
    assert caught.value.hint
    command = caught.value.hint.partition(" with: ")[2].split()
    assert command == ["cifarml", "train", "--resume", str(run_dir), "--precision", "float32"]
    done = cifarml(*command[1:], "--json")
    assert done.returncode == 0, done.stderr
    assert "epoch 1/2" not in done.stderr.replace("  ", " ")
    run = Run.open(run_dir)
    assert run.info["num_epochs"] == 2
    assert run.read_json("config.json")["precision"] == "float32"


@pytest.mark.exhaustive
def test_a_failed_export_in_float32_keeps_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, tolerance = tmp_path / "run", export.TOLERANCE
    settings: dict[str, Any] = {"num_epochs": 2, "widths": (8,), "precision": "float32"}
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(TrainingError, match="differs") as caught:
        train("patches", run_dir, **settings)
    monkeypatch.setattr(export, "TOLERANCE", tolerance)
    assert str(caught.value.hint).endswith(f"finish the run with: cifarml train --resume {run_dir}")
    resumed = resume_training(run_dir, flat_images("patches"))
    whole = train("patches", tmp_path / "whole", **settings)
    for name in ("history.json", "metrics.json", "config.json"):
        assert resumed.read_json(name) == whole.read_json(name)
