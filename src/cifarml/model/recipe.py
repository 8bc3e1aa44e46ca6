"""What a preset is made of: the size of its network and how it is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Recipe", "Size"]

_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Recipe(BaseModel):
    """The settings of a training, all of them chosen; nothing in it can be changed.

    A preset's ``choose_recipe(num_images, num_classes)`` chooses them for so many training images.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    num_epochs: int = Field(ge=1, le=10_000, description="Passes over the training images.")
    batch_size: int = Field(ge=1, le=65_536, description="Images in a step.")
    optimizer: Literal["sgd", "muon", "rmsprop"] = Field(
        description="muon makes the steps of convolutions orthogonal, and keeps their weights' norm."
    )
    learning_rate: float = Field(gt=0, le=100, allow_inf_nan=False, description="The largest step size.")
    learning_rate_decay: _Share = Field(
        default=0.0, description="rmsprop: step n has the rate learning_rate / (1 + learning_rate_decay * n)."
    )
    warm_up: _Share = Field(
        default=0.0,
        description="sgd, muon: in this share of the steps the rate rises from 0; then it falls to 0.",
    )
    momentum: float = Field(
        default=0.0, ge=0, lt=1, allow_inf_nan=False, description="sgd, muon: Nesterov's."
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        allow_inf_nan=False,
        description="A step shrinks weights by rate times this.",
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, allow_inf_nan=False, description="Of a label's weight, so much goes to all."
    )
    widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        default=(),
        max_length=4,
        strict=False,
        description="Channels of each block of the network, which halves its sides.",
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, allow_inf_nan=False, description="Before the head.")
    flip: bool = Field(default=False, description="Mirror half of the images, the others an epoch later.")
    shift: int = Field(default=0, ge=0, le=16, description="Move by up to so many pixels.")
    cutout: int = Field(default=0, ge=0, le=32, description="Grey out a square of so many pixels.")
    distortion: _Share = Field(default=0.0, description="How much to rotate, scale and shear.")
    colour: _Share = Field(default=0.0, description="How much to change brightness, contrast, saturation.")
    pruning: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        allow_inf_nan=False,
        description="Share of the images that an epoch leaves out, of those that the network knows.",
    )
    mixing: _Share = Field(default=0.0, description="Share of the batches whose images are mixed in pairs.")

    def changed(self, **values: Any) -> Self:
        """Return a copy with other values; None leaves a value as it is.

        Raises:
            pydantic.ValidationError: If one is out of range, or unknown.
        """
        return type(self)(
            **self.model_dump() | {name: value for name, value in values.items() if value is not None}
        )


class Size(NamedTuple):
    """One network to choose from under a time budget.

    Attributes:
        widths: Channels of each of its blocks.
        least_epochs: With fewer epochs than these a narrower one ends up more accurate.
    """

    widths: tuple[int, ...]
    least_epochs: float
