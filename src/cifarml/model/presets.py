"""Registry of the presets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import keras

from cifarml.errors import SettingsError
from cifarml.model import best, fast, tutorial
from cifarml.model.keras_defaults import keras_defaults
from cifarml.model.recipe import Recipe, Size
from cifarml.model.test_time_augmentation import View


class Preset(NamedTuple):
    """Network architecture and default hyperparameters.

    Attributes:
        choose_recipe: Returns the hyperparameters for a number of training images and of classes.
        sizes: Returns the network sizes for a time budget, narrowest first, for a number of training images.
        build: Builds the training network from the number of classes, the recipe and, as keyword arguments,
            the training images and the precision.
        to_serve: Converts the trained network to the serving network.
        reason: Returns the reason for the hyperparameters, for a number of training images.
        views: Views of an image that the serving network averages over.
        gives_logits: Whether the training network outputs logits rather than probabilities.
    """

    choose_recipe: Callable[[int, int], Recipe]
    sizes: Callable[[int], tuple[Size, ...]]
    build: Callable[..., keras.Model]
    to_serve: Callable[..., keras.Model]
    reason: Callable[[int], str]
    views: tuple[View, ...]
    gives_logits: bool


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        name: Preset(
            preset.choose_recipe,
            preset.sizes,
            preset.build,
            preset.to_serve,
            preset.reason,
            preset.VIEWS,
            gives_logits=preset is not tutorial,
        )
        for name, preset in {"best": best, "fast": fast, "tutorial": tutorial}.items()
    }
)


@keras_defaults()
def build_model(preset: str = "fast", num_classes: int = 10) -> keras.Model:
    """Build the serving network of a preset, with newly initialised weights.

    Every network accepts raw pixels (uint8, shape (N, 32, 32, 3)), normalises them itself, and returns
    probabilities rather than logits (float32, shape (N, num_classes)).

    Args:
        preset: `"fast"`, `"best"`, or `"tutorial"`, the network of the article.
        num_classes: Number of classes, 2 to 1000.

    Returns:
        The uncompiled network; it runs on Keras' TensorFlow and JAX backends.

    Raises:
        SettingsError: If there is no such preset, or the number of classes is out of range.

    Example:
        ```python
        model = build_model("tutorial", num_classes=10)
        assert model.count_params() == 1_250_858
        ```
    """
    if preset not in PRESETS:
        raise SettingsError(f"there is no preset {preset!r}", hint=f"presets: {', '.join(PRESETS)}")
    if not 2 <= num_classes <= 1000:
        raise SettingsError(f"num_classes must be 2 to 1000. Received: {num_classes}")
    made = PRESETS[preset]
    return made.to_serve(made.build(num_classes, made.choose_recipe(50_000, num_classes)))
