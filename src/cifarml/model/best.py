"""Preset ``best``: the network of ``fast`` at twice the width, with SiLU, and trained for longer.

Sources: those of :mod:`cifarml.model.fast`; S. Elfwing et al., "Sigmoid-Weighted Linear Units for Neural
Network Function Approximation in Reinforcement Learning", 2018 (SiLU); Z. Qin et al., "InfoBatch: Lossless
Training Speed Up by Unbiased Dynamic Data Pruning", ICLR 2024.

Accuracy on the 10,000 test images, mean and range of three seeds, on two cores of an Intel Xeon with
avx512f and without bfloat16 (2026-11-27, docs/benchmarks.md): from 47,500 training images in 1,694 to
2,094 s, 0.984 to 0.990 of the article's time, 91.1 % (91.0 to 91.2); from 1,800 in 591 to 897 s, 9.5 times
the article's time, 75.2 % (74.9 to 75.5), and from 1,800 other images 75.7 % (75.3 to 75.9). On one NVIDIA
H200, with JAX, 35 epochs on 47,500 images in 44 to 47 s, including compilation: 91.2 % (91.0 to 91.4).
All were measured with epsilon 1e-5 in the batch normalisation; see docs/lab-notes.md for 1e-3.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from cifarml.model import convnet, fast
from cifarml.model.fast import FEW
from cifarml.model.recipe import Recipe, Size
from cifarml.model.test_time_augmentation import MOVED

VIEWS: Final = MOVED


def choose_recipe(num_images: int, num_classes: int) -> Recipe:
    """Choose the hyperparameters by the number of training images."""
    few = num_images < FEW
    return fast.choose_recipe(num_images, num_classes).changed(
        num_epochs=80 if few else 18,
        pruning=0.0 if few else 0.35,
        batch_size=128 if few else 256,
        widths=(64, 256, 256),
    )


def sizes(num_images: int) -> tuple[Size, ...]:
    """Return the network sizes for a time budget, narrowest first, by the number of training images."""
    if num_images < FEW:
        return Size((32, 128, 128), 0), Size((64, 256, 256), 50)
    return Size((32, 128, 128), 0), Size((64, 256, 256), 8)


reason = fast.reason
build = partial(fast.build, activation="silu")
to_serve = partial(convnet.to_serve, views=VIEWS)
