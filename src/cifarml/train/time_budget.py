"""Time-budget scheduler: choose the model size, and fit the learning-rate schedule to the remaining time.

This module only computes with a clock; :mod:`cifarml.train.speed_probe` measures the machine.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from cifarml.errors import TrainingError
from cifarml.model.recipe import Size

Clock = Callable[[], float]
"""Returns seconds since some moment, like :func:`time.perf_counter`."""

_MEASURING: Final = 0.05
"""Maximum share of the budget for measuring; the narrowest network is always measured."""
_COST: Final = 1.5
"""Time per step grows about as the width of the network to this power, measured on CPUs."""
_UPDATE: Final = 0.01
"""The schedule is updated after this share of the budget."""
_STEEPEST: Final = 10
"""A late schedule is compressed by at most this factor."""


class Speed(NamedTuple):
    """Measured training speed of a network, in seconds.

    Attributes:
        start_s: The first step, in which the network is traced and compiled.
        step_s: Each further step.
        validation_s: A validation pass.
        finish_s: All that follows the last step.
    """

    start_s: float
    step_s: float
    validation_s: float
    finish_s: float = 0.0


class TimePlan(NamedTuple):
    """A time budget and its measurements, stored in config.json.

    Attributes:
        budget_s: The whole budget, in seconds.
        measuring_s: The part of it that was spent on measuring.
        speed: Speed of the chosen network.
        num_epochs: Forecast at this speed; may be fractional.
    """

    budget_s: float
    measuring_s: float
    speed: Speed
    num_epochs: float

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        return self._asdict() | {"speed": self.speed._asdict()}


def choose_model_size(
    budget_s: float,
    sizes: Sequence[Size],
    steps_an_epoch: int,
    measure: Callable[[tuple[int, ...]], Speed],
    *,
    clock: Clock = time.perf_counter,
) -> tuple[Size, TimePlan]:
    """Choose the widest network whose minimum number of epochs fits into the budget.

    The narrowest network is measured first, then each that seems to fit, until the choice has been measured
    or 5 % of the budget is used up.

    ``sizes`` are sorted by width, narrowest first. The budget covers measuring, compiling, training and
    finishing.

    Raises:
        TrainingError: If the budget is too short for a single step.
    """
    started, longest_s = clock(), 0.0
    measured: dict[tuple[int, ...], Speed] = {}
    choice = sizes[0]
    while choice.widths not in measured:
        before = clock()
        if measured and before - started + longest_s > _MEASURING * budget_s:
            break
        measured[choice.widths] = measure(choice.widths)
        longest_s = max(longest_s, clock() - before)
        left_s = budget_s - (clock() - started)
        choice = sizes[0]
        for size in sizes:
            if _epochs(left_s, _guess(measured, size), steps_an_epoch) >= size.least_epochs:
                choice = size
    measuring_s = clock() - started
    speed = _guess(measured, choice)
    num_epochs = _epochs(budget_s - measuring_s, speed, steps_an_epoch)
    if num_epochs * steps_an_epoch < 1:
        least = math.ceil(1.2 * (measuring_s + sum(speed)))
        raise TrainingError(
            f"a time budget of {round(budget_s, 2):g} s is too short: "
            f"measuring, compiling and one step take about {least} s here",
            hint=f"increase it to at least: --time-budget {least}s",
        )
    return choice, TimePlan(budget_s, measuring_s, speed, num_epochs)


def _guess(measured: dict[tuple[int, ...], Speed], size: Size) -> Speed:
    """Return the measured speed, or an estimate from the measured network that is nearest in width."""
    if size.widths in measured:
        return measured[size.widths]
    ratios = {widths: sum(size.widths) / sum(widths) for widths in measured}
    nearest = min(ratios, key=lambda widths: abs(math.log(ratios[widths])))
    cost = ratios[nearest] ** _COST
    start_s, step_s, validation_s, finish_s = measured[nearest]
    return Speed(start_s, step_s * cost, validation_s * cost, finish_s * cost)


def _epochs(left_s: float, speed: Speed, steps_an_epoch: int) -> float:
    """Return the number of epochs that fit; a last validation pass is always made."""
    left_s -= speed.start_s + speed.validation_s + speed.finish_s
    return max(left_s, 0.0) / (speed.step_s * steps_an_epoch + speed.validation_s)


class ScheduleState(NamedTuple):
    """Progress of a learning-rate schedule, linear in the steps until the next update.

    Attributes:
        share: Share of the schedule that was done at the last update, 0 to 1.
        step: Number of steps at the last update.
        share_a_step: Share of the schedule that each further step does.
        used_s: Seconds used up to the last update, measuring excluded.
    """

    share: float
    step: float
    share_a_step: float
    used_s: float = 0.0

    @classmethod
    def of_steps(cls, num_steps: int) -> ScheduleState:
        """Return the schedule of a training without a time budget."""
        return cls(0.0, 0.0, 1 / (num_steps + 1))

    def share_after(self, step: int) -> float:
        """Return the share of the schedule that is done after a step, 0 to 1."""
        return self.share + (step - self.step) * self.share_a_step

    def has_ended(self, step: int) -> bool:
        """Check whether the schedule has ended after a step, so that another step would change nothing."""
        return step > 0 and self.share_after(step + 1) >= 1 - 1e-6


class BudgetScheduler:
    """Scheduler that keeps training within a time budget by stretching the learning-rate schedule.

    A schedule that is cut off before its learning rate has decayed loses several points of accuracy. So the
    remaining steps are estimated again after every percent of the time, and the remaining schedule is spread
    over them; it ends, at 0, with the budget. If the machine was suspended so long that almost no steps
    would remain, the schedule is compressed by at most a factor of ten, and the budget is exceeded by up to
    a tenth. The budget starts when the scheduler is created.
    """

    def __init__(self, plan: TimePlan, steps_an_epoch: int, *, clock: Clock = time.perf_counter) -> None:
        self.state = ScheduleState(0.0, 0.0, 0.0)
        self.step = 0
        self._plan = plan
        self._steps_an_epoch = steps_an_epoch
        self._clock = clock
        self._began = clock()
        self._speed = plan.speed
        self._since: tuple[float, int] | None = None
        """Time and step from which the speed is measured; None before the first step was compiled."""
        self._validation_began = 0.0
        self._validations_s = deque([plan.speed.validation_s], maxlen=3)
        """Duration of the last validation passes, whose median ignores one that stalls."""

    def begin(self, saved: ScheduleState, step: int) -> ScheduleState:
        """Start, or resume from the saved state."""
        self.step = step
        self._began -= saved.used_s
        self.state = saved
        return self.update()

    def finish_step(self) -> bool:
        """Count a step; return whether it is time to :meth:`update` the schedule."""
        self.step += 1
        if self._since is None:
            self._since = (self._clock(), self.step)
            return True
        return self._clock() - self._since[0] >= _UPDATE * self._plan.budget_s

    def begin_validation(self) -> None:
        """Record the start of a validation pass."""
        self._validation_began = self._clock()

    def end_validation(self) -> None:
        """Exclude the validation pass from the time for steps."""
        took = self._clock() - self._validation_began
        self._validations_s.append(took)
        self._speed = self._speed._replace(validation_s=statistics.median_low(self._validations_s))
        if self._since is not None:
            self._since = (self._since[0] + took, self._since[1])

    @property
    def ended(self) -> bool:
        """True if the schedule has ended."""
        return self.state.has_ended(self.step)

    @property
    def num_epochs(self) -> float:
        """Forecast of the number of epochs."""
        left = (1 - self.state.share) / self.state.share_a_step - 1 if self.state.share_a_step else 0.0
        return (self.state.step + left) / self._steps_an_epoch

    def update(self) -> ScheduleState:
        """Update the schedule from the remaining time and the speed of the last steps."""
        now = self._clock()
        used_s = now - self._began
        if self.ended:
            self.state = self.state._replace(used_s=used_s)
            return self.state
        if self._since is not None:
            if self.step > self._since[1]:
                step_s = (now - self._since[0]) / (self.step - self._since[1])
                self._speed = self._speed._replace(step_s=(self._speed.step_s + step_s) / 2)
            self._speed = self._speed._replace(start_s=0.0)
            self._since = (now, self.step)
        share = self.state.share_after(self.step)
        left_s = self._plan.budget_s - self._plan.measuring_s - used_s
        steps = round(_epochs(left_s, self._speed, self._steps_an_epoch) * self._steps_an_epoch)
        if share > 0:
            steps = max(steps, math.ceil((1 - share) / (_STEEPEST * share / self.step)))
        self.state = ScheduleState(share, self.step, (1 - share) / (max(steps, 1) + 1), used_s)
        return self.state
