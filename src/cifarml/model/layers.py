"""Layers and first weights that Keras has not, or not as fast."""

from __future__ import annotations

from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt

if keras.config.backend() == "tensorflow":
    import tensorflow as tf

__all__ = ["PIXEL_MEAN", "PIXEL_STD", "FusedBatchNormalization", "whitening_filters"]

PIXEL_MEAN: Final = 0.449
PIXEL_STD: Final = 0.226
"""Mean and standard deviation of photographs' pixels on a scale of 0 to 1, over all three channels."""

_MOST_IMAGES: Final = 5000


class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Keras' batch normalisation; training on TensorFlow takes one kernel for all of it.

    Keras composes it of reductions and products in float32, because float16 would overflow in them.
    TensorFlow's own kernel adds up in float32 whatever comes in, and oneDNN has it for bfloat16.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise; see :class:`keras.layers.BatchNormalization`."""
        if keras.config.backend() != "tensorflow" or not training:
            return super().call(inputs, training=training, mask=mask)
        normalised = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value if self.scale else tf.ones(inputs.shape[-1:]),
            offset=self.beta.value,
            mean=self.moving_mean.value,
            variance=self.moving_variance.value,
            epsilon=self.epsilon,
            is_training=True,
            exponential_avg_factor=1.0,
        )
        for kept, seen in (
            (self.moving_mean, normalised.batch_mean),
            (self.moving_variance, normalised.batch_variance),
        ):
            kept.assign(kept.value * self.momentum + seen * (1 - self.momentum))
        return normalised.y


def whitening_filters(images: npt.NDArray[np.uint8], size: int = 2) -> npt.NDArray[np.float32]:
    """Return filters after which neighbouring pixels no longer say the same.

    They are the principal axes of the pictures' patches, each scaled to unit variance, and the same
    negated, so that nothing is lost behind a ReLU (K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single
    GPU", 2024, section 3.2, after T. Tysam's hlb-CIFAR10).

    Args:
        images: uint8, shape (N, H, W, 3); of more than 5000 the first are taken.
        size: Side of a patch, in pixels.

    Returns:
        float32, shape (size, size, 3, 6 * size**2), for pixels of mean 0 and variance 1.
    """
    pixels = (images[:_MOST_IMAGES].astype(np.float32) / 255 - PIXEL_MEAN) / PIXEL_STD
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(1, 2))
    patches = windows[:, ::3, ::3].transpose(0, 1, 2, 4, 5, 3).reshape(-1, size * size * 3)
    variances, axes = np.linalg.eigh(patches.T.astype(np.float64) @ patches / len(patches))
    filters = (axes / np.sqrt(variances + 5e-4)).T[::-1].reshape(-1, size, size, 3).transpose(1, 2, 3, 0)
    return np.concatenate([filters, -filters], axis=-1).astype(np.float32)
