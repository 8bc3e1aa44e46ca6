"""One preset trained in reduced precision, and its three forms asked: a program that prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from cifarml import TrainConfig, load_dataset
from cifarml.model import PRESETS
from cifarml.train.batches import Batches
from cifarml.train.device import choose_devices, choose_precision
from cifarml.train.export import export_onnx
from cifarml.train.feeding import feed_training
from cifarml.train.network import compile_network
from cifarml.train.plan import Plan

BATCH = 500
Floats = npt.NDArray[np.float32]


def main(preset: str, train_source: str, test_source: str, num_epochs: int, onnx_file: Path) -> None:
    """Train, export, and compare on the test pictures of another source."""
    training, test = load_dataset(train_source).train, load_dataset(test_source).test
    precision = choose_precision(choose_devices("auto"))
    plan = Plan.make(TrainConfig.make(preset=preset, num_epochs=num_epochs, precision=precision), training)
    keras.utils.set_random_seed(0)
    batches = Batches(training, plan.recipe, seed=0)
    network = compile_network(plan, training, len(batches))
    network.fit(**feed_training(batches), epochs=num_epochs, verbose=0)
    made = PRESETS[preset]
    served = made.to_serve(network)
    exported = export_onnx(served, onnx_file, test.class_names, test.images[:256])

    answers = {
        "onnx": exported.predictor.predict_images(test.images),
        "keras": _ask(served, test.images),
        "trained": _as_trained(network, test.images, gives_logits=made.gives_logits),
    }
    accuracies = [float((each.argmax(axis=1) == test.labels).mean()) for each in answers.values()]
    found: dict[str, Any] = {"precision": precision, "accuracies": accuracies}
    for name in ("keras", "trained"):
        found[name] = float(np.abs(answers["onnx"] - answers[name]).max())
    print(json.dumps(found))


def _ask(model: keras.Model, images: npt.NDArray[np.uint8]) -> Floats:
    blocks = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
    return np.concatenate([np.asarray(model(block, training=False), np.float32) for block in blocks])


def _as_trained(network: keras.Model, images: npt.NDArray[np.uint8], *, gives_logits: bool) -> Floats:
    """What the network itself says, in its own precision; mirror images averaged where they are served so."""
    if not gives_logits:
        return _ask(network, images)
    logits = (_ask(network, images) + _ask(network, images[:, :, ::-1])) / 2
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), Path(sys.argv[5]))
