"""The optimisers of the recipes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from cifarml.model.recipe import Recipe

__all__ = ["OneCycle", "build_optimizer"]


class OneCycle(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A learning rate that rises from 0 in a straight line, and falls to 0 in another.

    L. Smith and N. Topin, "Super-Convergence", 2018.

    Args:
        peak: The largest rate.
        num_steps: Steps in all.
        warm_up: Share of the steps in which it rises.
    """

    def __init__(self, peak: float, num_steps: int, warm_up: float) -> None:
        self.peak, self.num_steps, self.warm_up = peak, num_steps, warm_up

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step, counted from 0."""
        done = (ops.cast(step, "float32") + 1) / (self.num_steps + 1)
        rise = done / max(self.warm_up, 1e-9)
        fall = (1 - done) / max(1 - self.warm_up, 1e-9)
        return self.peak * ops.maximum(ops.minimum(rise, fall), 0.0)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments it was made with."""
        return {"peak": self.peak, "num_steps": self.num_steps, "warm_up": self.warm_up}


def build_optimizer(recipe: Recipe, steps_an_epoch: int) -> keras.optimizers.Optimizer:
    """Build the optimiser of a recipe for a training of ``recipe.num_epochs``."""
    if recipe.optimizer == "rmsprop":
        decay = recipe.learning_rate_decay
        return keras.optimizers.RMSprop(
            keras.optimizers.schedules.InverseTimeDecay(recipe.learning_rate, 1, decay)
        )
    return keras.optimizers.SGD(
        OneCycle(recipe.learning_rate, recipe.num_epochs * steps_an_epoch, recipe.warm_up),
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        weight_decay=recipe.weight_decay or None,
    )
