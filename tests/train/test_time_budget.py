"""Time budget: model size, schedule, and its accuracy when the machine's speed drifts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cifarml import Dataset, TrainConfig, load_dataset, train_model
from cifarml.errors import SettingsError, TrainingError
from cifarml.model.recipe import Size
from cifarml.progress import Progress
from cifarml.train.inputs.keras_feed import feed_training
from cifarml.train.optimizers.schedule import OneCycle, build_optimizer
from cifarml.train.plan import Plan
from cifarml.train.speed_probe import autotune
from cifarml.train.time_budget import BudgetScheduler, ScheduleState, Speed, TimePlan, choose_model_size
from tests.conftest import CommandLine
from tests.processes import run_on

SIZES = (Size((16, 64, 64), 0), Size((24, 96, 96), 1.5), Size((32, 128, 128), 3), Size((64, 256, 256), 8))
STEPS = 176
"""Steps in an epoch of 45,000 images in batches of 256."""


class Clock:
    """Clock whose time is set by the test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Machine:
    """Simulated machine: a second to compile, and a time per step that is a power of the width."""

    def __init__(self, step_s: float, power: float = 1.4) -> None:
        self.clock, self.step_s, self.power = Clock(), step_s, power
        self.measured: list[tuple[int, ...]] = []

    def speed(self, widths: tuple[int, ...]) -> Speed:
        step_s = self.step_s * (sum(widths) / sum(SIZES[0].widths)) ** self.power
        return Speed(1.0, step_s, 7 * step_s, 10 * step_s)

    def measure(self, widths: tuple[int, ...]) -> Speed:
        self.measured.append(widths)
        speed = self.speed(widths)
        self.clock.now += speed.start_s + 5 * speed.step_s
        return speed

    def plan(self, budget_s: float, sizes: tuple[Size, ...] = SIZES) -> tuple[Size, TimePlan]:
        return choose_model_size(budget_s, sizes, STEPS, self.measure, clock=self.clock)


def test_a_larger_budget_chooses_a_wider_network() -> None:
    chosen = [Machine(0.05).plan(seconds)[0] for seconds in (5, 20, 45, 90, 200, 500, 1500, 10_000)]
    widths = [sum(size.widths) for size in chosen]
    assert widths == sorted(widths)
    assert {size.widths for size in chosen} == {size.widths for size in SIZES}


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("budget_s", [60, 150, 600, 3000])
def test_the_widest_network_that_fits_is_chosen(budget_s: float, power: float) -> None:
    """It holds for any cost of wider networks, and if there is time enough to measure it."""
    machine = Machine(0.05, power)
    size, plan = machine.plan(budget_s)
    if size.widths in machine.measured:
        assert plan.speed == machine.speed(size.widths)
        assert plan.num_epochs >= size.least_epochs
    assert machine.measured[0] == SIZES[0].widths
    assert plan.measuring_s == pytest.approx(machine.clock.now - 1000)
    dearest = max(1 + 5 * machine.speed(widths).step_s for widths in machine.measured)
    assert plan.measuring_s <= 0.05 * budget_s + dearest + 1.25


def test_measuring_takes_a_small_share_of_the_budget() -> None:
    machine = Machine(0.05)
    machine.plan(24)
    assert machine.measured == [SIZES[0].widths]
    machine = Machine(0.05)
    machine.plan(2000)
    assert len(machine.measured) > 1


def test_a_budget_that_is_too_short_names_the_least() -> None:
    with pytest.raises(TrainingError, match="too short") as caught:
        Machine(0.05).plan(1.5)
    least = str(caught.value.hint).split()[-1]
    assert least.endswith("s")
    Machine(0.05).plan(float(least[:-1]))  # this budget is sufficient


def rate(cycle: OneCycle, step: int) -> float:
    return float(keras.ops.convert_to_numpy(cycle(step)))


