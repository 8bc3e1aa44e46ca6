"""TrainConfig: settings of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from cifarml.config_files import read_train_settings
from cifarml.errors import SettingsError
from cifarml.model import recipe
from cifarml.model.recipe import Recipe, TrainingSettings

PresetName = Literal["fast", "best", "tutorial"]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]

_LENGTHS: Final = {"num_epochs", "time_budget_s"}
"""Only one of them can be set."""


class TrainConfig(TrainingSettings):
    """Settings of a training run, immutable; None leaves a choice to the preset.

    Raises:
        SettingsError: If a value is out of range or of another type, or a name is unknown.

    Example:
        >>> TrainConfig(num_epochs=5, label_smoothing=0.2).preset
        'fast'
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
        default="auto", max_length=200, description="auto, cpu, gpu, or some by number: gpu:0 or gpu:0,2"
    )
    validation_fraction: Annotated[float, Field(ge=0, le=0.5)] | None = Field(
        default=None, description="share of the training images to validate on; default: 0.1, at most 2500"
    )
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="of initial weights, shuffling, augmentation and split"
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
                f"time_budget_s and num_epochs cannot be combined, since a time budget chooses the number of "
                f"epochs. Received: {self.time_budget_s:g} s and {self.num_epochs} epochs",
                hint="leave out one of --time-budget and --epochs",
            )
        if self.preset == "tutorial" and (self.widths or self.dropout):
            name = "widths" if self.widths else "dropout"
            raise SettingsError(
                f"{name}: preset 'tutorial' does not support widths or dropout. "
                f"Received: {getattr(self, name)!r}",
                hint="leave them out, or take preset fast",
            )
        return self

    @classmethod
    def load(cls, path: str | Path, **values: Any) -> Self:
        """Build a config from a file.

        Args:
            path: A .toml or .json file, such as ``config.json`` of a run folder.
            **values: Override the file; None leaves a setting as it is there.

        Raises:
            SettingsError: If the file can't be read, a value is out of range, or a name is unknown.
        """
        given = read_train_settings(Path(path))
        machine = given.pop("machine", None)  # what a run's config.json says of it is chosen anew
        budget = machine.get("time_budget") if isinstance(machine, dict) else None
        if isinstance(budget, dict) and "budget_s" in budget:  # and so is the number of epochs
            given["time_budget_s"] = budget["budget_s"]
            given.pop("num_epochs", None)
        try:
            cls.model_validate(given)
        except SettingsError as error:
            raise SettingsError(f"{path}: {error.message}", error.hint) from error
        values = {name: value for name, value in values.items() if value is not None}
        if _LENGTHS & values.keys():  # one of them overrides the other, too
            given = {name: value for name, value in given.items() if name not in _LENGTHS}
        return cls.model_validate(given | values)

    @property
    def changes(self) -> dict[str, Any]:
        """Hyperparameters that override the preset's own choice."""
        asked = {name: getattr(self, name) for name in Recipe.model_fields}
        return {name: value for name, value in asked.items() if value is not None}
