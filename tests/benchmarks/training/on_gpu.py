"""One preset trained on a GPU: a program that prints JSON.

``python -m tests.benchmarks.training.on_gpu SOURCE PRESET EPOCHS SEED``; with ``KERAS_BACKEND=jax`` without
TensorFlow, too.
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
from tests.benchmarks.training.agreement import ask


def main(source: str, preset: Any, num_epochs: int, seed: int) -> None:
    """Train on all training images but those for validation, and score on the test images.

    The time is that from the loaded images to the trained network: the GPU wakes up, and everything is
    compiled in it. What is served is asked by Keras, since TensorFlow, which exports it, need not be here.
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
    answers = ask(plan.preset.to_serve(fitted.network), splits.test.images)
    found = {
        "device": describe_machine(plan.devices),
        "precision": plan.precision,
        "accuracy": float((answers.argmax(axis=1) == splits.test.labels).mean()),
        "seconds": seconds,
        "images_per_second": fitted.images_per_second,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