class Trained:
    """Simulated training: the learning rate of each step, and the time it took."""

    def __init__(
        self,
        budget_s: float,
        step_s: Callable[[float], float],
        *,
        validation_s: Callable[[float], float] = lambda _: 0.0,
        finish_s: float = 0.0,
        expected_step_s: float = 0.1,
        steps_an_epoch: int = 100,
    ) -> None:
        self.clock = Clock()
        speed = Speed(1.0, expected_step_s, validation_s(0), finish_s)
        scheduler = BudgetScheduler(TimePlan(budget_s, 0.0, speed, 1.0), steps_an_epoch, clock=self.clock)
        state = scheduler.begin(ScheduleState(0, 0, 0), 0)
        self.clock.now += 1.0
        seen: list[tuple[ScheduleState, int]] = []
        while not scheduler.ended:
            seen.append((state, scheduler.step))
            self.clock.now += step_s(self.clock.now - 1000)
            if scheduler.finish_step():
                state = scheduler.update()
            if scheduler.step % steps_an_epoch == 0 or scheduler.ended:
                scheduler.begin_validation()
                self.clock.now += validation_s(self.clock.now - 1000)
                scheduler.end_validation()
                state = scheduler.update()
            assert scheduler.step < 100_000
        self.took_s = self.clock.now + finish_s - 1000
        states, steps = zip(*seen, strict=True)
        cycle = OneCycle(1.0, 0.2, np.asarray(states, np.float32).T)  # all steps at once
        self.rates: list[float] = keras.ops.convert_to_numpy(cycle(np.asarray(steps))).tolist()


DRIFTS: dict[str, Callable[[float], float]] = {
    "as measured": lambda _: 0.1,
    "four times as slow": lambda _: 0.4,
    "four times as fast": lambda _: 0.025,
    "slower and slower": lambda now: 0.05 + now / 300,
    "faster and faster": lambda now: 0.3 / (1 + now / 10),
    "alternating": lambda now: 0.05 if int(now / 7) % 2 else 0.2,
    "slow at the end": lambda now: 0.1 if now < 50 else 0.5,
}


@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.parametrize(("validation_s", "finish_s"), [(0.0, 0.0), (2.0, 0.0), (0.0, 8.0)])
def test_the_budget_is_kept_and_the_learning_rate_decays_to_0(
    drift: str, validation_s: float, finish_s: float
) -> None:
    trained = Trained(60, DRIFTS[drift], validation_s=lambda _: validation_s, finish_s=finish_s)
    assert trained.took_s == pytest.approx(60, rel=0.05)
    assert max(trained.rates) > 0.8
    assert trained.rates[-1] < 0.05
    peak = int(np.argmax(trained.rates))
    assert trained.rates[peak:] == sorted(trained.rates[peak:], reverse=True)
    assert max(np.diff(trained.rates)) < 0.5, "no jumps"


def once_after(moment: float, seconds: float, *, usually: float) -> Callable[[float], float]:
    """Return a function of time that is constant, except at the first call after a moment."""
    waiting = [seconds]
    return lambda now: waiting.pop() if now > moment and waiting else usually


@pytest.mark.parametrize("moment", [10, 30, 50])
def test_the_learning_rate_decays_to_0_after_a_suspension(moment: float) -> None:
    """If a laptop sleeps through the rest of the budget, the decay is compressed, not skipped."""
    trained = Trained(60, once_after(moment, 300.0, usually=0.1))
    assert trained.rates[-1] < 0.1
    assert trained.took_s - 300 < 60 * 1.1


@pytest.mark.parametrize("moment", [5, 7, 9])
def test_one_slow_validation_does_not_end_a_training_early(moment: float) -> None:
    """The estimate does not assume that all further validation passes are as slow."""
    validation_s = once_after(moment, 3.0, usually=0.1)
    trained = Trained(15, lambda _: 0.2, validation_s=validation_s, expected_step_s=0.2, steps_an_epoch=6)
    assert trained.took_s == pytest.approx(15, rel=0.05)
    assert trained.rates[-1] < 0.05


