"""From a plan to a network that is ready to be trained."""

from __future__ import annotations

import keras

from cifarml.data.dataset import Dataset
from cifarml.train.callbacks.data_pruning import WeighedCrossentropy
from cifarml.train.inputs.batches import count_pruned
from cifarml.train.optimizers.schedule import build_optimizer
from cifarml.train.plan import Plan

__all__ = ["compile_network"]


def compile_network(plan: Plan, images: Dataset, steps_an_epoch: int) -> keras.Model:
    """Build and compile the network of a plan.

    Args:
        plan: What it is going to be.
        images: Those to train on.
        steps_an_epoch: Batches in a pass over them.
    """
    network = plan.preset.build(
        len(images.class_names), plan.recipe, images=images.images, precision=plan.precision
    )
    recipe = plan.recipe
    settings = {"from_logits": plan.preset.gives_logits, "label_smoothing": recipe.label_smoothing}
    loss = keras.losses.CategoricalCrossentropy(**settings)
    prunes = count_pruned(recipe, len(images), len(plan.devices)) > 0
    if prunes:
        loss = WeighedCrossentropy(min(recipe.batch_size, len(images)), **settings)
        network.last_losses = loss.last
    network.compile(
        optimizer=build_optimizer(
            recipe,
            recipe.num_epochs * steps_an_epoch,
            num_known=len(images) if prunes else 0,
            paced=plan.time is not None,
            precision=plan.precision,
        ),
        loss=loss,
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=plan.jit_compile,
    )
    return network
