"""From a plan to a network that is ready to be trained."""

from __future__ import annotations

import keras

from cifarml.data.dataset import Dataset
from cifarml.train.optimizer import build_optimizer
from cifarml.train.plan import Plan

__all__ = ["compile_network"]


def compile_network(plan: Plan, pictures: Dataset, steps_an_epoch: int) -> keras.Model:
    """Build and compile the network of a plan.

    Args:
        plan: What it is going to be.
        pictures: Those to train on.
        steps_an_epoch: Batches in a pass over them.
    """
    network = plan.preset.build(
        len(pictures.class_names), plan.recipe, images=pictures.images, precision=plan.precision
    )
    network.compile(
        optimizer=build_optimizer(
            plan.recipe,
            plan.recipe.num_epochs * steps_an_epoch,
            paced=plan.time is not None,
            precision=plan.precision,
        ),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=plan.preset.gives_logits, label_smoothing=plan.recipe.label_smoothing
        ),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=plan.jit_compile,
    )
    return network