def test_a_resumed_training_continues_its_schedule() -> None:
    clock = Clock()
    plan = TimePlan(100, 5.0, Speed(0.0, 0.1, 0.0), 1.0)
    first = BudgetScheduler(plan, 100, clock=clock)
    first.begin(ScheduleState(0, 0, 0), 0)
    for _ in range(300):
        clock.now += 0.1
        if first.finish_step():
            first.update()
    kept = first.update()
    clock.now += 5000  # until the run is resumed
    second = BudgetScheduler(plan, 100, clock=clock)
    clock.now += 0.5
    state = second.begin(ScheduleState(*np.asarray(kept, np.float32).tolist()), 300)
    assert state.share == pytest.approx(kept.share, abs=1e-5)
    assert state.used_s == pytest.approx(30.5, abs=1e-3)
    while not second.ended:
        clock.now += 0.1
        if second.finish_step():
            second.update()
    assert second.update().used_s == pytest.approx(95, rel=0.03)


def test_an_ended_schedule_is_not_resumed() -> None:
    scheduler = BudgetScheduler(TimePlan(10, 0.0, Speed(0.0, 0.1, 0.0), 1.0), 100, clock=Clock())
    scheduler.begin(ScheduleState(0.9, 90, 0.05, 9.9), 91)
    assert scheduler.ended


def test_a_plan_survives_json(drawn: Dataset) -> None:
    config = TrainConfig(time_budget_s=60.0, seed=3)
    timing = Machine(0.05).plan(200)[1]
    plan = Plan.make(config, drawn)._replace(time=timing)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))).time == timing


def test_a_plan_describes_its_reasons(drawn: Dataset) -> None:
    def why(num_images: int, widths: tuple[int, ...] = (), **settings: Any) -> str:
        plan = Plan.make(TrainConfig(**settings), drawn)
        if widths:
            timing = TimePlan(60, 1.0, Speed(1.0, 0.1, 0.0), 4.0)
            plan = plan._replace(time=timing, recipe=plan.recipe.changed(widths=widths))
        return plan.describe(num_images).splitlines()[-1]

    assert "fewer than 10,000 images" in why(200)
    assert "10,000 images or more" in why(10_000)
    assert "need at least" not in why(50_000)
    assert "widths 64/256/256 need at least 8 epochs" in why(50_000, (32, 128, 128))
    assert "need at least" not in why(50_000, (64, 256, 256))
    assert "bfloat16" in why(200)
    assert "bfloat16" not in why(200, precision="float32"), "it was requested"
    assert why(200, preset="tutorial") == "Why: the article uses these settings"


@pytest.mark.parametrize("values", [[], {}, {"budget_s": "long"}, {"budget_s": 1, "measuring_s": 1}, 7])
def test_invalid_time_plans(drawn: Dataset, values: object) -> None:
    written = json.loads(json.dumps(Plan.make(TrainConfig(), drawn).to_json()))
    written["machine"]["time_budget"] = values
    with pytest.raises(ValueError, match="time_budget"):
        Plan.from_json(written)


def has_ended(optimizer: keras.optimizers.Optimizer) -> bool:
    state = ScheduleState(*np.asarray(keras.ops.convert_to_numpy(optimizer.schedule_state)).tolist())
    return state.has_ended(int(optimizer.iterations))


@pytest.mark.parametrize("optimizer", ["muon", "rmsprop"])
def test_the_schedule_state_is_a_variable_of_the_optimizer(optimizer: str, drawn: Dataset) -> None:
    """Checkpoints save the optimizer's variables."""
    from cifarml.model.presets import PRESETS

    recipe = PRESETS["fast" if optimizer == "muon" else "tutorial"].choose_recipe(160, 10)
    built = build_optimizer(recipe, 0, has_time_budget=True)
    assert any(variable is built.schedule_state for variable in built.variables)
    assert not has_ended(built)
    built.iterations.assign(10)
    built.schedule_state.assign(np.array([1.0, 10, 0.01, 3.0], np.float32))
    assert has_ended(built)
    built.schedule_state.assign(np.array([0.5, 10, 0.01, 3.0], np.float32))
    assert not has_ended(built)
    if optimizer == "muon":
        assert rate(built._learning_rate, 10) == pytest.approx(recipe.learning_rate * 0.49 / 0.9, rel=1e-4)


