"""Preset ``best``: the network of ``fast``, twice as wide, with a smooth activation, and trained for longer.

Sources: those of :mod:`cifarml.model.fast`; S. Elfwing et al., "Sigmoid-Weighted Linear Units for Neural
Network Function Approximation in Reinforcement Learning", 2018 (SiLU); Z. Qin et al., "InfoBatch: Lossless
Training Speed Up by Unbiased Dynamic Data Pruning", ICLR 2024.

Accuracy on the 10,000 test pictures from 47,500 training pictures, three seeds, on two cores of an Intel Xeon
with avx512f and without bfloat16 (2026-11-27, docs/benchmarks.md): in 1,694 to 2,094 s, 0.984 to 0.990 of the
article's time, 91.1 % (91.0 to 91.2); from 1,800, two seeds, in 609 and 912 s, 9.5 times the article's time,
74.9 and 75.0 %, the latter when the normalisation still went by its running mean.
"""

from __future__ import annotations

from typing import Any

import keras

from cifarml.model import convnet, fast
from cifarml.model.fast import FEW, reason
from cifarml.model.views import MOVED
from cifarml.recipe import Recipe, Size

__all__ = ["build", "choose_recipe", "reason", "sizes", "to_serve"]


def choose_recipe(num_images: int, num_classes: int) -> Recipe:
    """Choose the settings for so many training pictures."""
    few = num_images < FEW
    return fast.choose_recipe(num_images, num_classes).changed(
        num_epochs=80 if few else 18,
        pruning=0.0 if few else 0.35,
        batch_size=128 if few else 256,
        widths=(64, 256, 256),
    )


def sizes(num_images: int) -> tuple[Size, ...]:
    """Return the networks that a time budget chooses from, narrowest first, for so many pictures."""
    if num_images < FEW:
        return Size((32, 128, 128), 0), Size((64, 256, 256), 50)
    return Size((32, 128, 128), 0), Size((64, 256, 256), 8)


def build(num_classes: int, recipe: Recipe, **settings: Any) -> keras.Model:
    """Build the network to be trained; see :func:`cifarml.model.convnet.build_network`."""
    return fast.build(num_classes, recipe, activation="silu", **settings)


def to_serve(network: keras.Sequential, *, temperature: float = 1.0) -> keras.Model:
    """Return the network as it is served; see :func:`cifarml.model.convnet.to_serve`."""
    return convnet.to_serve(network, temperature=temperature, views=MOVED)
