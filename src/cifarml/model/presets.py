"""The networks, one file for each preset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import keras

from cifarml.errors import SettingsError
from cifarml.model import best, fast, tutorial
from cifarml.model.recipe import Recipe, Size
from cifarml.model.test_time_augmentation import View


class Preset(NamedTuple):
    """A network and its training.

    Attributes:
        choose_recipe: Chooses the settings, from the number of training images and of classes.
        sizes: The networks that a time budget chooses from, from the number of training images; narrowest
            first.
        build: Makes the network to be trained, from the number of classes, the recipe and, by name, the
            training images and the precision.
        to_serve: Makes of the trained network the one that is served.
        reason: Says why the settings are as they are, from the number of training images.
        views: Those of an image that the served network looks at.
        gives_logits: Whether the network to be trained gives logits, or else probabilities.
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


def build_model(preset: str = "fast", num_classes: int = 10) -> keras.Model:
    """Build the network of a preset as it is served, with fresh weights.

    Every network takes raw pixels, uint8 of shape (N, 32, 32, 3), scales them itself, and gives
    probabilities (not logits), float32 of shape (N, num_classes).

    Args:
        preset: ``"fast"``, ``"best"``, or ``"tutorial"``, the article's network.
        num_classes: How many classes it tells apart, 2 to 1000.

    Returns:
        The network, not compiled; it runs on Keras' TensorFlow and JAX backends.

    Raises:
        SettingsError: If there is no such preset, or the number of classes is out of range.

    Example:
        >>> build_model("tutorial", num_classes=10).count_params()
        1250858
    """
    if preset not in PRESETS:
        raise SettingsError(f"there is no preset {preset!r}", hint=f"presets: {', '.join(PRESETS)}")
    if not 2 <= num_classes <= 1000:
        raise SettingsError(f"num_classes must be 2 to 1000. Received: {num_classes}")
    made = PRESETS[preset]
    return made.to_serve(made.build(num_classes, made.choose_recipe(50_000, num_classes)))
