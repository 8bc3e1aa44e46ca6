"""The network of the presets ``fast`` and ``best``: as it is trained, and as it is served.

Trained: raw pixels in, logits out; a whitening convolution that isn't trained, and blocks of two 3x3
convolutions with batch normalisation and an activation, the first followed by pooling; their first channels
start as those that come in (after K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024,
sections 3.1 and 3.3). Served: Keras' own layers only, in float32, the normalisation folded into the
convolutions, and the mean over several views of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from cifarml.cifar10 import IMAGE_SHAPE
from cifarml.model.layers import (
    PIXEL_MEAN,
    PIXEL_STD,
    FusedBatchNormalization,
    QuickActivation,
    QuickConv2D,
    whitening_filters,
)
from cifarml.model.test_time_augmentation import View, average, show

_PATCH = 2
_HEAD_SCALE = 1 / 9
"""Keeps the first logits small; Jordan, 2024, section 3.1."""


def build_network(
    num_classes: int,
    widths: tuple[int, ...],
    *,
    images: npt.NDArray[np.uint8] | None = None,
    dropout: float = 0.0,
    activation: str = "relu",
    precision: str = "float32",
) -> keras.Sequential:
    """Build the network to be trained.

    Args:
        num_classes: How many logits it gives.
        widths: Channels of each block.
        images: Training images to take the whitening from, uint8, shape (N, 32, 32, 3); noise otherwise.
        dropout: Share of features left out before the head.
        activation: Keras' name of what follows each normalisation.
        precision: Keras' name of a dtype policy, such as ``mixed_bfloat16``.

    Returns:
        The network, not compiled: uint8 (N, 32, 32, 3) to float32 logits (N, num_classes).
    """
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (8, *IMAGE_SHAPE), np.uint8)
    policy: Any = {"dtype": keras.dtype_policies.DTypePolicy(precision)}
    filters = whitening_filters(images, _PATCH)
    whitening = layers.Conv2D(filters.shape[-1], _PATCH, use_bias=False, trainable=False, **policy)
    stack = [
        keras.Input(IMAGE_SHAPE, dtype="uint8", name="image"),
        layers.Rescaling(1 / (255 * PIXEL_STD), -PIXEL_MEAN / PIXEL_STD, **policy),
        whitening,
        layers.ReLU(**policy),
    ]
    for width in widths:
        for position in range(2):
            pooled = position == 0
            stack.append(QuickConv2D(width, 3, padding="same", use_bias=False, pooled=pooled, **policy))
            stack.append(FusedBatchNormalization(momentum=0.6, epsilon=1e-5, scale=False, **policy))
            stack.append(QuickActivation(activation, **policy))
    stack.append(layers.GlobalMaxPooling2D(**policy))
    if dropout:
        stack.append(layers.Dropout(dropout, **policy))
    stack.append(layers.Rescaling(_HEAD_SCALE, **policy))
    stack.append(layers.Dense(num_classes, dtype="float32", name="logits"))
    network = keras.Sequential(stack)
    whitening.set_weights([filters])
    for layer in network.layers:
        if isinstance(layer, QuickConv2D):
            layer.set_weights([_passing_on(*layer.get_weights())])
    return network


def _passing_on(kernel: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a kernel (H, W, C, D) whose first channels are those that come in, and the rest as it was."""
    height, width, *channels = kernel.shape
    passed = np.arange(min(channels))
    kernel[..., : len(passed)] = 0
    kernel[height // 2, width // 2, passed, passed] = 1
    return kernel


def to_serve(network: keras.Sequential, *, views: Sequence[View], temperature: float = 1.0) -> keras.Model:
    """Return the network as it is served: the same answers, from Keras' own layers, in float32.

    Batch normalisation without a scale of its own multiplies by a positive number, so it passes through
    the pooling before it, and into the convolution before that.

    Returns:
        uint8 (N, 32, 32, 3) to probabilities, float32 (N, num_classes): the softmax of the mean logits of
        all views, divided by the temperature.
    """
    stack: list[Any] = [keras.Input(IMAGE_SHAPE, dtype="float32")]
    weights: list[npt.NDArray[np.float32]] = []
    for layer, behind in pairwise([*network.layers, None]):
        if isinstance(layer, FusedBatchNormalization | layers.Dropout):
            continue
        settings = layer.get_config() | {"dtype": "float32", "trainable": True}
        pooled = settings.pop("pooled", False)
        if isinstance(layer, layers.Conv2D):
            settings["use_bias"] = True
            weights += _folded(layer, behind)
        elif isinstance(layer, layers.Dense):
            weights += [values / temperature for values in layer.get_weights()]
        plain = (kind for kind in (layers.Conv2D, layers.Activation, type(layer)) if isinstance(layer, kind))
        stack.append(next(plain).from_config(settings))
        if pooled:
            stack.append(layers.MaxPooling2D(dtype="float32"))
    body = keras.Sequential(stack, name="body")
    body.set_weights(weights)
    image = keras.Input(IMAGE_SHAPE, dtype="uint8", name="image")
    logits = average(body(show(keras.ops.cast(image, "float32"), views)), views)
    probabilities = layers.Softmax(dtype="float32", name="probabilities")(logits)
    return keras.Model(image, probabilities, name=network.name)


def _folded(
    convolution: layers.Conv2D, behind: keras.Layer
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return kernel and bias of a convolution and of the normalisation behind it, if it is one."""
    (kernel,) = convolution.get_weights()
    if not isinstance(behind, FusedBatchNormalization):
        return kernel, np.zeros(kernel.shape[-1], np.float32)
    beta, mean, variance = behind.get_weights()
    scale = 1 / np.sqrt(variance + behind.epsilon)
    return kernel * scale, beta - mean * scale
