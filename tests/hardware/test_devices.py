"""Devices, precision, replicas, XLA and out-of-memory errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from cifarml import Dataset, TrainConfig, load_dataset, train_model
from cifarml.errors import SettingsError, TrainingError
from cifarml.hardware.devices import choose_devices, choose_precision, cpu_features, describe_machine
from cifarml.train.distribution import on_devices
from cifarml.train.inputs.batches import Batches
from cifarml.train.out_of_memory import is_out_of_memory, oom_hint
from cifarml.train.plan import Plan
from cifarml.train.speed_probe import choose_compiler, measure_speed
from cifarml.train.time_budget import Speed
from tests.conftest import CommandLine
from tests.processes import run_on
from tests.runs import TrainedRuns

ON_CPU = not tf.config.list_physical_devices("GPU")
only_on_cpu = pytest.mark.skipif(not ON_CPU, reason="requires a machine without a GPU")


def run_code(code: str, backend: str, **variables: str) -> dict[str, Any]:
    """Run Python code on a backend, and parse the JSON that it prints."""
    found: dict[str, Any] = json.loads(run_on(backend, code, **variables))
    return found


@only_on_cpu
@pytest.mark.parametrize("name", ["auto", "cpu", "CPU", "cpu:0", "cpu:0,0"])
def test_choose_devices_on_cpu(name: str) -> None:
    assert choose_devices(name) == ("cpu:0",)


@pytest.mark.parametrize(
    "name", ["gpu:99", "tpu", "cpu:7", "cpu:0,7", "cpu:", "cpu:x", "", "gpu:0,", "cpu:-1"]
)
def test_choose_devices_refuses_missing_devices(name: str) -> None:
    with pytest.raises(SettingsError, match="cpu:0") as caught:
        choose_devices(name)
    assert "--device" in str(caught.value.hint)


@only_on_cpu
def test_command_line_names_available_devices(cifarml: CommandLine, tmp_path: Path) -> None:
    done = cifarml("train", "--data", "drawn:200", "--device", "gpu:0")
    assert done.returncode == 1
    assert "tensorflow has no device 'gpu:0'. Available devices: cpu:0" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_describe_machine_is_one_line() -> None:
    line = describe_machine(("cpu:0",))
    assert "\n" not in line
    assert " core" in line
    assert "as 2 devices" in describe_machine(("cpu:0", "cpu:1"))


@pytest.mark.parametrize(
    ("features", "expected"),
    [((), "float32"), (("avx2", "avx512_bf16"), "mixed_bfloat16"), (("amx_bf16",), "mixed_bfloat16")],
)
def test_precision_depends_on_processor(features: tuple[str, ...], expected: str) -> None:
    assert choose_precision(("cpu:0",), features) == expected


@pytest.mark.exhaustive
@pytest.mark.skipif(
    choose_precision(("cpu:0",)) == "float32",
    reason=f"this processor has no fast bfloat16: {cpu_features()}",
)
def test_chosen_precision_trains_like_float32(tmp_path: Path) -> None:
    dataset = load_dataset("drawn:1000")
    losses, right = [], []
    precision: Any
    for precision in ("float32", choose_precision(("cpu:0",))):
        config = TrainConfig(num_epochs=4, precision=precision, device="cpu", widths=(16, 64, 64))
        run = train_model(config, dataset, tmp_path / precision)
        losses.append(json.loads((run.path / "history.json").read_text())["loss"])
        predicted = run.predictor().predict_images(dataset.images).argmax(axis=1)
        right.append((predicted == dataset.labels).mean())
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1], "the precision had no effect"
    assert min(right) > 0.4
    assert abs(right[0] - right[1]) < 0.08


REPLICAS = """
import json, pathlib, tempfile
import keras, numpy as np
if keras.config.backend() == "tensorflow":
    import tensorflow as tf
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from cifarml import TrainConfig, load_dataset, train_model
dataset = load_dataset("drawn:200")
found = {}
with tempfile.TemporaryDirectory() as folder:
    for device in ("cpu:0", "cpu:0,1"):
        config = TrainConfig(
            num_epochs=2, batch_size=40, precision="float32", device=device, widths=(8, 16)
        )
        run = train_model(config, dataset, pathlib.Path(folder, device.replace(":", "-")))
        chosen = run.read_json("config.json")["machine"]["devices"]
        found[device] = run.read_json("history.json") | {"chosen": chosen}
        assert run.info["onnx_difference"] <= 1e-4
