"""What a training run is asked to do."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cifarml.config_files import read_train_settings
from cifarml.errors import SettingsError
from cifarml.model.recipe import Recipe

__all__ = ["Precision", "PresetName", "TrainConfig"]

PresetName = Literal["fast", "best", "tutorial"]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]

_ANY_RECIPE: Final = {"num_epochs": 1, "batch_size": 1, "optimizer": "sgd", "learning_rate": 1.0}
"""A preset chooses these, and what is asked is checked before it does."""


_LENGTHS: Final = {"num_epochs", "time_budget_s"}
"""How long it takes: by one of them."""


class TrainConfig(BaseModel):
    """The settings of a training run. Nothing in it can be changed; None leaves a choice to the preset.

    Besides the settings below it takes each one of :class:`~cifarml.model.recipe.Recipe`.

    Raises:
        SettingsError: From :meth:`make`, if a value is out of range or unknown.

    Example:
        >>> TrainConfig.make(num_epochs=5, label_smoothing=0.2).preset
        'fast'
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    preset: PresetName = Field(default="fast", description="Which network, and how it is trained.")
    num_epochs: int | None = Field(
        default=None, ge=1, le=10_000, description="Passes over the training images."
    )
    time_budget_s: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="Train for so many seconds; in place of num_epochs.",
    )
    batch_size: int | None = Field(default=None, ge=1, le=65_536, description="Images in a step.")
    learning_rate: float | None = Field(
        default=None, gt=0, le=100, allow_inf_nan=False, description="The largest step size."
    )
    weight_decay: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        allow_inf_nan=False,
        description="A step shrinks weights by rate times this.",
    )
    precision: Precision = Field(
        default="auto", description="Of the arithmetic; auto takes what the machine is quickest with."
    )
    device: str = Field(
        default="auto",
        max_length=200,
        description="What to train on: auto, cpu, gpu, or some of them by number, such as gpu:0 or gpu:0,2.",
    )
    validation_fraction: float | None = Field(
        default=None,
        ge=0,
        le=0.5,
        allow_inf_nan=False,
        description="Share of the training images set apart to watch with; None: a tenth, at most 2500.",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Start weights, shuffling, changes and split.")

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if self.time_budget_s is not None and self.num_epochs is not None:
            raise SettingsError(
                f"a time budget of {self.time_budget_s:g} s chooses the number of epochs by itself. "
                f"Received also: {self.num_epochs} epochs",
                hint="leave out one of --time-budget and --epochs",
            )
        return self

    @model_validator(mode="after")
    def _check_recipe(self) -> Self:
        """Check the settings that only the recipe knows."""
        try:
            Recipe.model_validate(_ANY_RECIPE | (self.model_extra or {}))
        except ValidationError as error:
            raise _refusal(error) from error
        if self.preset == "tutorial" and any(self.changes.get(name) for name in ("widths", "dropout")):
            raise SettingsError(
                "the article's network is what it is: preset tutorial takes no widths and no dropout",
                hint="leave them out, or take preset fast",
            )
        return self

    @classmethod
    def make(cls, **values: Any) -> Self:
        """Build a config; a value of None stands for the default.

        Raises:
            SettingsError: If a value is out of range, or a name is unknown.
        """
        try:
            return cls(**{name: value for name, value in values.items() if value is not None})
        except ValidationError as error:
            raise _refusal(error) from error

    @classmethod
    def load(cls, path: str | Path, **values: Any) -> Self:
        """Build a config from a file.

        Args:
            path: A .toml or .json file, such as ``config.json`` of a run folder.
            **values: What wins over the file; None leaves a setting as it is there.

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
            cls.make(**given)
        except SettingsError as error:
            raise SettingsError(f"{path}: {error.message}", error.hint) from error
        values = {name: value for name, value in values.items() if value is not None}
        if _LENGTHS & values.keys():  # one of them wins over the other, too
            given = {name: value for name, value in given.items() if name not in _LENGTHS}
        return cls.make(**given | values)

    @property
    def changes(self) -> dict[str, Any]:
        """What it asks of the recipe, in place of the preset's own choice."""
        asked = {name: getattr(self, name, None) for name in Recipe.model_fields}
        return {name: value for name, value in asked.items() if value is not None}


def _refusal(error: ValidationError) -> SettingsError:
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        known = [
            *TrainConfig.model_fields,
            *(each for each in Recipe.model_fields if each not in TrainConfig.model_fields),
        ]
        close = get_close_matches(name, known)
        return SettingsError(
            f"there is no setting {name[:80]!r}",
            hint=f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(known)}",
        )
    return SettingsError(
        f"{name}: {first['msg']}. Received: {first['input']!r:.80}",
        hint="see what it may be with: cifarml train --help",
    )
