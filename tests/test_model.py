"""The networks: their size, what goes in and what comes out, on both backends."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import get_args

import keras
import numpy as np
import pytest

from cifarml import build_model
from cifarml.errors import SettingsError
from cifarml.model import PRESETS
from cifarml.train.recipe import Preset


def test_tutorial_has_the_articles_parameters() -> None:
    assert build_model("tutorial", num_classes=10).count_params() == 1_250_858


def test_tutorial_has_the_articles_layers() -> None:
    kinds = [type(layer).__name__ for layer in build_model("tutorial", 10).layers]
    block = ["Conv2D", "Conv2D", "MaxPooling2D", "Dropout"]
    assert kinds == ["Rescaling", *block, *block, "Flatten", "Dense", "Dropout", "Dense"]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_raw_pixels_in_probabilities_out(preset: str, num_classes: int) -> None:
    model = build_model(preset, num_classes)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    probabilities = keras.ops.convert_to_numpy(model(pixels))
    assert model.input_shape == (None, 32, 32, 3)
    assert model.inputs[0].dtype == "uint8"
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (3, num_classes)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_scaling_lies_inside() -> None:
    """What leaves the first layer, and so enters the first convolution, is 0..1."""
    pixels = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1) * np.ones((1, 32, 32, 3), np.uint8)
    out = keras.ops.convert_to_numpy(build_model("tutorial", 10).layers[0](pixels))
    assert np.allclose(out[:, 0, 0, 0], [0, 0.2, 1])


def test_the_recipe_names_the_presets_that_exist() -> None:
    assert set(get_args(Preset)) == set(PRESETS)


@pytest.mark.parametrize(("preset", "num_classes"), [("nothing", 10), ("tutorial", 1), ("tutorial", 1001)])
def test_what_can_not_be_built(preset: str, num_classes: int) -> None:
    with pytest.raises(SettingsError):
        build_model(preset, num_classes)


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_tiny_epoch_on_each_backend(backend: str) -> None:
    """The same code trains on both; the loss goes down and the export agrees with the model."""
    code = """
import sys, tempfile, pathlib
import keras
from cifarml import Predictor, TrainConfig, load_dataset, train_model
dataset = load_dataset("drawn:120")
with tempfile.TemporaryDirectory() as folder:
    config = TrainConfig(num_epochs=1, batch_size=20, learning_rate=1e-3)
    bundle = train_model(config, dataset, pathlib.Path(folder) / "run")
    assert bundle.info["onnx_difference"] <= 1e-4
    assert Predictor.load(bundle.path).predict_images(dataset.images).shape == (120, 10)
    print(keras.config.backend(), bundle.info["num_parameters"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [backend, "1250858"]
