"""Plan of a training run: every setting, requested or chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, Self

import keras
from pydantic import BaseModel, ConfigDict, Field

from cifarml.data.dataset import Dataset
from cifarml.errors import SettingsError
from cifarml.hardware.devices import choose_devices, choose_precision, describe_machine, explain_precision
from cifarml.model.keras_defaults import keras_defaults
from cifarml.model.presets import PRESETS, Preset
from cifarml.model.recipe import Recipe, Size
from cifarml.train.config import TrainConfig
from cifarml.train.distribution import on_devices
from cifarml.train.inputs.batches import Batches, DataPruning
from cifarml.train.out_of_memory import oom_hint
from cifarml.train.time_budget import TimePlan


class _Machine(BaseModel):
    """The machine's part of config.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    devices: Annotated[tuple[str, ...], Field(min_length=1)]
    jit_compile: bool
    time_budget: TimePlan | None


class Plan(NamedTuple):
    """All choices for a training run, from its config, the images and the machine.

    Attributes:
        config: The requested settings.
        recipe: The hyperparameters.
        precision: Keras' name of the dtype policy.
        devices: Keras' names of the devices to train on.
        jit_compile: Whether XLA compiles the step.
        time: The time budget, if any; the number of epochs in the recipe is a forecast then.
    """

    config: TrainConfig
    recipe: Recipe
    precision: str
    devices: tuple[str, ...]
    jit_compile: bool
    time: TimePlan | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Restore a plan from :meth:`to_json`; nothing is chosen again.

        Raises:
            ValueError: If the values are not a plan, or of another version.
            SettingsError: If a device of the plan is missing.
        """
        if not isinstance(values, Mapping):
            raise ValueError("expected a JSON object")  # noqa: TRY004 - as pydantic says it
        rest = dict(values)
        chosen = {name: rest.pop(name) for name in list(rest) if name in Recipe.model_fields}
        machine = _Machine.model_validate(rest.pop("machine", None))
        try:
            config, recipe = TrainConfig.model_validate(rest), Recipe.model_validate(chosen)
        except SettingsError as error:
            raise ValueError(error.message) from error
        if config.precision == "auto":
            raise ValueError("precision must not be 'auto'")
        for device in machine.devices:
            choose_devices(device)
        timing = machine.time_budget
        config = config.changed(time_budget_s=timing and timing.budget_s)
        return cls(config, recipe, config.precision, machine.devices, machine.jit_compile, timing)

    @classmethod
    def make(cls, config: TrainConfig, images: Dataset) -> Self:
        """Choose all settings that ``config`` omits.

        :func:`cifarml.train.speed_probe.autotune` chooses those that require a measurement.

        Raises:
            SettingsError: If a device does not exist, or there are more devices than images in a batch.
        """
        devices = choose_devices(config.device)
        preset = PRESETS[config.preset]
        recipe = preset.choose_recipe(len(images), len(images.class_names)).changed(**config.changes)
        if (batch_size := min(recipe.batch_size, len(images))) < len(devices):
            raise SettingsError(
                f"batches of {batch_size} images can't be split over {len(devices)} devices",
                hint=f"try --batch-size {len(devices)}, or one device: --device {devices[0]}",
            )
        precision: str = config.precision
        if precision == "auto":
            # The article's network is too narrow to gain from mixed precision.
            precision = "float32" if config.preset == "tutorial" else choose_precision(devices)
        return cls(config, recipe, precision, devices, keras.config.backend() == "jax")

    @property
    def preset(self) -> Preset:
        """The network and how it is trained."""
        return PRESETS[self.config.preset]

    def batches(self, train: Dataset) -> Batches:
        """Return the batches of training images."""
        return Batches(train, self.recipe, seed=self.config.seed, num_replicas=len(self.devices))

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Build, compile and train a network on the plan's devices.

        Raises:
            TrainingError: If memory runs out.
        """
        oom = oom_hint(self.recipe.batch_size, self.devices)
        with keras_defaults(), oom, on_devices(self.devices):
            yield

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        requested = {"preset", "validation_fraction", "seed"}
        return {
            **self.config.model_dump(include=requested, exclude_none=True),
            "precision": self.precision,
            "machine": {
                "devices": list(self.devices),
                "jit_compile": self.jit_compile,
                "time_budget": self.time and self.time.to_json(),
            },
            **self.recipe.model_dump(mode="json"),
        }

    def describe(self, num_images: int) -> str:
        """Describe the plan, and its reasons, in four lines."""
        recipe = self.recipe
        augmentation = [
            *(["flips"] if recipe.flip else []),
            *([f"shifts up to {recipe.shift} px"] if recipe.shift else []),
            *([f"cutout {recipe.cutout} px"] if recipe.cutout else []),
            *(["rotation, scaling, shear"] if recipe.distortion else []),
            *(["color jitter"] if recipe.colour else []),
            *(["mixup/CutMix"] if recipe.mixing else []),
        ]
        pruned = DataPruning.plan(recipe, num_images, len(self.devices)).num_pruned / num_images
        pruning = f"; data pruning skips {pruned:.0%} per epoch" if pruned else ""
        widths = f", widths {_slashed(recipe.widths)}" if recipe.widths else ""
        limit, length, speed = "", f"{recipe.num_epochs} epoch{'s' * (recipe.num_epochs > 1)}", ""
        if self.time:
            limit, length = f" in {self.time.budget_s:g} s", f"{self.time.num_epochs:.1f} epochs"
            speed = f": {min(recipe.batch_size, num_images) / self.time.speed.step_s:,.0f} images/s"
        return (
            f"{self.config.preset}{limit}: {length} of {num_images:,} images, "
            f"batch size {recipe.batch_size}{widths}\n"
            f"Data augmentation: {', '.join(augmentation) or 'none'}{pruning}\n"
            f"{self.precision} on {describe_machine(self.devices)}{speed}\n"
            f"Why: {'; '.join(self._reasons(num_images))}"
        )

    def _reasons(self, num_images: int) -> list[str]:
        reasons = [self.preset.reason(num_images)]
        if self.time and "widths" not in self.config.changes and (wider := self._wider(num_images)):
            reasons.append(f"widths {_slashed(wider.widths)} need at least {wider.least_epochs:g} epochs")
        if self.config.preset != "tutorial" and self.config.precision == "auto":
            reasons.append(explain_precision(self.devices, self.precision))
        return reasons

    def _wider(self, num_images: int) -> Size | None:
        """Return the next wider network that a time budget could have chosen."""
        pairs = pairwise(self.preset.sizes(num_images))
        return next((wider for size, wider in pairs if size.widths == self.recipe.widths), None)


def _slashed(widths: Sequence[int]) -> str:
    return "/".join(map(str, widths))
