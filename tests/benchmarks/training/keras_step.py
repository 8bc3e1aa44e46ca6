"""Timer of cifarml's training step: trains a round for each line of input, and prints ms per image."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from cifarml import Dataset, TrainConfig
from cifarml.cifar10 import CLASS_NAMES
from cifarml.train.inputs.batches import Batch, Batches
from cifarml.train.inputs.keras_feed import feed_training
from cifarml.train.network import compile_network
from cifarml.train.plan import Plan

NUM_BATCHES = 8


def noise(count: int) -> Dataset:
    """Return a dataset of noise, for which a step takes as long as for images."""
    random = np.random.default_rng(0)
    return Dataset(
        images=random.integers(0, 256, (count, 32, 32, 3), np.uint8),
        labels=random.integers(0, len(CLASS_NAMES), count),
        class_names=tuple(CLASS_NAMES),
        sources=("noise",) * count,
        is_test=np.zeros(count, np.bool_),
        origin="noise",
    )


class Ready(Batches):
    """Precomputed batches, which are repeated, as in the PyTorch benchmark."""

    @cached_property
    def made(self) -> list[Batch]:
        """The batches of an epoch."""
        return list(self.epoch(0))

    def endless(self, first_epoch: int = 0) -> Iterator[Batch]:  # noqa: ARG002
        """Repeat the precomputed batches."""
        return itertools.cycle(self.made)


def waited(train: Callable[[], object]) -> float:
    """Train, and return the share of the time that steps wait for their batch, 0 to 1.

    TensorFlow's profiler measures the operation that fetches the batch at the start of the compiled step.
    """
    with TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        started = time.perf_counter()
        train()
        seconds = time.perf_counter() - started
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace.FromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    waits_ps: float = sum(
        event.duration_ps
        for plane in space.planes
        for line in plane.lines
        for event in line.events
        if plane.event_metadata[event.metadata_id].name == "IteratorGetNextOp::DoCompute"
    )
    return waits_ps / 1e12 / seconds


def main(preset: Any, widths: str, batch_size: int, num_steps: int, num_images: int, feed: str) -> None:
    """Warm up, then train a round for each line of standard input, and print ms per image.

    For the line ``waits``, the share of the round in which steps wait for batches is printed instead.

    Args:
        preset: The preset of the network and the recipe.
        widths: Widths, trained with the optimizer of torch_step.py; ``-`` for the preset's own of both.
        batch_size: Images per step.
        num_steps: Steps per round.
        num_images: Number of images that the recipe is chosen for.
        feed: ``ready`` for precomputed batches, ``made`` for batches prefetched during training.
    """
    images = noise(NUM_BATCHES * batch_size)
    plan = Plan.make(TrainConfig(preset=preset), images)
    recipe = plan.preset.choose_recipe(num_images, len(CLASS_NAMES)).changed(batch_size=batch_size)
    plan = plan._replace(recipe=recipe)
    if widths != "-":  # with the optimizer of torch_step.py
        changes: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 1e-3, "momentum": 0.9}
        changes |= {"weight_decay": 5e-3, "widths": tuple(map(int, widths.split("/")))}
        plan = plan._replace(recipe=plan.recipe.changed(**changes))
    batches = (Ready if feed == "ready" else Batches)(images, plan.recipe, seed=0)
    network = compile_network(plan, batches)

    def train(count: int) -> float:
        started = time.perf_counter()
        network.fit(**feed_training(batches) | {"steps_per_epoch": count}, verbose=0)
        return 1000 * (time.perf_counter() - started) / count / batch_size

    train(5)
    print(f"ready: {plan.precision}", flush=True)
    for line in sys.stdin:
        print(waited(lambda: train(num_steps)) if line.strip() == "waits" else train(num_steps), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
