"""The optimisers of the recipes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from cifarml.model.recipe import Recipe
from cifarml.train.optimizers.muon import Muon
from cifarml.train.time_budget import Pace

__all__ = ["OneCycle", "build_optimizer"]


class OneCycle(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A learning rate that rises from 0 in a straight line, and falls to 0 in another.

    L. Smith and N. Topin, "Super-Convergence", 2018.

    Args:
        peak: The largest rate.
        warm_up: Share of the schedule in which it rises.
        pace: How fast it goes on: a :class:`Pace`, or a variable of the optimiser that holds one, and is
            set anew while it trains.
    """

    def __init__(self, peak: float, warm_up: float, pace: Any) -> None:
        self.peak, self.warm_up, self.pace = peak, warm_up, pace

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step, counted from 0."""
        pace = ops.convert_to_tensor(self.pace, "float32")
        done = pace[0] + (ops.cast(step, "float32") + 1 - pace[1]) * pace[2]
        rise = done / max(self.warm_up, 1e-9)
        fall = (1 - done) / max(1 - self.warm_up, 1e-9)
        return self.peak * ops.maximum(ops.minimum(rise, fall), 0.0)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments it was made with, and the pace as it is now."""
        pace = ops.convert_to_numpy(ops.convert_to_tensor(self.pace, "float32")).tolist()
        return {"peak": self.peak, "warm_up": self.warm_up, "pace": pace}


def build_optimizer(
    recipe: Recipe, num_steps: int, *, num_known: int = 0, paced: bool = False, precision: str = "float32"
) -> keras.optimizers.Optimizer:
    """Build the optimiser of a recipe.

    Args:
        recipe: What kind, and its settings.
        num_steps: Steps of the whole training; unless it is paced.
        num_known: Of so many images the losses are kept, in its variable ``known``, float32 of shape
            (2, num_known), 0 at first; see :mod:`cifarml.train.callbacks.data_pruning`. There is none for 0.
        paced: Whether a :class:`~cifarml.train.time_budget.Pacer` sets the pace. Then the optimiser has a
            variable ``pace``, float32 of shape (4,), 0 at first.
        precision: Keras' name of the network's dtype policy.
    """
    cycle = OneCycle(recipe.learning_rate, recipe.warm_up, Pace.of_steps(num_steps))
    if recipe.optimizer == "rmsprop":
        decay = recipe.learning_rate_decay
        optimizer = keras.optimizers.RMSprop(
            keras.optimizers.schedules.InverseTimeDecay(recipe.learning_rate, 1, decay),
            weight_decay=recipe.weight_decay or None,
        )
    elif recipe.optimizer == "muon":
        arithmetic = "bfloat16" if precision == "mixed_bfloat16" else "float32"
        optimizer = Muon(cycle, recipe.momentum, recipe.weight_decay, arithmetic)
    else:
        optimizer = keras.optimizers.SGD(
            cycle,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            weight_decay=recipe.weight_decay or None,
        )
    if paced:
        optimizer.pace = cycle.pace = optimizer.add_variable(
            (len(Pace._fields),), "zeros", "float32", aggregation="only_first_replica", name="pace"
        )
    if num_known:
        optimizer.known = optimizer.add_variable(
            (2, num_known), "zeros", "float32", aggregation="only_first_replica", name="known"
        )
    return optimizer
