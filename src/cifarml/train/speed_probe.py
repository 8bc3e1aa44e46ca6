"""Measure training speed on this machine, and choose the model size and XLA compilation by it."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Final

import keras

from cifarml.data.dataset import DatasetSplits
from cifarml.model.recipe import Size
from cifarml.train.inputs.keras_feed import feed_training
from cifarml.train.network import compile_network
from cifarml.train.plan import Plan
from cifarml.train.precise_batchnorm import count_batchnorm_images
from cifarml.train.time_budget import Clock, Speed, choose_model_size

_LEAST_STEPS: Final = 4
"""Steps to time after the first one; oneDNN and cuDNN choose their algorithms in the first few."""
_MOST_STEPS: Final = 30
_WORTH_COMPILING_S: Final = 30
"""XLA is not worth its compile time in shorter trainings."""


def autotune(plan: Plan, splits: DatasetSplits, *, clock: Clock = time.perf_counter) -> Plan:
    """Measure speed, and choose the model size for a time budget and whether to compile with XLA.

    Without a budget, and without a GPU under TensorFlow, nothing is measured.

    Raises:
        TrainingError: If the budget is too short for a single step, or memory runs out.
    """
    started = clock()
    steps_an_epoch = len(plan.batches(splits.train))
    num_steps = plan.recipe.num_epochs * steps_an_epoch
    plan = choose_compiler(
        plan, num_steps, lambda tried: measure_speed(tried, splits, seconds=1.0, clock=clock)
    )
    if plan.config.time_budget_s is None:
        return plan
    left_s = plan.config.time_budget_s - (clock() - started)

    def measure(widths: tuple[int, ...]) -> Speed:
        wide = plan._replace(recipe=plan.recipe.changed(widths=widths))
        return measure_speed(wide, splits, seconds=0.02 * left_s, clock=clock)

    fixed = "widths" in plan.config.changes
    sizes = (Size(plan.recipe.widths, 0),) if fixed else plan.preset.sizes(len(splits.train))
    size, timing = choose_model_size(left_s, sizes, steps_an_epoch, measure, clock=clock)
    timing = timing._replace(
        budget_s=plan.config.time_budget_s,
        measuring_s=timing.measuring_s + plan.config.time_budget_s - left_s,
    )
    recipe = plan.recipe.changed(widths=size.widths, num_epochs=max(1, math.ceil(timing.num_epochs)))
    return plan._replace(recipe=recipe, time=timing)


def choose_compiler(plan: Plan, num_steps: int, measure: Callable[[Plan], Speed]) -> Plan:
    """Choose whether XLA compiles the step.

    JAX always uses XLA, and on a CPU TensorFlow is slower with it. On a GPU, both are measured, and the one
    that is faster for ``num_steps`` is used, compile time included.
    """
    if keras.config.backend() != "tensorflow" or len(plan.devices) > 1 or plan.devices[0].startswith("cpu"):
        return plan
    compiled = plan._replace(jit_compile=True)
    plain = measure(plan)
    plain_s = plain.start_s + num_steps * plain.step_s
    if plan.config.time_budget_s is not None:
        plain_s = plan.config.time_budget_s
        num_steps = int(plain_s / plain.step_s)
    if plain_s < _WORTH_COMPILING_S:
        return plan
    quick = measure(compiled)
    return compiled if quick.start_s + num_steps * quick.step_s < plain_s else plan


def measure_speed(
    plan: Plan, splits: DatasetSplits, *, seconds: float, clock: Clock = time.perf_counter
) -> Speed:
    """Time a few training steps of a plan's network, and discard the network.

    After the first step, at least four steps are timed, for about ``seconds``.
    """
    batches = plan.batches(splits.train)
    timer = StepTimer(seconds, clock)
    with plan.scope():
        network = compile_network(plan, batches)
        network.fit(**feed_training(batches), epochs=_MOST_STEPS + 1, callbacks=[timer], verbose=0)
    start_s, *further = timer.steps_s
    step_s = statistics.median(further)
    # A forward pass takes a third of a step; the first validation pass is traced and compiled, too.
    batch_size = min(plan.recipe.batch_size, len(splits.train))
    num_batches = len(splits.validation) / batch_size
    validation_s = (step_s * num_batches + start_s) / 3 if num_batches else 0.0
    # So is precise batch norm, whose batches are not prefetched: half a step rather than a third.
    last = count_batchnorm_images(network, len(splits.train)) / batch_size
    finish_s = step_s * last / 2 + start_s / 3 if last else 0.0
    return Speed(start_s, step_s, validation_s, finish_s)


class StepTimer(keras.callbacks.Callback):  # type: ignore[misc]
    """Time each step, and end the training after enough of them."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        super().__init__()
        self.steps_s: list[float] = []
        self._seconds, self._clock = seconds, clock
        self._last = clock()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Record the time since the previous step."""
        now = self._clock()
        self.steps_s.append(now - self._last)
        self._last = now
        further = self.steps_s[1:]
        if len(further) >= _LEAST_STEPS and (sum(further) >= self._seconds or len(further) >= _MOST_STEPS):
            self.model.stop_training = True