print(json.dumps(found))
"""


@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.exhaustive)])
def test_two_replicas_train_like_one_device(backend: str) -> None:
    """The same batches give the same loss on one device and on two, up to noise.

    Each of TensorFlow's replicas normalises over half a batch of 40, which adds noise.
    """
    found = run_code(REPLICAS, backend, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    one, both = found["cpu:0"], found["cpu:0,1"]
    assert (one["chosen"], both["chosen"]) == (["cpu:0"], ["cpu:0", "cpu:1"])
    assert both["loss"] == pytest.approx(one["loss"], rel=0.08 if backend == "tensorflow" else 1e-3)


SHARED = """
import json
import keras, numpy as np, tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from cifarml.model.convnet import build_network
from cifarml.train.distribution import on_devices
random = np.random.default_rng(0)
half = random.integers(0, 256, (16, 32, 32, 3), np.uint8)
images, targets = np.tile(half, (2, 1, 1, 1)), np.tile(np.eye(16, dtype=np.float32), (2, 1))
trained, places = [], []
for devices in (["cpu:0"], ["cpu:1"], ["cpu:0", "cpu:1"]):
    keras.utils.set_random_seed(0)
    with on_devices(devices):
        network = build_network(16, (8, 16), images=images)
        network.compile(
            keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
            keras.losses.CategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )
        network.fit(images, targets, batch_size=32, epochs=5, shuffle=False, verbose=0)
    trained.append(network.get_weights())
    copies = getattr(network.layers[-1].kernel.value, "values", [network.layers[-1].kernel.value])
    places.append([copy.device[-5:] for copy in copies])
differences = [float(np.ptp(weights, axis=0).max()) for weights in zip(*trained)]
print(json.dumps({"differences": differences, "places": places}))
"""


@pytest.mark.exhaustive
def test_replicas_with_equal_batches_match_one_device() -> None:
    """Each replica receives the same 16 images, so weights and moving averages are equal."""
    found = run_code(SHARED, "tensorflow")
    assert found["places"] == [["CPU:0"], ["CPU:1"], ["CPU:0", "CPU:1"]]
    assert max(found["differences"]) < 1e-3


ON_FOUR = """
import json
import keras
from cifarml import TrainConfig, load_dataset
from cifarml.errors import SettingsError
from cifarml.train.plan import Plan
from cifarml.train.distribution import on_devices
with on_devices(("cpu:2",)):
    place = str(keras.Variable([1.0]).value.device)
try:
    Plan.make(TrainConfig(batch_size=3, device="cpu"), load_dataset("drawn:200"))
except SettingsError as error:
    print(json.dumps({"message": error.message, "hint": error.hint, "place": place}))
