"""Optimizers and learning-rate schedules of the recipes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from cifarml.model.recipe import Recipe
from cifarml.train.optimizers.muon import Muon
from cifarml.train.time_budget import ScheduleState


class OneCycle(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """One-cycle learning rate: linear warm-up from 0, then linear decay to 0.

    L. Smith and N. Topin, "Super-Convergence", 2018. ``warm_up`` is the share of the schedule in which the
    rate rises. ``state`` is a :class:`ScheduleState`, or an optimizer variable that holds one and is updated.
    """

    def __init__(self, peak: float, warm_up: float, state: Any) -> None:
        self.peak, self.warm_up, self.state = peak, warm_up, state

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step, counted from 0."""
        state = ops.convert_to_tensor(self.state, "float32")
        done = state[0] + (ops.cast(step, "float32") + 1 - state[1]) * state[2]
        rise = done / max(self.warm_up, 1e-9)
        fall = (1 - done) / max(1 - self.warm_up, 1e-9)
        return self.peak * ops.maximum(ops.minimum(rise, fall), 0.0)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the current state."""
        state = ops.convert_to_numpy(ops.convert_to_tensor(self.state, "float32")).tolist()
        return {"peak": self.peak, "warm_up": self.warm_up, "state": state}


def build_optimizer(
    recipe: Recipe,
    num_steps: int,
    *,
    num_examples: int = 0,
    has_time_budget: bool = False,
    precision: str = "float32",
) -> keras.optimizers.Optimizer:
    """Build the optimizer of a recipe.

    Args:
        recipe: The hyperparameters.
        num_steps: Steps of the whole training, unless it has a time budget.
        num_examples: Number of images whose losses are tracked for data pruning, in the variable
            ``example_losses``, float32 of shape (2, num_examples), initially 0; see
            :mod:`cifarml.train.callbacks.data_pruning`.
        has_time_budget: Whether a :class:`~cifarml.train.time_budget.BudgetScheduler` sets the schedule. Then
            the optimizer has a variable ``schedule_state``, float32 of shape (4,), initially 0.
        precision: Keras' name of the network's dtype policy.
    """
    cycle = OneCycle(recipe.learning_rate, recipe.warm_up, ScheduleState.of_steps(num_steps))
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
    if has_time_budget:
        optimizer.schedule_state = cycle.state = optimizer.add_variable(
            (len(ScheduleState._fields),),
            "zeros",
            "float32",
            aggregation="only_first_replica",
            name="schedule_state",
        )
    if num_examples:
        optimizer.example_losses = optimizer.add_variable(
            (2, num_examples), "zeros", "float32", aggregation="only_first_replica", name="example_losses"
        )
    return optimizer
