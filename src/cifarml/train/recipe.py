"""What a training run is asked to do."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cifarml.errors import SettingsError

__all__ = ["Preset", "TrainConfig"]

Preset = Literal["tutorial"]


class TrainConfig(BaseModel):
    """The settings of a training run. Nothing in it can be changed; the defaults are the article's.

    Raises:
        SettingsError: From :meth:`make`, if a value is out of range or unknown.

    Example:
        >>> TrainConfig.make(num_epochs=5).batch_size
        32
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Preset = Field(default="tutorial", description="Which network.")
    num_epochs: int = Field(default=30, ge=1, le=10_000, description="Passes over the training pictures.")
    batch_size: int = Field(default=32, ge=1, le=65_536, description="Pictures in a step.")
    learning_rate: float = Field(
        default=1e-4, gt=0, le=10, allow_inf_nan=False, description="Step size of RMSprop."
    )
    learning_rate_decay: float = Field(
        default=1e-6,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Step n has the rate learning_rate / (1 + learning_rate_decay * n).",
    )
    validation_fraction: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        allow_inf_nan=False,
        description="Share of the training pictures set apart to watch the training with.",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Start weights, shuffling, dropout and split.")

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
