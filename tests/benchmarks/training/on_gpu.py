"""Training of one preset on a GPU; prints JSON.

``python -m tests.benchmarks.training.on_gpu SOURCE PRESET EPOCHS SEED``. With ``KERAS_BACKEND=jax``,
TensorFlow is not required.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from cifarml import TrainConfig, load_dataset
from cifarml.hardware.devices import describe_machine
from cifarml.progress import Progress
from cifarml.train.fit import fit_network
from cifarml.train.plan import Plan
from tests.benchmarks.training.agreement import predict


def main(source: str, preset: Any, num_epochs: int, seed: int) -> None:
    """Train without the validation images, and evaluate on the test images.

    The time is from the loaded images to the trained network, with the start of the GPU and all compilation.
    Keras runs the serving model, since TensorFlow, which the ONNX export requires, may be missing.
    """
    dataset = load_dataset(source)
    splits = dataset.split(seed=seed)

    def on_progress(progress: Progress) -> None:
        if progress.line:
            print(f"{time.perf_counter() - started:.1f} s  {progress.line}", file=sys.stderr, flush=True)

    started = time.perf_counter()
    config = TrainConfig(preset=preset, num_epochs=num_epochs, device="gpu", seed=seed)
    plan = Plan.make(config, splits.train)
    fitted = fit_network(plan, splits.train, splits.validation, on_progress=on_progress)
    seconds = time.perf_counter() - started
    predictions = predict(plan.preset.to_serve(fitted.network), splits.test.images)
    found = {
        "device": describe_machine(plan.devices),
        "precision": plan.precision,
        "accuracy": float((predictions.argmax(axis=1) == splits.test.labels).mean()),
        "seconds": seconds,
        "images_per_second": fitted.images_per_second,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
