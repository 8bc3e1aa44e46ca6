"""Steady-state training speed: prints ms per image for a number of images of a source."""

from __future__ import annotations

import sys
import time

from cifarml import TrainConfig, load_dataset
from cifarml.model.presets import PRESETS
from cifarml.train.inputs.keras_feed import feed_training, feed_validation
from cifarml.train.network import compile_network
from cifarml.train.plan import Plan


def main(source: str, num_images: int, images_in_all: int) -> None:
    """Train with the recipe of the preset ``fast`` for 50,000 images, whatever their number."""
    dataset = load_dataset(source).train
    dataset = dataset.subset(num_images) if num_images < len(dataset) else dataset
    splits = dataset.split()
    recipe = PRESETS["fast"].choose_recipe(50_000, len(dataset.class_names))
    plan = Plan.make(TrainConfig(), splits.train)._replace(recipe=recipe)
    batches = plan.batches(splits.train)
    network = compile_network(plan, batches)

    def fit(num_epochs: int) -> None:
        network.fit(
            **feed_training(batches), **feed_validation(splits.validation, 256), epochs=num_epochs, verbose=0
        )

    fit(1)
    num_epochs = max(1, round(images_in_all / len(splits.train)))
    started = time.perf_counter()
    fit(num_epochs)
    seen = min(len(batches) * recipe.batch_size, len(splits.train)) * num_epochs
    print(1000 * (time.perf_counter() - started) / seen)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
