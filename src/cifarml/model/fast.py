"""Preset ``fast``: good in a minute or two on a laptop, and the default.

Sources: K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024 (whitening, blocks, alternating
flip, label smoothing, mirror images at test time); K. Jordan et al., "Muon: An optimizer for hidden layers in
neural networks", 2024; L. Smith and N. Topin, "Super-Convergence", 2018 (one cycle of the learning rate);
H. Zhang et al., "mixup", 2018; S. Yun et al., "CutMix", 2019.

Accuracy on the 10,000 test pictures, mean and range of three seeds, on two cores of an AMD EPYC with
avx512_bf16 (2026-11-25, docs/benchmarks.md): from 1,620 training pictures in 51 s 69.6 % (68.7 to 70.0), from
as many others 69.5 % (69.0 to 69.7); from 45,000 in 31 s 79.5 % (79.2 to 79.7).
That was before the head and the biases learned faster and convolutions started as the identity; not measured
again since.
"""

from __future__ import annotations

from typing import Any, Final

import keras

from cifarml.model.convnet import build_network, to_serve
from cifarml.recipe import Recipe, Size

__all__ = ["build", "choose_recipe", "reason", "sizes", "to_serve"]

FEW: Final = 10_000
"""With fewer training pictures than these, each of them is changed more."""


def choose_recipe(num_images: int, num_classes: int) -> Recipe:  # noqa: ARG001
    """Choose the settings for so many training pictures: the fewer, the more each of them is changed."""
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
    """Return the networks that a time budget chooses from, narrowest first, for so many pictures."""
    if num_images < FEW:
        return Size((24, 96, 96), 0), Size((32, 128, 128), 20), Size((64, 256, 256), 60)
    return (
        Size((16, 64, 64), 0),
        Size((24, 96, 96), 1.5),
        Size((32, 128, 128), 3),
        Size((64, 256, 256), 8),
    )


def reason(num_images: int) -> str:
    """Say why the settings are as they are, for so many training pictures."""
    if num_images < FEW:
        return f"with fewer than {FEW:,} pictures each is changed much, lest any be learnt by heart"
    return f"with {FEW:,} pictures or more small changes of each are enough"


def build(num_classes: int, recipe: Recipe, **settings: Any) -> keras.Model:
    """Build the network to be trained; see :func:`cifarml.model.convnet.build_network`."""
    return build_network(num_classes, recipe.widths, dropout=recipe.dropout, **settings)
