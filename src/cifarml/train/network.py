"""Build and compile the network of a plan."""

from __future__ import annotations

import keras
import numpy as np
import numpy.typing as npt

from cifarml.train.callbacks.data_pruning import WeightedCrossentropy
from cifarml.train.inputs.batches import Batches
from cifarml.train.optimizers.schedule import build_optimizer
from cifarml.train.plan import Plan


def compile_network(plan: Plan, batches: Batches) -> keras.Model:
    """Build and compile the network of a plan for training on these batches."""
    images, recipe = batches.dataset, plan.recipe
    network = plan.preset.build(
        len(images.class_names), recipe, images=images.images, precision=plan.precision
    )
    settings = {"from_logits": plan.preset.gives_logits, "label_smoothing": recipe.label_smoothing}
    loss = keras.losses.CategoricalCrossentropy(**settings)
    prunes = batches.pruning.num_pruned > 0
    if prunes:
        loss = WeightedCrossentropy(min(recipe.batch_size, len(images)), **settings)
        network.last_losses = loss.last
    network.compile(
        optimizer=build_optimizer(
            recipe,
            recipe.num_epochs * len(batches),
            num_examples=len(images) if prunes else 0,
            has_time_budget=plan.time is not None,
            precision=plan.precision,
        ),
        loss=loss,
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=plan.jit_compile,
    )
    return network


def predict_in_blocks(network: keras.Model, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return a network's outputs for one or more images, computed in batches of up to 256."""
    blocks = np.array_split(images, -(-len(images) // 256))
    return np.concatenate([np.asarray(network(block, training=False)) for block in blocks])
