"""The networks, one file for each preset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import keras

from cifarml.errors import SettingsError
from cifarml.model import tutorial

__all__ = ["PRESETS", "build_model"]

PRESETS: Mapping[str, Callable[[int], keras.Model]] = MappingProxyType({"tutorial": tutorial.build})


def build_model(preset: str = "tutorial", num_classes: int = 10) -> keras.Model:
    """Build the network of a preset, with fresh weights.

    Every network takes raw pixels, uint8 of shape (N, 32, 32, 3), scales them itself, and gives
    probabilities (not logits), float32 of shape (N, num_classes).

    Args:
        preset: ``"tutorial"``, the article's network.
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
    return PRESETS[preset](num_classes)
