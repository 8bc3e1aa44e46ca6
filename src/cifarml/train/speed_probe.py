"""How fast is this machine? A few real steps of real networks, and what is chosen by them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Final

import keras

from cifarml.data.dataset import DatasetSplits
from cifarml.model.recipe import Size
from cifarml.train.distribution import on_devices
from cifarml.train.inputs.batches import Batches
from cifarml.train.inputs.keras_feed import feed_training
from cifarml.train.network import compile_network
from cifarml.train.plan import Plan
from cifarml.train.precise_batchnorm import count_images
from cifarml.train.time_budget import Clock, Speed, plan_time

__all__ = ["choose_by_measuring", "choose_compiler", "measure_speed"]

_LEAST_STEPS: Final = 4
"""After the first step; oneDNN and cuDNN choose their ways in the first few."""
_MOST_STEPS: Final = 30
_WORTH_COMPILING_S: Final = 30
"""Where a training takes less time than this, XLA has none to win."""


def choose_by_measuring(plan: Plan, splits: DatasetSplits, *, clock: Clock = time.perf_counter) -> Plan:
    """Choose what only the stopwatch can tell: the size of the network for a time budget, and XLA.

    Without a budget, and without a GPU under TensorFlow, there is nothing to measure.

    Args:
        plan: What is chosen up to now.
        splits: Images to train on and to validate with.
        clock: What the time is.

    Raises:
        TrainingError: If there is no time for a single step.
    """
    started = clock()
    steps_an_epoch = len(_batches(plan, splits))
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

    asked = "widths" in plan.config.changes
    sizes = (Size(plan.recipe.widths, 0),) if asked else plan.preset.sizes(len(splits.train))
    size, timing = plan_time(left_s, sizes, steps_an_epoch, measure, clock=clock)
    timing = timing._replace(
        budget_s=plan.config.time_budget_s,
        measuring_s=timing.measuring_s + plan.config.time_budget_s - left_s,
    )
    recipe = plan.recipe.changed(widths=size.widths, num_epochs=max(1, math.ceil(timing.num_epochs)))
    return plan._replace(recipe=recipe, time=timing)


def choose_compiler(plan: Plan, num_steps: int, measure: Callable[[Plan], Speed]) -> Plan:
    """Choose whether XLA compiles the step.

    JAX has nothing else, and on a CPU TensorFlow is slower with it. On a GPU both ways are measured, and
    the one is taken that is through first, the compiling included.

    Args:
        plan: What is chosen up to now.
        num_steps: Steps of the whole training.
        measure: Measures the network of a plan.
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
    """Train a network of a plan for a moment, and throw it away.

    Args:
        plan: The network, and how it is trained.
        splits: Images to train on and to validate with.
        seconds: About how long the steps may take after the first one, of which there are four at least.
        clock: What the time is.
    """
    batches = _batches(plan, splits)
    watch = _StopWatch(seconds, clock)
    with on_devices(plan.devices):
        network = compile_network(plan, splits.train, len(batches))
        network.fit(**feed_training(batches), epochs=_MOST_STEPS + 1, callbacks=[watch], verbose=0)
    start_s, *further = watch.steps_s
    step_s = statistics.median(further)
    # Forward is a third of a step. The first look is traced and compiled, too.
    looks = len(splits.validation) / min(plan.recipe.batch_size, len(splits.train))
    look_s = (step_s * looks + start_s) / 3 if looks else 0.0
    # So is the pass after the last step, whose batches nobody makes ahead: half a step rather than a third.
    last = count_images(network, len(splits.train)) / min(plan.recipe.batch_size, len(splits.train))
    finish_s = step_s * last / 2 + start_s / 3 if last else 0.0
    return Speed(start_s, step_s, look_s, finish_s)


def _batches(plan: Plan, splits: DatasetSplits) -> Batches:
    return Batches(splits.train, plan.recipe, seed=plan.config.seed, num_replicas=len(plan.devices))


class _StopWatch(keras.callbacks.Callback):  # type: ignore[misc]
    """Takes the time of each step, and ends the training after enough of them."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        super().__init__()
        self.steps_s: list[float] = []
        self._seconds, self._clock = seconds, clock
        self._last = clock()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        now = self._clock()
        self.steps_s.append(now - self._last)
        self._last = now
        further = self.steps_s[1:]
        if len(further) >= _LEAST_STEPS and (sum(further) >= self._seconds or len(further) >= _MOST_STEPS):
            self.model.stop_training = True