def test_widths_of_the_config_are_not_searched(drawn: Dataset) -> None:
    config = TrainConfig(time_budget_s=60.0, widths=(8,), batch_size=40)
    splits = drawn.split()
    plan = autotune(Plan.make(config, splits.train), splits)
    assert plan.recipe.widths == (8,)
    assert plan.time is not None
    assert plan.time.num_epochs > 1
    assert "need at least" not in plan.describe(len(splits.train))


def test_without_a_budget_the_schedule_counts_steps() -> None:
    cycle = OneCycle(1.0, 0.5, ScheduleState.of_steps(9))
    assert [rate(cycle, step) for step in (0, 4, 8)] == pytest.approx([0.2, 1.0, 0.2])
    assert rate(cycle, 9) == rate(cycle, 20) == 0


def test_training_keeps_its_time_budget(tmp_path: Path) -> None:
    """The budget is twice the minimum on this machine; its precision is tested above on a simulated clock."""
    dataset = load_dataset("drawn:400")
    settings: dict[str, Any] = {"widths": (8, 16), "batch_size": 40}
    with pytest.raises(TrainingError, match=r"0\.01 s is too short: .* about \d+ s here$") as caught:
        train_model(TrainConfig(time_budget_s=0.01, **settings), dataset, tmp_path / "run")
    assert not list(tmp_path.iterdir())
    budget_s = 2 * float(str(caught.value.hint).rpartition("--time-budget ")[2].removesuffix("s"))
    reports: list[Progress] = []
    config = TrainConfig(time_budget_s=budget_s, **settings)
    run = train_model(config, dataset, tmp_path / "run", on_progress=reports.append)
    assert run.info["interrupted"] is False
    chosen = json.loads((run.path / "config.json").read_text())
    history = json.loads((run.path / "history.json").read_text())
    assert len(history["val_accuracy"]) == run.info["num_epochs"] >= 1
    assert chosen["machine"]["time_budget"]["budget_s"] == budget_s
    assert 0 < chosen["machine"]["time_budget"]["measuring_s"] < budget_s
    assert chosen["machine"]["time_budget"]["speed"]["step_s"] > 0
    (line,) = [progress.line for progress in reports if progress.line.startswith("fast")]
    assert line.startswith(f"fast in {budget_s:g} s: ")
    assert "images/s" in line
    done = [progress.done for progress in reports if progress.task == "training"]
    assert done == sorted(done)


TRAIN = """
import itertools, json
import keras, numpy as np
from cifarml import TrainConfig, load_dataset
from cifarml.train.inputs.keras_feed import feed_training
from cifarml.train.time_budget import BudgetScheduler, Speed, TimePlan
from cifarml.train.callbacks.time_budget import TimeBudgetCallback
from cifarml.train.network import compile_network
from cifarml.train.plan import Plan

images = load_dataset("drawn:400").train
plan = Plan.make(TrainConfig(time_budget_s=8, batch_size=40), images)
time = TimePlan(8, 0.0, Speed(1.0, 0.05, 0.0), 3.0)
plan = plan._replace(time=time, recipe=plan.recipe.changed(widths=(8, 16)))
batches = plan.batches(images)
ticks = itertools.count()
scheduler = BudgetScheduler(time, len(batches), clock=lambda: 0.02 * next(ticks))  # on any machine
network = compile_network(plan, batches)
keep_time = TimeBudgetCallback(scheduler, network.optimizer)
network.fit(**feed_training(batches), epochs=10_000, callbacks=[keep_time], verbose=0)
optimizer = network.optimizer
state = np.asarray(keras.ops.convert_to_numpy(optimizer.schedule_state)).tolist()
steps = int(optimizer.iterations)
rates = [float(keras.ops.convert_to_numpy(optimizer._learning_rate(step))) for step in (steps - 1, steps)]
print(json.dumps({"state": state, "steps": steps, "counted": scheduler.step, "rates": rates}))
"""


