"""Preset ``tutorial``: the article's network, as it stands there.

Source: R. Bremer, "How to create your own deep learning project in Azure", step 4d, which follows
Keras' old example ``cifar10_cnn.py``. For ten classes it has exactly 1,250,858 parameters.
"""

from __future__ import annotations

import keras
from keras import layers

from cifarml.cifar10 import IMAGE_SHAPE

__all__ = ["build"]


def build(num_classes: int) -> keras.Model:
    """Build it; see :func:`cifarml.model.build_model`."""
    return keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE, dtype="uint8", name="image"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(num_classes, activation="softmax", dtype="float32", name="probabilities"),
        ],
        name="tutorial",
    )
