"""Preset ``fast``: good in a minute or two on a laptop, and the default.

Sources: K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024 (whitening, blocks, alternating
flip, label smoothing, mirror images at test time); L. Smith and N. Topin, "Super-Convergence", 2018 (one
cycle of the learning rate); H. Zhang et al., "mixup", 2018; S. Yun et al., "CutMix", 2019.
"""

from __future__ import annotations

from typing import Any

import keras

from cifarml.model.convnet import build_network, to_serve
from cifarml.model.recipe import Recipe

__all__ = ["build", "choose_recipe", "to_serve"]


def choose_recipe(num_images: int, num_classes: int) -> Recipe:  # noqa: ARG001
    """Choose the settings for so many training pictures: the fewer, the more each of them is changed."""
    few = num_images < 10_000
    return Recipe(
        num_epochs=50 if few else 8,
        batch_size=64 if few else 256,
        optimizer="sgd",
        learning_rate=0.1 if few else 0.3,
        warm_up=0.2,
        momentum=0.9,
        weight_decay=0.005,
        label_smoothing=0.1,
        widths=(32, 128, 128),
        flip=True,
        shift=2,
        colour=0.25 if few else 0.0,
        mixing=0.5 if few else 0.0,
    )


def build(num_classes: int, recipe: Recipe, **settings: Any) -> keras.Model:
    """Build the network to be trained; see :func:`cifarml.model.convnet.build_network`."""
    return build_network(num_classes, recipe.widths, dropout=recipe.dropout, **settings)