"""


@pytest.mark.parametrize(("batch_size", "num_replicas"), [(64, 3), (50, 4), (7, 2), (8, 8), (1000, 3)])
def test_batches_are_divisible_by_replicas(drawn: Dataset, batch_size: int, num_replicas: int) -> None:
    recipe = Plan.make(TrainConfig(batch_size=batch_size), drawn).recipe
    batches = Batches(drawn, recipe, seed=0, num_replicas=num_replicas)
    sizes = [len(images) for images, _ in batches.epoch(0)]
    assert sum(sizes) > 0.5 * len(drawn)
    assert all(size and size % num_replicas == 0 for size in sizes)
    assert max(sizes) <= batch_size


def test_four_devices() -> None:
    """A variable is placed on the chosen device; a batch too small for all devices is an error."""
    found = run_code(ON_FOUR, "jax", XLA_FLAGS="--xla_force_host_platform_device_count=4")
    assert "2" in found["place"]
    assert found["message"] == "batches of 3 images can't be split over 4 devices"
    assert found["hint"] == "try --batch-size 4, or one device: --device cpu:0"


@only_on_cpu
def test_default_device_needs_no_strategy() -> None:
    with on_devices(("cpu:0",)):
        assert not tf.distribute.has_strategy()


class TestXla:
    def plan(self, drawn: Dataset, device: str, **settings: Any) -> Plan:
        return Plan.make(TrainConfig(device="cpu", **settings), drawn.train)._replace(devices=(device,))

    @pytest.mark.parametrize(
        ("plain", "compiled", "num_steps", "expected"),
        [
            (Speed(1, 0.01, 0), Speed(20, 0.005, 0), 100_000, True),  # twice as fast
            (Speed(1, 0.01, 0), Speed(20, 0.005, 0), 3500, False),  # compilation takes longer than it saves
            (Speed(1, 0.01, 0), Speed(2, 0.02, 0), 100_000, False),  # slower
            (Speed(1, 0.01, 0), Speed(1, 0.001, 0), 100, False),  # too short to matter
        ],
    )
    def test_xla_is_used_if_it_finishes_first(
        self, drawn: Dataset, plain: Speed, compiled: Speed, num_steps: int, expected: bool
    ) -> None:
        plan = choose_compiler(
            self.plan(drawn, "gpu:0"), num_steps, lambda plan: compiled if plan.jit_compile else plain
        )
        assert plan.jit_compile is expected

    def test_time_budget_decides(self, drawn: Dataset) -> None:
        for budget_s, expected in ((600.0, True), (10.0, False)):
            plan = self.plan(drawn, "gpu:0", time_budget_s=budget_s)
            chosen = choose_compiler(
                plan, 5, lambda plan: Speed(15, 0.001, 0) if plan.jit_compile else Speed(1, 0.002, 0)
            )
            assert chosen.jit_compile is expected

    def test_nothing_is_measured_on_a_cpu(self, drawn: Dataset) -> None:
        def never(plan: Plan) -> Speed:
            raise AssertionError("measured")

        assert choose_compiler(self.plan(drawn, "cpu:0"), 10**6, never).jit_compile is False

    def test_measure_speed_with_and_without_xla(self, drawn: Dataset) -> None:
        splits = drawn.split(validation_fraction=0.1, seed=0)
        plan = self.plan(drawn, "cpu:0", precision="float32", batch_size=20)
        plan = plan._replace(recipe=plan.recipe.changed(widths=(8,)))
        for jit_compile in (False, True):
            speed = measure_speed(plan._replace(jit_compile=jit_compile), splits, seconds=0.1)
            assert speed.start_s > speed.step_s > 0
            assert speed.validation_s > 0


@pytest.mark.exhaustive
def test_tensorflow_out_of_memory() -> None:
    """Allocating 64 TiB raises a real error."""

    total = tf.function(lambda rows: tf.reduce_sum(tf.ones((rows, 1 << 20)) + 1))
    with (
        pytest.raises(TrainingError, match="not enough memory on gpu:0 for batches of 256") as caught,
        oom_hint(256, ["gpu:0"]),
    ):
        total(tf.constant(1 << 24))
    assert isinstance(caught.value.__cause__, tf.errors.ResourceExhaustedError)
    assert caught.value.hint == "try smaller ones: --batch-size 128"


JAX_WITHOUT_MEMORY = """
import json, pathlib, resource, tempfile
import keras, numpy as np, psutil
from cifarml import Dataset, TrainConfig, train_model
from cifarml.errors import TrainingError
random, count = np.random.default_rng(0), 20_000
images = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
dataset = Dataset(images, np.arange(count) % 2, ("a", "b"), ("",) * count, np.arange(count) < 20, "noise")
keras.ops.convert_to_numpy(keras.ops.ones((8, 8)) @ keras.ops.ones((8, 8)))  # loads its libraries
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (1 << 30), -1))
with tempfile.TemporaryDirectory() as folder:
    try:
        train_model(TrainConfig(num_epochs=1, batch_size=16_384), dataset, pathlib.Path(folder, "run"))
    except TrainingError as error:
        print(json.dumps([error.message, error.hint, type(error.__cause__).__name__]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="requires RLIMIT_AS of Linux")
def test_training_out_of_memory() -> None:
    """It runs on JAX, since TensorFlow's oneDNN kernels crash when out of memory on a CPU."""
    message, hint, cause = run_code(JAX_WITHOUT_MEMORY, "jax")
    assert message == "there is not enough memory on cpu:0 for batches of 16,384 images"
    assert hint == "try smaller ones: --batch-size 8192"
    assert cause == "JaxRuntimeError"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (tf.errors.InternalError(None, None, "RESOURCE_EXHAUSTED: Out of memory on GPU"), True),
        (tf.errors.InternalError(None, None, "failed call: CUDA_ERROR: out of memory"), True),
        (tf.errors.InvalidArgumentError(None, None, "shapes differ"), False),
        (ValueError("something else"), False),
    ],
)
def test_is_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
    with (
        pytest.raises(TrainingError if expected else type(error)),
        oom_hint(1, ("cpu:0",)),
    ):
        raise error


def test_oom_hint_for_a_batch_of_one() -> None:
    with pytest.raises(TrainingError) as caught, oom_hint(1, ("cpu:0",)):
        raise MemoryError
    assert caught.value.hint == "try another --device"


def test_config_of_a_run_names_its_devices(trained_runs: TrainedRuns) -> None:
    run = trained_runs.get("on_cpu", num_epochs=1, device="cpu", widths=(8,))
    chosen = json.loads((run.path / "config.json").read_text())
    assert chosen["machine"] == {"devices": ["cpu:0"], "jit_compile": False, "time_budget": None}
    assert np.isfinite(run.info["images_per_second"])
