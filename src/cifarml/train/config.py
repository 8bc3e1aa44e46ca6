"""TrainConfig: settings of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from cifarml.config_files import read_train_settings
from cifarml.errors import SettingsError
from cifarml.model import recipe
from cifarml.model.recipe import Recipe, TrainingSettings
from cifarml.paths import expand_home

PresetName = Literal["fast", "best", "tutorial"]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]

_LENGTHS: Final = {"num_epochs", "time_budget_s"}
"""Mutually exclusive settings."""


class TrainConfig(TrainingSettings):
    """Settings of a training run, immutable.

    The preset chooses each hyperparameter that is omitted or None.

    Attributes:
        preset: `fast`, `best`, or `tutorial`, the article's network.
        time_budget_s: Seconds to train; chooses the number of epochs and the widths. Cannot be combined
            with `num_epochs`.
        precision: Dtype policy: `float32`, `mixed_bfloat16`, `mixed_float16`, or `auto`, the fastest on the
            device.
        device: `auto`, `cpu`, `gpu`, or devices by number, such as `gpu:0` or `gpu:0,2`.
        validation_fraction: Share of the training images for validation, 0 to 0.5; 0.1 if omitted, but at
            most 2500 images.
        seed: Random seed of initial weights, shuffling, augmentation and split.
        num_epochs: Passes over the training images.
        batch_size: Images per step, over all devices.
        optimizer: `sgd`, `muon` or `rmsprop`.
        learning_rate: Peak learning rate.
        learning_rate_decay: With `rmsprop`, the rate of step n is `learning_rate / (1 + decay * n)`.
        warm_up: With `sgd` and `muon`, share of the steps in which the learning rate rises from 0.
        momentum: Nesterov momentum of `sgd` and `muon`.
        weight_decay: Decoupled weight decay, multiplied by the learning rate.
        label_smoothing: Share of a label's weight that is spread over all classes.
        widths: Channels of each block, such as `(64, 256, 256)`.
        dropout: Share of the features dropped before the head.
        flip: Flip half of the images horizontally, and the other half in the next epoch.
        shift: Largest translation, in pixels.
        cutout: Side of the cutout square, in pixels.
        distortion: Strength of rotation, scaling and shear, 0 to 1.
        colour: Strength of the color jitter (brightness, contrast, saturation), 0 to 1.
        pruning: Data pruning: share of the images that an epoch skips, 0 to 0.5.
        mixing: Share of the batches with mixup or CutMix.

    Raises:
        SettingsError: If a value is out of range or of another type, a name is unknown, or two settings
            cannot be combined.

    Example:
        ```python
        config = TrainConfig(preset="best", num_epochs=20, label_smoothing=0.2)
        longer = config.changed(num_epochs=40)
        ```
    """

    preset: PresetName = Field(default="fast", description="fast, best, or tutorial")
    time_budget_s: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        default=None, description="seconds to train, in place of num_epochs"
    )
    precision: Precision = Field(
        default="auto",
        description="dtype policy: float32, mixed_bfloat16, mixed_float16, or auto: the fastest here",
    )
    device: str = Field(
        default="auto", max_length=200, description="auto, cpu, gpu, or by number: gpu:0 or gpu:0,2"
    )
    validation_fraction: Annotated[float, Field(ge=0, le=0.5)] | None = Field(
        default=None, description="share of the training images to validate on; default: 0.1, at most 2500"
    )
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="random seed of weights, shuffling, augmentation and split"
    )
    num_epochs: recipe.NumEpochs | None = None
    batch_size: recipe.BatchSize | None = None
    optimizer: recipe.Optimizer | None = None
    learning_rate: recipe.LearningRate | None = None
    learning_rate_decay: recipe.LearningRateDecay | None = None
    warm_up: recipe.WarmUp | None = None
    momentum: recipe.Momentum | None = None
    weight_decay: recipe.WeightDecay | None = None
    label_smoothing: recipe.LabelSmoothing | None = None
    widths: recipe.Widths | None = None
    dropout: recipe.Dropout | None = None
    flip: recipe.Flip | None = None
    shift: recipe.Shift | None = None
    cutout: recipe.Cutout | None = None
    distortion: recipe.Distortion | None = None
    colour: recipe.Colour | None = None
    pruning: recipe.Pruning | None = None
    mixing: recipe.Mixing | None = None

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.time_budget_s is not None and self.num_epochs is not None:
            raise SettingsError(
                "time_budget_s cannot be combined with num_epochs, since a time budget chooses the number of "
                f"epochs. Received: {self.time_budget_s:g} s and {self.num_epochs} epochs",
                hint="use either --time-budget or --epochs",
            )
        if self.preset == "tutorial" and (self.widths or self.dropout):
            name = "widths" if self.widths else "dropout"
            raise SettingsError(
                f"{name}: preset 'tutorial' does not support widths or dropout. "
                f"Received: {getattr(self, name)!r}",
                hint=f"remove {name}, or use --preset fast",
            )
        return self

    @classmethod
    def load(cls, path: str | Path, **values: Any) -> Self:
        """Load a config from a file.

        Args:
            path: A .toml or .json file, such as `config.json` of a run folder.
            **values: Settings that override those of the file; None keeps the value of the file.

        Returns:
            The config.

        Raises:
            SettingsError: If the file can't be read, a value is out of range, or a name is unknown.

        Example:
            ```python
            config = TrainConfig.load("runs/first/config.json", seed=1)
            ```
        """
        given = read_train_settings(expand_home(path))
        machine = given.pop("machine", None)  # of a run's config.json: devices are chosen again
        budget = machine.get("time_budget") if isinstance(machine, dict) else None
        if isinstance(budget, dict) and "budget_s" in budget:  # and so is the number of epochs
            given["time_budget_s"] = budget["budget_s"]
            given.pop("num_epochs", None)
        try:
            cls.model_validate(given)
        except SettingsError as error:
            raise SettingsError(f"{path}: {error.message}", error.hint) from error
        values = {name: value for name, value in values.items() if value is not None}
        if _LENGTHS & values.keys():  # each of them overrides both
            given = {name: value for name, value in given.items() if name not in _LENGTHS}
        return cls.model_validate(given | values)

    @property
    def changes(self) -> dict[str, Any]:
        """Hyperparameters that are set here rather than chosen by the preset, by name."""
        values = {name: getattr(self, name) for name in Recipe.model_fields}
        return {name: value for name, value in values.items() if value is not None}