@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.exhaustive)])
def test_the_compiled_step_reads_the_schedule_state_on_each_backend(backend: str) -> None:
    """The variable changes within an epoch, and the compiled step uses the new value."""
    found: dict[str, Any] = json.loads(run_on(backend, TRAIN))
    share, step, share_a_step, used_s = found["state"]
    assert found["steps"] == found["counted"] > 10
    assert used_s == pytest.approx(8, rel=0.05)
    assert share + (found["steps"] - step) * share_a_step == pytest.approx(1, abs=0.05)
    assert found["rates"][0] < 0.01
    assert found["rates"][1] < 1e-6


def test_a_step_after_the_schedule_has_ended_changes_nothing(drawn: Dataset) -> None:
    from cifarml.train.network import compile_network
    from cifarml.train.plan import Plan

    plan = Plan.make(TrainConfig(time_budget_s=60), drawn.train)
    plan = plan._replace(
        time=TimePlan(60, 0.0, Speed(1.0, 0.1, 0.0), 1.0), recipe=plan.recipe.changed(widths=(8, 16))
    )
    batches = plan.batches(drawn.train)
    network = compile_network(plan, batches)
    kept = network.get_layer("logits").get_weights()[0]
    for state, changed in ((ScheduleState(1.0, 0, 0.01), False), (ScheduleState(0.5, 0, 0.01), True)):
        network.optimizer.schedule_state.assign(np.array(state, np.float32))
        network.fit(**feed_training(batches) | {"steps_per_epoch": 1}, verbose=0)
        assert (network.get_layer("logits").get_weights()[0] != kept).any() == changed


def test_a_budget_and_epochs_cannot_be_combined() -> None:
    with pytest.raises(SettingsError, match="cannot be combined"):
        TrainConfig(time_budget_s=10, num_epochs=3)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e9, "soon"])
def test_budgets_out_of_range(seconds: Any) -> None:
    with pytest.raises(SettingsError, match="time_budget_s"):
        TrainConfig(time_budget_s=seconds)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("120s", 120), ("2m", 120), ("1h30m", 5400), ("1h", 3600), ("1m30s", 90), ("1.5s", 1.5)],
)
def test_durations(text: str, expected: float) -> None:
    from cifarml.cli.options import seconds

    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text", ["", "s", "two minutes", "-3s", "2m1h", "1e9", "5 m", "1h30", "٣s", "3.", "nan"]
)
def test_invalid_durations(text: str) -> None:
    import typer

    from cifarml.cli.options import seconds

    with pytest.raises(typer.BadParameter, match="1h30m"):
        seconds(text)


def test_command_line(cifarml: CommandLine, tmp_path: Path) -> None:
    wrong = cifarml("train", "--data", "drawn:200", "--time-budget", "soon")
    assert wrong.returncode == 2
    assert "1h30m" in wrong.stderr
    both = cifarml("train", "--data", "drawn:200", "--time-budget", "1m", "--epochs", "3")
    assert both.returncode == 1
    assert "cannot be combined" in both.stderr
    short = cifarml("train", "--data", "drawn:200", "--time-budget", "0.1")
    assert short.returncode == 1
    assert "too short" in short.stderr
    flags = ("--data", "az://images/b.zip", "--time-budget", "2m", "--device", "gpu", "--yaml", "plan")
    plan = cifarml("train", "--compute", "gpu", *flags, env={"AZURE_STORAGE_ACCOUNT": "images"})
    assert plan.returncode == 0, plan.stderr
    texts = [path.read_text() for path in (tmp_path / "plan").rglob("*.yml")]
    assert any("'--config' 'train.json'" in text for text in texts)
    (settings,) = (tmp_path / "plan").rglob("train.json")
    config = TrainConfig.load(settings)
    assert config == TrainConfig(time_budget_s=120.0, device="gpu")
