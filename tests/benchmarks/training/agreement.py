"""Agreement of a model's three forms (ONNX, Keras, as trained) after training in bfloat16; prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from cifarml import TrainConfig, load_dataset
from cifarml.model.presets import Preset
from cifarml.model.test_time_augmentation import average, show
from cifarml.train.config import Precision
from cifarml.train.export import export_onnx
from cifarml.train.fit import fit_network
from cifarml.train.plan import Plan
from cifarml.train.trainer import build_serving_model

PRECISION: Precision = "mixed_bfloat16"
BATCH = 500
Floats = npt.NDArray[np.float32]


def main(preset: Any, train_source: str, test_source: str, num_epochs: int, onnx_file: Path) -> None:
    """Train, export, and compare predictions on the test images of another source."""
    splits, test = load_dataset(train_source).split(), load_dataset(test_source).test
    config = TrainConfig(preset=preset, num_epochs=num_epochs, precision=PRECISION)
    plan = Plan.make(config, splits.train)
    network = fit_network(plan, splits.train, splits.validation).network
    served, temperature = build_serving_model(plan.preset, network, splits.validation)
    predictor, _ = export_onnx(served, onnx_file, test.class_names, test.images[:256])

    predictions = {
        "onnx": predictor.predict_images(test.images),
        "keras": predict(served, test.images),
        "trained": _as_trained(network, test.images, plan.preset, temperature),
    }
    accuracies = [float((each.argmax(axis=1) == test.labels).mean()) for each in predictions.values()]
    found: dict[str, Any] = {"precision": plan.precision, "accuracies": accuracies}
    for name in ("keras", "trained"):
        found[name] = float(np.abs(predictions["onnx"] - predictions[name]).max())
    print(json.dumps(found))


def predict(model: keras.Model, images: npt.NDArray[np.uint8]) -> Floats:
    """Return a model's outputs for images, computed in batches."""
    blocks = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
    return np.concatenate([np.asarray(model(block, training=False), np.float32) for block in blocks])


def _as_trained(
    network: keras.Model, images: npt.NDArray[np.uint8], preset: Preset, temperature: float
) -> Floats:
    """Return the predictions of the network itself, with test-time augmentation, in its own precision."""
    mean = average(predict(network, np.asarray(show(images, preset.views))), preset.views)
    return np.asarray(keras.ops.softmax(mean / temperature) if preset.gives_logits else mean, np.float32)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), Path(sys.argv[5]))
