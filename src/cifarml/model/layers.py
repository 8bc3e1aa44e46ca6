"""Custom Keras layers with faster kernels, and the whitening initializer."""

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
"""Mean and standard deviation of the pixels of photographs on a scale of 0 to 1, over all channels."""

_MAX_IMAGES: Final = 5000
_RIDGE: Final = 5e-4
"""Added to the variances of patches, so that faint directions are not amplified to full strength."""
_QUANTIZATION: Final = (1 / 255 / PIXEL_STD) ** 2 / 12
"""Variance of rounding to 8 bits. A direction with less contains no signal, such as color in grayscale images
or edges in constant ones; in float32 its variance would be rounding noise."""
_SMALL: Final = 8
"""Up to this image size the bfloat16 gradient is faster as a convolution; larger ones exceed the cache."""


class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Keras' batch normalisation, with TensorFlow's fused kernel for training.

    Keras composes it of reductions and products in float32, because they would overflow in float16.
    TensorFlow's fused kernel accumulates in float32 for any input dtype, and oneDNN supports it for bfloat16.
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
        for moving, batch in (
            (self.moving_mean, normalised.batch_mean),
            (self.moving_variance, normalised.batch_variance),
        ):
            moving.assign(moving.value * self.momentum + batch * (1 - self.momentum))
        return normalised.y


class QuickActivation(keras.layers.Activation):  # type: ignore[misc]
    """Keras' activation, with a fused gradient of SiLU for float32 on a CPU.

    TensorFlow composes this gradient of six operations, each with a pass over the memory; XLA fuses them
    into one.
    """

    def call(self, inputs: Any) -> Any:
        """Apply the activation; see :class:`keras.layers.Activation`."""
        if (
            self.activation is not keras.activations.silu
            or keras.config.backend() != "tensorflow"
            or keras.backend.standardize_dtype(inputs.dtype) != "float32"
            or not _on_processor()
        ):
            return super().call(inputs)
        return _silu(tf.convert_to_tensor(inputs))


class QuickConv2D(keras.layers.Conv2D):  # type: ignore[misc]
    """Keras' convolution with optional max pooling, faster for small images on a CPU.

    In float32, 3x3 kernels use Winograd convolution, with a quarter of the multiplications
    (:mod:`cifarml.model.winograd`).

    In bfloat16, the weight gradient is computed as a convolution, which takes two thirds of the time:
    oneDNN's kernel for weight gradients reaches 60 % of the rate of its convolution kernel (measured with
    TensorFlow 2.21 on AVX-512). The gradient of a weight is the sum, over images and positions, of a pixel
    times an output gradient at a fixed offset. That is a convolution with images and channels swapped.

    Args:
        *arguments: Positional arguments of :class:`keras.layers.Conv2D`.
        pooled: Whether the layer also applies 2x2 max pooling. Pooling ignores the last row and column of an
            image with an odd side, so they are not computed.
        **settings: Keyword arguments of :class:`keras.layers.Conv2D`.
    """

    def __init__(self, *arguments: Any, pooled: bool = False, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.pooled = pooled

    def call(self, inputs: Any) -> Any:
        """Convolve and pool; see :class:`keras.layers.Conv2D`."""
        outputs = super().call(inputs)
        return keras.ops.max_pool(outputs, (2, 2), (2, 2)) if self.pooled else outputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the output."""
        shape = super().compute_output_shape(input_shape)
        return (shape[0], shape[1] // 2, shape[2] // 2, shape[3]) if self.pooled else shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
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
        if dtype == "float32" and winograd.is_faster(size, min(channels, self.filters)):
            return winograd.convolve(inputs, kernel, size=size)
        if dtype == "bfloat16" and height <= _SMALL and keras.config.backend() == "tensorflow":
            return _convolve(tf.convert_to_tensor(inputs), tf.cast(kernel, inputs.dtype))
        return super().convolution_op(inputs, kernel)


def _on_processor() -> bool:
    if keras.config.backend() == "tensorflow":
        return not tf.config.list_physical_devices("GPU")  # Keras' device list would allocate their memory
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
        """Convolve zero-padded images (N, H, W, C) with a kernel (3, 3, C, D)."""

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
    """Return convolution filters that whiten (decorrelate) image patches.

    They are the principal axes of the patches, scaled to unit variance, and their negatives, so that a
    following ReLU loses no information (K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024,
    section 3.2, after T. Tysam's hlb-CIFAR10). Axes without signal have filters of zeros, so that the network
    ignores what it has not seen in training.

    Args:
        images: uint8, shape (N, H, W, 3); at most 5000, drawn at random, are used.
        size: Height and width of a patch, in pixels.

    Returns:
        float32, shape (size, size, 3, 6 * size**2), for pixels of mean 0 and variance 1.
    """
    if len(images) > _MAX_IMAGES:  # often sorted by class
        images = images[np.random.default_rng(0).choice(len(images), _MAX_IMAGES, replace=False)]
    pixels = (images.astype(np.float32) / 255 - PIXEL_MEAN) / PIXEL_STD
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(1, 2))
    patches = windows[:, ::3, ::3].transpose(0, 1, 2, 4, 5, 3).reshape(-1, size * size * 3)
    variances, axes = np.linalg.eigh(patches.T.astype(np.float64) @ patches / len(patches))
    scales = (variances > _QUANTIZATION) / np.sqrt(np.abs(variances) + _RIDGE)
    filters = (axes * scales).T[::-1].reshape(-1, size, size, 3).transpose(1, 2, 3, 0)
    return np.concatenate([filters, -filters], axis=-1).astype(np.float32)
