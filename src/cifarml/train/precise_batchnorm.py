"""What normalisation goes by once a network is trained: the mean and variance over many images.

While it trains, batch normalisation keeps a running mean of the last few batches only, of weights that still
changed and of images as they were shown: recoloured and mixed, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt

from cifarml.data.dataset import Dataset
from cifarml.progress import OnProgress, Progress
from cifarml.train.inputs.batches import Batches
from cifarml.train.plan import Plan

__all__ = ["count_images", "estimate_population"]

_ENOUGH: Final = 5000
"""Images; Wu and Johnson, 2021, section 3, find 1,000 to 10,000 to do as well as all."""
_LEAST_BATCH: Final = 256


def estimate_population(
    network: keras.Sequential, train: Dataset, plan: Plan, on_progress: OnProgress
) -> None:
    """Set mean and variance of each batch normalisation to those of many images, with the last weights.

    The images are mirrored and moved as in training, and else as they will be asked about; each batch is
    normalised by its own figures, and those of all batches are averaged (Y. Wu and J. Johnson, "Rethinking
    'Batch' in BatchNorm", 2021, section 3: PreciseBN).

    Args:
        network: A trained one; without a batch normalisation nothing is done.
        train: Those that it was trained on.
        plan: How it was trained.
        on_progress: Called before every batch.
    """
    normalisations = _normalisations(network)
    if not normalisations:
        return
    size = max(_LEAST_BATCH, plan.recipe.batch_size)
    recipe = plan.recipe.changed(
        batch_size=size, colour=0.0, distortion=0.0, cutout=0, mixing=0.0, pruning=0.0
    )
    batches = Batches(train, recipe, seed=plan.config.seed, num_replicas=len(plan.devices))
    num_batches = min(len(batches), math.ceil(_ENOUGH / size))
    seen: list[list[npt.NDArray[np.float32]]] = []
    with _only_the_last_batch(normalisations):
        training = _Training(network)
        training.compile(jit_compile=plan.jit_compile)
        for number, (images, _) in enumerate(islice(batches.epoch(0), num_batches)):
            on_progress(Progress("averaging over images", number, num_batches, unit="batches"))
            training.predict_on_batch(images)
            seen.append([keras.ops.convert_to_numpy(figure) for figure in _figures(normalisations)])
    for figure, values in zip(_figures(normalisations), zip(*seen, strict=True), strict=True):
        figure.assign(np.mean(values, axis=0))


def count_images(network: keras.Sequential, num_images: int) -> int:
    """Return about how many of so many images :func:`estimate_population` looks at."""
    return min(_ENOUGH, num_images) if _normalisations(network) else 0


def _normalisations(network: keras.Sequential) -> list[Any]:
    return [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]


class _Training(keras.Model):  # type: ignore[misc]
    """A network as it is while it trains, so that Keras compiles this way to call it."""

    def __init__(self, network: keras.Sequential) -> None:
        super().__init__(name="training")
        self.network = network

    def call(self, images: Any) -> Any:
        return self.network(images, training=True)


def _figures(normalisations: Sequence[Any]) -> list[keras.Variable]:
    return [figure for layer in normalisations for figure in (layer.moving_mean, layer.moving_variance)]


@contextmanager
def _only_the_last_batch(normalisations: Sequence[Any]) -> Iterator[None]:
    """Let the figures be those of the last batch, rather than a running mean."""
    momenta = [layer.momentum for layer in normalisations]
    for layer in normalisations:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(normalisations, momenta, strict=True):
            layer.momentum = momentum
