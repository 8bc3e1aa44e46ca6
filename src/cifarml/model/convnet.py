"""Convolutional network of the presets ``fast`` and ``best``.

The training network maps raw pixels to logits. It consists of a frozen whitening convolution and blocks of
two 3x3 convolutions with batch normalisation and an activation; the first convolution of a block is followed
by max pooling. The first channels of each convolution are initialised to the identity (K. Jordan, "94% on
CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, sections 3.1 and 3.3). The serving network uses only
built-in Keras layers in float32, with the batch normalisation folded into the convolutions, and test-time
augmentation.
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
"""Keeps the initial logits small; Jordan, 2024, section 3.1."""
_EPSILON = 1e-3
"""Keras' default. A kernel has norm 1 per channel, so channels that carry a signal have a variance near 1."""
_CONSTANT = 2**-18
"""Variance of a constant channel: that of rounding a value of 1 to bfloat16, or less."""


def build_network(
    num_classes: int,
    widths: tuple[int, ...],
    *,
    images: npt.NDArray[np.uint8] | None = None,
    dropout: float = 0.0,
    activation: str = "relu",
    precision: str = "float32",
) -> keras.Sequential:
    """Build the training network.

    Args:
        num_classes: Number of logits.
        widths: Number of channels of each block.
        images: Training images to compute the whitening filters from, uint8, shape (N, 32, 32, 3). Noise by
            default.
        dropout: Dropout rate before the head.
        activation: Keras name of the activation.
        precision: Keras dtype policy, such as ``mixed_bfloat16``.

    Returns:
        The uncompiled network: uint8 (N, 32, 32, 3) to float32 logits (N, num_classes).
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
            stack.append(FusedBatchNormalization(momentum=0.6, epsilon=_EPSILON, scale=False, **policy))
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
            layer.set_weights([_identity_initialized(*layer.get_weights())])
    return network


def _identity_initialized(kernel: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Set the first output channels of a kernel (H, W, C, D) to the identity, as many as possible."""
    height, width, *channels = kernel.shape
    identity = np.arange(min(channels))
    kernel[..., : len(identity)] = 0
    kernel[height // 2, width // 2, identity, identity] = 1
    return kernel


def to_serve(network: keras.Sequential, *, views: Sequence[View], temperature: float = 1.0) -> keras.Model:
    """Convert a trained network to the serving network, with built-in Keras layers in float32.

    Batch normalisation without gamma multiplies by a positive number, so it commutes with the max pooling
    before it and can be folded into the convolution before that.

    Args:
        network: The trained network.
        views: Views of an image for test-time augmentation.
        temperature: Softmax temperature from the calibration.

    Returns:
        uint8 (N, 32, 32, 3) to probabilities, float32 (N, num_classes): the softmax of the weighted mean of
        the logits of all views, divided by the temperature.
    """
    stack: list[Any] = [keras.Input(IMAGE_SHAPE, dtype="float32")]
    weights: list[npt.NDArray[np.float32]] = []
    for layer, following in pairwise([*network.layers, None]):
        if isinstance(layer, FusedBatchNormalization | layers.Dropout):
            continue
        settings = layer.get_config() | {"dtype": "float32", "trainable": True}
        pooled = settings.pop("pooled", False)
        if isinstance(layer, layers.Conv2D):
            settings["use_bias"] = True
            weights += _fold_normalization(layer, following)
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


def _fold_normalization(
    convolution: layers.Conv2D, following: keras.Layer
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the kernel and bias of a convolution, with a following batch normalisation folded in.

    A channel that was constant in training stays constant for any image. Otherwise each normalisation would
    multiply what other images cause in it by up to 1 / sqrt(epsilon), and rounding errors would decide.
    """
    (kernel,) = convolution.get_weights()
    if not isinstance(following, FusedBatchNormalization):
        return kernel, np.zeros(kernel.shape[-1], np.float32)
    beta, mean, variance = following.get_weights()
    scale = (variance > _CONSTANT) / np.sqrt(variance + following.epsilon)
    return kernel * scale, beta - mean * scale
