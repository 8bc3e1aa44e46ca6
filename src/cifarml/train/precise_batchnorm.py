"""Recompute batch-normalization statistics after training (PreciseBN).

The running statistics of training are moving averages over the last few batches, while the weights still
change, and of images with all augmentations.
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
from cifarml.train.plan import Plan

_ENOUGH: Final = 5000
"""Number of images; Wu and Johnson, 2021, section 3, find 1,000 to 10,000 as good as all."""
_LEAST_BATCH: Final = 256


def recompute_batchnorm_statistics(
    network: keras.Sequential, train: Dataset, plan: Plan, on_progress: OnProgress
) -> None:
    """Recompute mean and variance of all batch-normalization layers with the final weights.

    The images are flipped and shifted as in training, but not augmented otherwise; each batch is normalised
    by its own statistics, which are averaged over the batches (Y. Wu and J. Johnson, "Rethinking 'Batch' in
    BatchNorm", 2021, section 3: PreciseBN).
    A network without batch normalization is unchanged.
    """
    layers = _batchnorm_layers(network)
    if not layers:
        return
    size = max(_LEAST_BATCH, plan.recipe.batch_size)
    recipe = plan.recipe.changed(
        batch_size=size, colour=0.0, distortion=0.0, cutout=0, mixing=0.0, pruning=0.0
    )
    batches = plan._replace(recipe=recipe).batches(train)
    num_batches = min(len(batches), math.ceil(_ENOUGH / size))
    seen: list[list[npt.NDArray[np.float32]]] = []
    with _last_batch_statistics(layers):
        training = _TrainingMode(network)
        training.compile(jit_compile=plan.jit_compile)
        for number, (images, _) in enumerate(islice(batches.epoch(0), num_batches)):
            on_progress(Progress("batch-norm statistics", number, num_batches, unit="batches"))
            training.predict_on_batch(images)
            seen.append([keras.ops.convert_to_numpy(variable) for variable in _statistics(layers)])
    for variable, values in zip(_statistics(layers), zip(*seen, strict=True), strict=True):
        variable.assign(np.mean(values, axis=0))


def count_batchnorm_images(network: keras.Sequential, num_images: int) -> int:
    """Return about how many images :func:`recompute_batchnorm_statistics` uses."""
    return min(_ENOUGH, num_images) if _batchnorm_layers(network) else 0


def _batchnorm_layers(network: keras.Sequential) -> list[Any]:
    return [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]


class _TrainingMode(keras.Model):  # type: ignore[misc]
    """Wrapper that calls a network in training mode, so that Keras compiles it that way."""

    def __init__(self, network: keras.Sequential) -> None:
        super().__init__(name="training")
        self.network = network

    def call(self, images: Any) -> Any:
        return self.network(images, training=True)


def _statistics(layers: Sequence[Any]) -> list[keras.Variable]:
    return [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]


@contextmanager
def _last_batch_statistics(layers: Sequence[Any]) -> Iterator[None]:
    """Set the momentum to 0, so that the statistics are those of the last batch."""
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
