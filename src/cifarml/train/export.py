"""Export a Keras model to ONNX."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Final

import keras
import numpy as np
import numpy.typing as npt

from cifarml.cifar10 import IMAGE_SHAPE
from cifarml.errors import TrainingError
from cifarml.model.keras_defaults import keras_defaults
from cifarml.predict import Predictor

TOLERANCE: Final = 1e-4
"""Largest allowed difference in a probability between Keras and ONNX Runtime."""


def export_onnx(
    model: keras.Model,
    path: Path,
    class_names: tuple[str, ...],
    images: npt.NDArray[np.uint8],
    *,
    hint: str | None = None,
) -> tuple[Predictor, float]:
    """Export a model to ONNX, and verify its predictions against Keras.

    Args:
        model: Keras model with uint8 images (N, 32, 32, 3) as input and probabilities as output.
        path: The .onnx file to write; raw pixels in, probabilities out, any batch size.
        class_names: The classes, in the order of its outputs.
        images: Real images to compare on, uint8, shape (N, 32, 32, 3), N at least 1.
        hint: Hint of the error.

    Returns:
        The exported model, and the largest difference in a probability from Keras.

    Raises:
        TrainingError: If the export fails or the difference is above 1e-4; no file is written then.
    """
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder, "model.onnx")
        expected = np.asarray(model(images, training=False))  # also builds what export needs
        _convert(model, temporary, hint)
        content = temporary.read_bytes()
    predictor = Predictor(content, class_names)
    difference = max(
        float(np.abs(predictor.predict_images(images) - expected).max()),
        float(np.abs(predictor.predict_images(images[:1]) - expected[:1]).max()),
    )
    if not difference <= TOLERANCE:
        raise TrainingError(
            f"the exported model differs from the trained one: expected at most {TOLERANCE:g}, "
            f"got {difference:.2g}",
            hint=hint,
        )
    path.write_bytes(content)
    return predictor, difference


def _convert(model: keras.Model, path: Path, hint: str | None = None) -> None:
    if keras.config.backend() == "tensorflow":
        with warnings.catch_warnings():
            # Keras 3.15 looks up np.object, which numpy has removed, and handles its absence.
            warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
            model.export(path, format="onnx", verbose=False)
        return
    # tf2onnx requires TensorFlow graphs, so models of other backends are converted in a TensorFlow process.
    saved = path.with_suffix(".keras")
    model.save(saved)
    command = [sys.executable, "-m", "cifarml.train.export", str(saved), str(path)]
    environment = os.environ | {"KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(  # noqa: S603 - a module of this package
        command, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise TrainingError(f"the model could not be exported to ONNX:\n{done.stderr[-2000:]}", hint)


if __name__ == "__main__":
    with keras_defaults():
        restored = keras.models.load_model(sys.argv[1], compile=False, safe_mode=True)
        restored(np.zeros((1, *IMAGE_SHAPE), np.uint8))
        _convert(restored, Path(sys.argv[2]))
