"""What a training run is asked to do."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cifarml.errors import SettingsError

__all__ = ["Precision", "PresetName", "TrainConfig"]

PresetName = Literal["fast", "tutorial"]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]


class TrainConfig(BaseModel):
    """The settings of a training run. Nothing in it can be changed; None leaves a choice to the preset.

    Raises:
        SettingsError: From :meth:`make`, if a value is out of range or unknown.

    Example:
        >>> TrainConfig.make(num_epochs=5).preset
        'fast'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: PresetName = Field(default="fast", description="Which network, and how it is trained.")
    num_epochs: int | None = Field(
        default=None, ge=1, le=10_000, description="Passes over the training pictures."
    )
    batch_size: int | None = Field(default=None, ge=1, le=65_536, description="Pictures in a step.")
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
    validation_fraction: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        allow_inf_nan=False,
        description="Share of the training pictures set apart to watch the training with.",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Start weights, shuffling, changes and split.")

    @classmethod
    def make(cls, **values: Any) -> Self:
        """Build a config; a value of None stands for the default.

        Raises:
            SettingsError: If a value is out of range, or a name is unknown.
        """
        try:
            return cls(**{name: value for name, value in values.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise SettingsError(
                f"{name}: {first['msg']}. Received: {first['input']!r}",
                hint="see the ranges with: cifarml train --help",
            ) from error

    @property
    def changes(self) -> dict[str, Any]:
        """What it asks of the recipe, in place of the preset's own choice."""
        names = ("num_epochs", "batch_size", "learning_rate", "weight_decay")
        return {name: value for name in names if (value := getattr(self, name)) is not None}
