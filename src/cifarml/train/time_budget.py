"""Training for a given time: how wide a network pays, and a pace that is kept while the machine drifts.

Everything here is arithmetic on a clock; :mod:`cifarml.train.speed_probe` looks at the machine.
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

__all__ = ["Clock", "Pace", "Pacer", "Speed", "TimePlan", "plan_time"]

Clock = Callable[[], float]
"""Gives seconds since some moment, as :func:`time.perf_counter` does."""

_MEASURING: Final = 0.05
"""Share of the budget that may go into measuring; the narrowest network is measured in any case."""
_COST: Final = 1.5
"""The time for a step grows about as the width of the network to this power, on CPUs that we measured."""
_UPDATE: Final = 0.01
"""After so much of the budget the pace is set anew."""
_STEEPEST: Final = 10
"""However late it is, the schedule goes on no faster than so many times the pace up to now."""


class Speed(NamedTuple):
    """How fast a network trains here, in seconds.

    Attributes:
        start_s: For the first step, in which the network is traced and compiled.
        step_s: For each further step.
        validation_s: For a look at the validation images.
        finish_s: For what follows the last step.
    """

    start_s: float
    step_s: float
    validation_s: float
    finish_s: float = 0.0


class TimePlan(NamedTuple):
    """A time budget, and what was measured for it; it is kept in config.json.

    Attributes:
        budget_s: All the time there is, in seconds.
        measuring_s: What measuring has taken of it.
        speed: That of the network that was chosen.
        num_epochs: What fits, as far as the machine stays as fast as that; 1.5 are an epoch and a half.
    """

    budget_s: float
    measuring_s: float
    speed: Speed
    num_epochs: float

    def to_json(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return self._asdict() | {"speed": self.speed._asdict()}


def plan_time(
    budget_s: float,
    sizes: Sequence[Size],
    steps_an_epoch: int,
    measure: Callable[[tuple[int, ...]], Speed],
    *,
    clock: Clock = time.perf_counter,
) -> tuple[Size, TimePlan]:
    """Choose the widest network whose least number of epochs fits into the time.

    The narrowest is measured, then whichever seems to fit after that, until the choice is one that was
    measured or 5 % of the time are used up.

    Args:
        budget_s: Seconds for measuring, compiling, training and what follows the last step.
        sizes: The networks to choose from, narrowest first.
        steps_an_epoch: Steps in a pass over the images.
        measure: Measures the network of these widths.
        clock: What the time is.

    Raises:
        TrainingError: If there is no time for a single step.
    """
    started, dearest = clock(), 0.0
    measured: dict[tuple[int, ...], Speed] = {}
    choice = sizes[0]
    while choice.widths not in measured:
        before = clock()
        if measured and before - started + dearest > _MEASURING * budget_s:
            break
        measured[choice.widths] = measure(choice.widths)
        dearest = max(dearest, clock() - before)
        left_s = budget_s - (clock() - started)
        fitting = [
            size
            for size in sizes
            if _epochs(left_s, _guess(measured, size), steps_an_epoch) >= size.least_epochs
        ]
        choice = (fitting or sizes)[-1 if fitting else 0]
    measuring_s = clock() - started
    speed = _guess(measured, choice)
    num_epochs = _epochs(budget_s - measuring_s, speed, steps_an_epoch)
    if num_epochs * steps_an_epoch < 1:
        least = math.ceil(1.2 * (measuring_s + sum(speed)))
        raise TrainingError(
            f"{round(budget_s, 2):g} s are too short: "
            f"measuring, compiling and one step take about {least} s here",
            hint=f"at the very least: --time-budget {least}s",
        )
    return choice, TimePlan(budget_s, measuring_s, speed, num_epochs)


def _guess(measured: dict[tuple[int, ...], Speed], size: Size) -> Speed:
    """Return what was measured, or else an estimate from the measured network that is nearest in width."""
    if size.widths in measured:
        return measured[size.widths]
    ratios = {widths: sum(size.widths) / sum(widths) for widths in measured}
    nearest = min(ratios, key=lambda widths: abs(math.log(ratios[widths])))
    cost = ratios[nearest] ** _COST
    start_s, step_s, validation_s, finish_s = measured[nearest]
    return Speed(start_s, step_s * cost, validation_s * cost, finish_s * cost)


def _epochs(left_s: float, speed: Speed, steps_an_epoch: int) -> float:
    """Return how many epochs fit; the last look at the validation images comes in any case."""
    left_s -= speed.start_s + speed.validation_s + speed.finish_s
    return max(left_s, 0.0) / (speed.step_s * steps_an_epoch + speed.validation_s)


class Pace(NamedTuple):
    """Where a schedule is, and how fast it goes on: a straight line, until it is set anew.

    Attributes:
        share: How much of the schedule was done, 0 to 1, when the pace was set.
        step: Steps that were done by then.
        share_a_step: How much of it each further step does.
        used_s: Seconds that were used by then, after measuring.
    """

    share: float
    step: float
    share_a_step: float
    used_s: float = 0.0

    @classmethod
    def of_steps(cls, num_steps: int) -> Pace:
        """Return the pace of a training of so many steps, whatever time it takes."""
        return cls(0.0, 0.0, 1 / (num_steps + 1))

    def share_after(self, step: int) -> float:
        """Return how much of the schedule is done after so many steps, 0 to 1."""
        return self.share + (step - self.step) * self.share_a_step

    def has_ended(self, step: int) -> bool:
        """Tell whether the schedule is at its end after so many steps, so that one more changes nothing."""
        return step > 0 and self.share_after(step + 1) >= 1 - 1e-6


class Pacer:
    """Keeps a training to its time: spreads the rest of the schedule over the steps that still fit.

    A schedule that is cut off before its learning rate has fallen loses several points of accuracy. So
    the steps that are left are estimated anew every percent of the time, and the rest of the schedule is
    spread over them; it ends, at 0, when the time does. Where the machine has stood still so long that
    nearly none would be left, the rest is done ten times as fast as up to then, and the budget is
    exceeded by up to a tenth.

    Args:
        plan: The budget, and the speed to begin with.
        steps_an_epoch: Steps in a pass over the images.
        clock: What the time is; it runs from now on.
    """

    def __init__(self, plan: TimePlan, steps_an_epoch: int, *, clock: Clock = time.perf_counter) -> None:
        self.pace = Pace(0.0, 0.0, 0.0)
        self.step = 0
        self._plan = plan
        self._steps_an_epoch = steps_an_epoch
        self._clock = clock
        self._began = clock()
        self._speed = plan.speed
        self._since: tuple[float, int] | None = None
        """Time and step that the speed is measured from; None before the first step was compiled."""
        self._looked = 0.0
        self._looks_s = deque([plan.speed.validation_s], maxlen=3)
        """What the last looks took; one that stalls is no sign of what the next ones take."""

    def begin(self, saved: Pace, step: int) -> Pace:
        """Begin, or go on from a checkpoint: with the pace that was kept, after so many steps."""
        self.step = step
        self._began -= saved.used_s
        self.pace = saved
        return self.update()

    def finish_step(self) -> bool:
        """Count a step; tell whether it is time to :meth:`update` the pace."""
        self.step += 1
        if self._since is None:
            self._since = (self._clock(), self.step)
            return True
        return self._clock() - self._since[0] >= _UPDATE * self._plan.budget_s

    def start_look(self) -> None:
        """Note that the validation images are looked at now."""
        self._looked = self._clock()

    def finish_look(self) -> None:
        """Note how long that took; it is no time for steps."""
        took = self._clock() - self._looked
        self._looks_s.append(took)
        self._speed = self._speed._replace(validation_s=statistics.median_low(self._looks_s))
        if self._since is not None:
            self._since = (self._since[0] + took, self._since[1])

    @property
    def ended(self) -> bool:
        """Whether the schedule is at its end."""
        return self.pace.has_ended(self.step)

    @property
    def num_epochs(self) -> float:
        """How many epochs it is going to be, as it looks now."""
        left = (1 - self.pace.share) / self.pace.share_a_step - 1 if self.pace.share_a_step else 0.0
        return (self.pace.step + left) / self._steps_an_epoch

    def update(self) -> Pace:
        """Set the pace anew, from the time that is left and the speed of the last steps."""
        now = self._clock()
        used_s = now - self._began
        if self.ended:
            self.pace = self.pace._replace(used_s=used_s)
            return self.pace
        if self._since is not None:
            if self.step > self._since[1]:
                step_s = (now - self._since[0]) / (self.step - self._since[1])
                self._speed = self._speed._replace(step_s=(self._speed.step_s + step_s) / 2)
            self._speed = self._speed._replace(start_s=0.0)
            self._since = (now, self.step)
        share, left_s = (
            self.pace.share_after(self.step),
            self._plan.budget_s - self._plan.measuring_s - used_s,
        )
        steps = round(_epochs(left_s, self._speed, self._steps_an_epoch) * self._steps_an_epoch)
        if share > 0:
            steps = max(steps, math.ceil((1 - share) / (_STEEPEST * share / self.step)))
        self.pace = Pace(share, self.step, (1 - share) / (max(steps, 1) + 1), used_s)
        return self.pace
