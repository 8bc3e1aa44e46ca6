"""Preset ``fast``: the default, which trains in a minute or two on a laptop.

Sources: K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024 (whitening, blocks, alternating
flip, label smoothing, flipping at test time); K. Jordan et al., "Muon: An optimizer for hidden layers in
neural networks", 2024; L. Smith and N. Topin, "Super-Convergence", 2018 (one-cycle learning-rate schedule);
H. Zhang et al., "mixup", 2018; S. Yun et al., "CutMix", 2019.

Accuracy on the 10,000 test images, mean and range of three seeds, on two cores of an Intel Xeon with
avx512f and without bfloat16 (2026-11-27, docs/benchmarks.md): from 1,800 training images in 77 to 109 s,
the time of the article's network, 69.9 % (68.9 to 71.6), from 1,800 other images 71.3 % (70.6 to 72.3); from
47,500 in 44 to 55 s, 1/41 of the article's time, 78.7 % (77.8 to 79.3). With epsilon 1e-3 instead of 1e-5
(2026-11-29, docs/lab-notes.md), on two cores of an AMD EPYC in bfloat16, from the first 1,800 images: 71.7 %
(71.3 to 72.4) instead of 72.1 % (72.0 to 72.2), a difference within the noise.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import keras

from cifarml.model import convnet
from cifarml.model.recipe import Recipe, Size
from cifarml.model.test_time_augmentation import MIRRORED

VIEWS: Final = MIRRORED

FEW: Final = 10_000
"""With fewer training images, augmentation is stronger."""


def choose_recipe(num_images: int, num_classes: int) -> Recipe:  # noqa: ARG001
    """Choose the hyperparameters; with fewer training images, augmentation is stronger."""
    few = num_images < FEW
    return Recipe(
        num_epochs=40 if few else 8,
        batch_size=64 if few else 256,
        optimizer="muon",
        learning_rate=0.16 if few else 0.1,
        warm_up=0.1,
        momentum=0.6,
        label_smoothing=0.1,
        widths=(32, 128, 128),
        flip=True,
        shift=3 if few else 2,
        colour=0.5 if few else 0.0,
        mixing=1.0 if few else 0.0,
    )


def sizes(num_images: int) -> tuple[Size, ...]:
    """Return the network sizes for a time budget, narrowest first, by the number of training images."""
    if num_images < FEW:
        return Size((24, 96, 96), 0), Size((32, 128, 128), 20), Size((64, 256, 256), 60)
    return (Size((16, 64, 64), 0), Size((24, 96, 96), 1.5), Size((32, 128, 128), 3), Size((64, 256, 256), 8))


def reason(num_images: int) -> str:
    """Return the reason for the hyperparameters, for display."""
    if num_images < FEW:
        return f"with fewer than {FEW:,} images, strong augmentation prevents overfitting"
    return f"with {FEW:,} images or more, light augmentation is sufficient"


def build(num_classes: int, recipe: Recipe, **settings: Any) -> keras.Model:
    """Build the training network; see :func:`cifarml.model.convnet.build_network`."""
    return convnet.build_network(num_classes, recipe.widths, dropout=recipe.dropout, **settings)


to_serve = partial(convnet.to_serve, views=VIEWS)
