"""Layers and first weights that Keras has not, or not as fast."""

from __future__ import annotations

from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt

from cifarml.model import winograd

if keras.config.backend() == "tensorflow":
    import tensorflow as tf

PIXEL_MEAN: Final = 0.449
PIXEL_STD: Final = 0.226
"""Mean and standard deviation of photographs' pixels on a scale of 0 to 1, over all three channels."""

_MOST_IMAGES: Final = 5000
_SMALL: Final = 8
"""Up to this side of an image the gradient is quicker as a convolution in bfloat16; larger ones leave the
cache."""


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


class QuickActivation(keras.layers.Activation):  # type: ignore[misc]
    """Keras' activation; the gradient of SiLU takes one pass over the memory, in float32 on a processor.

    TensorFlow composes it of six operations; XLA makes one of them.
    """

    def call(self, inputs: Any) -> Any:
        """Apply it; see :class:`keras.layers.Activation`."""
        if (
            self.activation is not keras.activations.silu
            or keras.config.backend() != "tensorflow"
            or keras.backend.standardize_dtype(inputs.dtype) != "float32"
            or not _on_processor()
        ):
            return super().call(inputs)
        return _silu(tf.convert_to_tensor(inputs))


class QuickConv2D(keras.layers.Conv2D):  # type: ignore[misc]
    """Keras' convolution, and the pooling behind it; quicker on a processor where images are small.

    In float32, 3x3 kernels take a quarter of the multiplications (:mod:`cifarml.model.winograd`).

    In bfloat16 the gradient of the weights takes two thirds of the time: oneDNN's kernel for it reaches 60 %
    of the rate of its kernel for convolutions (measured with 2.21 on AVX-512). The gradient of a weight is
    the sum, over images and places, of a pixel times a gradient some places further: that is a convolution,
    too, whose images are the channels and whose channels are the images.

    Args:
        *arguments: Those of Keras' own.
        pooled: Whether max pooling of 2x2 pixels follows, within this layer; it does not look at the last
            row and column of an image with an odd number of them, and so they need not be computed.
        **settings: Those of Keras' own.
    """

    def __init__(self, *arguments: Any, pooled: bool = False, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.pooled = pooled

    def call(self, inputs: Any) -> Any:
        """Convolve and pool; see :class:`keras.layers.Conv2D`."""
        outputs = super().call(inputs)
        return keras.ops.max_pool(outputs, (2, 2), (2, 2)) if self.pooled else outputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of what comes out."""
        shape = super().compute_output_shape(input_shape)
        return (shape[0], shape[1] // 2, shape[2] // 2, shape[3]) if self.pooled else shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments it was made with."""
        return {**super().get_config(), "pooled": self.pooled}

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolve; see :class:`keras.layers.Conv2D`."""
        _, height, width, channels = inputs.shape
        if (
            (self.kernel_size, self.strides, self.padding) != ((3, 3), (1, 1), "same")
            or (self.groups, self.dilation_rate, self.data_format) != (1, (1, 1), "channels_last")
            or height != width
            or height is None
            or not _on_processor()
        ):
            return super().convolution_op(inputs, kernel)
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        size = height - height % 2 if self.pooled else height
        if dtype == "float32" and winograd.pays(size, min(channels, self.filters)):
            return winograd.convolve(inputs, kernel, size=size)
        if dtype == "bfloat16" and height <= _SMALL and keras.config.backend() == "tensorflow":
            return _convolve(tf.convert_to_tensor(inputs), tf.cast(kernel, inputs.dtype))
        return super().convolution_op(inputs, kernel)


def _on_processor() -> bool:
    if keras.config.backend() == "tensorflow":
        return not tf.config.list_physical_devices("GPU")  # Keras' own list would take their memory
    return bool(keras.distribution.list_devices()[0].lower().startswith("cpu"))


if keras.config.backend() == "tensorflow":

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def _silu(values: Any) -> Any:
        return tf.nn.silu(values), lambda of_output: _silu_gradient(values, of_output)

    @tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
    def _silu_gradient(values: Any, of_output: Any) -> Any:
        share = tf.sigmoid(values)
        return of_output * share * (1 + values * (1 - share))

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def _convolve(images: Any, kernel: Any) -> Any:
        """Convolve images (N, H, W, C) with a kernel (3, 3, C, D), zeros around them."""

        def gradient(of_output: Any) -> tuple[Any, Any]:
            of_images = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(images),
                filter=kernel,
                out_backprop=of_output,
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
            of_kernel = tf.nn.conv2d(
                tf.transpose(images, [3, 1, 2, 0]),  # (C, H, W, N)
                tf.transpose(of_output, [1, 2, 0, 3]),  # (H, W, N, D)
                strides=1,
                padding=[[0, 0], [1, 1], [1, 1], [0, 0]],
            )
            return of_images, tf.transpose(of_kernel, [1, 2, 0, 3])

        return tf.nn.conv2d(images, kernel, strides=1, padding="SAME"), gradient


def whitening_filters(images: npt.NDArray[np.uint8], size: int = 2) -> npt.NDArray[np.float32]:
    """Return filters after which neighbouring pixels no longer say the same.

    They are the principal axes of the images' patches, each scaled to unit variance, and the same
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
