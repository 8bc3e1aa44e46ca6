"""Preset ``tutorial``: the network and hyperparameters of the article.

Source: R. Bremer, "How to create your own deep learning project in Azure", step 4d, after the
former Keras example ``cifar10_cnn.py``. For ten classes it has exactly 1,250,858 parameters.

Accuracy on the 10,000 test images, on two cores of an Intel Xeon with avx512f (2026-11-27,
docs/benchmarks.md): from 1,800 training images, two sets with three seeds each, 43.0 % (41.6 to 44.3) in
64 to 112 s. From all training images, one seed, 75.9 % after 30 epochs, in 2,265 s, on two cores of an AMD
EPYC (2026-11-23).
"""

from __future__ import annotations

from typing import Any, Final

import keras
from keras import layers

from cifarml.cifar10 import IMAGE_SHAPE
from cifarml.model.recipe import Recipe, Size
from cifarml.model.test_time_augmentation import ALONE

VIEWS: Final = ALONE


def choose_recipe(num_images: int, num_classes: int) -> Recipe:  # noqa: ARG001 - the same for any
    """Return the hyperparameters of the article."""
    return Recipe(
        num_epochs=30, batch_size=32, optimizer="rmsprop", learning_rate=1e-4, learning_rate_decay=1e-6
    )


def sizes(num_images: int) -> tuple[Size, ...]:  # noqa: ARG001 - the same for any
    """Return the only network size; a time budget chooses just the number of epochs."""
    return (Size((), 0),)


def reason(num_images: int) -> str:  # noqa: ARG001 - the same for any
    """Return the reason for the hyperparameters, for display."""
    return "the article uses these settings"


def build(num_classes: int, _: Recipe, *, precision: str = "float32", **__: Any) -> keras.Model:
    """Build the training network; see :class:`cifarml.model.presets.Preset`."""
    policy: Any = {"dtype": keras.dtype_policies.DTypePolicy(precision)}
    return keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE, dtype="uint8", name="image"),
            layers.Rescaling(1 / 255, **policy),
            layers.Conv2D(32, 3, padding="same", activation="relu", **policy),
            layers.Conv2D(32, 3, activation="relu", **policy),
            layers.MaxPooling2D(**policy),
            layers.Dropout(0.25, **policy),
            layers.Conv2D(64, 3, padding="same", activation="relu", **policy),
            layers.Conv2D(64, 3, activation="relu", **policy),
            layers.MaxPooling2D(**policy),
            layers.Dropout(0.25, **policy),
            layers.Flatten(**policy),
            layers.Dense(512, activation="relu", **policy),
            layers.Dropout(0.5, **policy),
            layers.Dense(num_classes, activation="softmax", dtype="float32", name="probabilities"),
        ],
        name="tutorial",
    )


def to_serve(network: keras.Model) -> keras.Model:
    """Convert the trained network to the serving network, in float32."""
    if network.layers[1].compute_dtype == "float32":
        return network
    served = build(network.output_shape[-1], choose_recipe(1, 2))
    served.set_weights(network.get_weights())
    return served
