"""Hyperparameters of a training run, with their types and limits."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from cifarml.errors import SettingsError

_Below1 = Field(ge=0, lt=1)
_Share = Field(ge=0, le=1)

NumEpochs = Annotated[int, Field(ge=1, le=10_000, description="passes over the training images")]
BatchSize = Annotated[int, Field(ge=1, le=65_536, description="images in a step")]
Optimizer = Annotated[
    Literal["sgd", "muon", "rmsprop"],
    Field(description="sgd, rmsprop, or muon, which orthogonalises the update of each convolution"),
]
LearningRate = Annotated[float, Field(gt=0, le=100, description="peak learning rate")]
LearningRateDecay = Annotated[
    float, _Share, Field(description="rmsprop: step n has the rate learning_rate / (1 + decay * n)")
]
WarmUp = Annotated[
    float, _Share, Field(description="sgd, muon: share of the steps that warm up the learning rate from 0")
]
Momentum = Annotated[float, _Below1, Field(description="sgd, muon: Nesterov momentum")]
WeightDecay = Annotated[
    float, _Below1, Field(description="decoupled weight decay, multiplied by the learning rate")
]
LabelSmoothing = Annotated[
    float, _Below1, Field(description="share of a label's weight that is spread over all classes")
]
Widths = Annotated[
    tuple[Annotated[int, Field(ge=1, le=4096)], ...],
    Field(max_length=4, strict=False, description="channels of each block, such as [64, 256, 256]"),
]
Dropout = Annotated[float, _Below1, Field(description="dropout rate before the head")]
Flip = Annotated[bool, Field(description="mirror half of the images, and the other half in the next epoch")]
Shift = Annotated[int, Field(ge=0, le=16, description="largest translation in pixels")]
Cutout = Annotated[int, Field(ge=0, le=32, description="cutout: side of the masked square, in pixels")]
Distortion = Annotated[float, _Share, Field(description="strength of rotation, scaling and shear")]
Colour = Annotated[
    float, _Share, Field(description="strength of color jitter (brightness, contrast and saturation)")
]
Pruning = Annotated[
    float, Field(ge=0, le=0.5, description="data pruning: share of images (low loss) that an epoch skips")
]
Mixing = Annotated[float, _Share, Field(description="share of the batches with mixup or CutMix")]


class TrainingSettings(BaseModel):
    """Base class of immutable settings; None selects the default.

    Raises:
        SettingsError: If a value is out of range or of the wrong type, or a setting is unknown.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _validate(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(values, Mapping):
            values = {name: value for name, value in values.items() if value is not None}
        try:
            return handler(values)
        except ValidationError as error:
            raise cls._explain(error) from error

    @classmethod
    def _explain(cls, error: ValidationError) -> SettingsError:
        errors = error.errors()
        first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
        name = ".".join(map(str, first["loc"])) or "settings"
        if first["type"] == "extra_forbidden":
            close = get_close_matches(name, cls.model_fields)
            return SettingsError(
                f"there is no setting {name[:80]!r}",
                hint=f"did you mean {' or '.join(close)}?"
                if close
                else f"the settings are: {', '.join(cls.model_fields)}",
            )
        try:
            received = f"{first['input']!r:.80}"
        except ValueError:  # Python refuses to format integers of more than 4300 digits
            received = f"a huge {type(first['input']).__name__}"
        setting = name.partition(".")[0]
        fields = (each.model_fields.get(setting) for each in (cls, Recipe))
        about = next((field.description for field in fields if field and field.description), None)
        return SettingsError(
            f"{name}: {first['msg']}. Received: {received}", hint=about and f"{setting}: {about}"
        )

    def __setattr__(self, name: str, value: object) -> None:
        """Raise SettingsError, since settings are immutable."""
        raise SettingsError(
            f"{name}: settings are immutable", hint=f"make a copy: .changed({name}={value!r:.40})"
        )

    def changed(self, **values: Any) -> Self:
        """Return a copy with some settings replaced.

        Args:
            **values: New values by setting.

        Raises:
            SettingsError: If a value is invalid, or a setting is unknown.
        """
        return type(self)(**self.model_dump() | values)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002
        """Return a validated copy with some settings replaced; see :meth:`changed`."""
        return self.changed(**dict(update or {}))


class Recipe(TrainingSettings):
    """Complete hyperparameters of a training run.

    The function ``choose_recipe(num_images, num_classes)`` of a preset chooses them.
    """

    num_epochs: NumEpochs
    batch_size: BatchSize
    optimizer: Optimizer
    learning_rate: LearningRate
    learning_rate_decay: LearningRateDecay = 0.0
    warm_up: WarmUp = 0.0
    momentum: Momentum = 0.0
    weight_decay: WeightDecay = 0.0
    label_smoothing: LabelSmoothing = 0.0
    widths: Widths = ()
    dropout: Dropout = 0.0
    flip: Flip = False
    shift: Shift = 0
    cutout: Cutout = 0
    distortion: Distortion = 0.0
    colour: Colour = 0.0
    pruning: Pruning = 0.0
    mixing: Mixing = 0.0


class Size(NamedTuple):
    """Network size for a time budget.

    Attributes:
        widths: Number of channels of each block.
        least_epochs: Minimum number of epochs; with fewer, a narrower network is more accurate.
    """

    widths: tuple[int, ...]
    least_epochs: float
