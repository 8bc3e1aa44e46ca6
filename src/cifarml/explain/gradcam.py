"""Grad-CAM heat maps: evidence for a class by image region."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from cifarml.errors import ModelFileError, SettingsError
from cifarml.images import ImageLike, decode_image
from cifarml.model.keras_defaults import keras_defaults
from cifarml.model.presets import PRESETS
from cifarml.model.test_time_augmentation import ALONE, MIRRORED, MOVED, View, average, show
from cifarml.predict import Prediction
from cifarml.run import KERAS_MODEL, Run, RunLike

_CONVOLUTIONS: Final = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
_ACTIVATIONS: Final = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU, keras.layers.Activation)
_TOLERANCE: Final = 5e-3
"""Maximum difference in a probability between the split network and the served model."""


class Explanation(NamedTuple):
    """Grad-CAM heat map of an image.

    Attributes:
        prediction: The model's prediction for the image.
        class_name: The explained class.
        heat: float32, shape (h, w), 0 to 1: the evidence for the class in each region of the image, at the
            spatial resolution of the last convolution. All zeros if there is no evidence.
        layer: Name of that convolution.
    """

    prediction: Prediction
    class_name: str
    heat: npt.NDArray[np.float32]
    layer: str


class _Parts(NamedTuple):
    """A network split after its last convolution."""

    features: keras.Model
    head: keras.Model
    layer: str


@keras_defaults()
def explain_image(run: RunLike, image: ImageLike, *, class_name: str | None = None) -> Explanation:
    """Compute a Grad-CAM heat map of the evidence for a class in an image.

    Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017, equations 1 and 2) weights the feature maps of the last convolution by the mean
    gradient of the class logit, sums them and applies ReLU. With test-time augmentation, the heat maps of all
    views are averaged, after flipping those of mirrored views back. One-pixel shifts are not undone, since a
    cell of the heat map covers several pixels.

    Args:
        run: A run, the path of its folder, or a registered model.
        image: The path or bytes of an image file, a binary file object, a `PIL.Image.Image` or a uint8
            array; see `cifarml.ImageLike`.
        class_name: The class to explain; the predicted class if omitted.

    Returns:
        The prediction and the heat map.

    Raises:
        ModelFileError: If the folder has no finished, unmodified model, or the model has no convolution or
            an architecture other than that of a preset.
        ImageError: If the image can't be read.
        SettingsError: If the model has no such class, or the Keras backend is neither TensorFlow nor JAX.

    Example:
        ```python
        explanation = cifarml.explain_image("runs/first", "ship.png")
        explanation.heat.shape  # (3, 3)
        ```
    """
    run = Run.open(run)
    pixels = decode_image(image)
    if class_name is not None and class_name not in run.class_names:
        raise SettingsError(
            f"the model has no class {class_name!r}. Its classes: {', '.join(run.class_names[:10])}",
            hint="list all classes: cifarml predict IMAGE --top 1000",
        )
    prediction = run.predictor().predict(pixels)  # avoids decoding twice
    class_name = class_name if class_name is not None else prediction.label
    parts = _split(_load_network(run), run.path)
    expected = np.array([prediction.probabilities[name] for name in run.class_names])
    views = _views(parts, pixels, expected, run)
    heat = _heat(parts, pixels, views, run.class_names.index(class_name))
    return Explanation(prediction, class_name, heat, parts.layer)


def _load_network(run: Run) -> keras.Model:
    content = run.read(KERAS_MODEL)
    with tempfile.TemporaryDirectory(prefix="cifarml-") as folder:
        path = Path(folder, KERAS_MODEL)  # the verified bytes, even if the file changes
        path.write_bytes(content)
        try:
            return keras.models.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # Keras raises almost anything on invalid files
            raise ModelFileError(f"{run.path / KERAS_MODEL} can't be loaded: {error}") from error


def _split(network: keras.Model, path: Path) -> _Parts:
    """Split the network, or the nested one that contains the last convolution, after that convolution."""
    found = list(_convolutions(network))
    if not found:
        raise ModelFileError(f"Grad-CAM requires a convolution, but the network in {path} has no convolution")
    inner, name = found[-1]
    inner = _as_graph(inner)
    layer = inner.get_layer(name)
    maps = layer.output
    for each in inner.layers:
        if isinstance(each, _ACTIVATIONS) and each.input is maps:
            maps = each.output  # the input of the following layer
    try:
        return _Parts(keras.Model(inner.inputs[0], maps), keras.Model(maps, _logits(inner)), name)
    except ValueError as error:  # the convolution is bypassed
        raise ModelFileError(f"the network in {path} can't be split after {name}: {error}") from error


def _as_graph(network: keras.Model) -> keras.Model:
    """Rebuild a Sequential as a functional model with the same weights, in which each layer has one node.

    A Sequential adds its layers to a new graph whenever one is added, so they have several nodes.
    """
    if not isinstance(network, keras.Sequential):
        return network
    image = keras.Input(network.input_shape[1:])
    output = image
    copies = [type(layer).from_config(layer.get_config()) for layer in network.layers]
    for layer in copies:
        output = layer(output)
    for layer, copy in zip(network.layers, copies, strict=True):
        copy.set_weights(layer.get_weights())
    return keras.Model(image, output)


def _convolutions(network: keras.Model) -> Iterator[tuple[keras.Model, str]]:
    """Yield the convolutions of a network and of nested networks, in layer order."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from _convolutions(layer)
        elif isinstance(layer, _CONVOLUTIONS):
            yield network, layer.name


def _logits(network: keras.Model) -> Any:
    """Return the output of a network, without its final softmax if there is one."""
    last = network.layers[-1]
    if isinstance(last, keras.layers.Softmax):
        return last.input
    if getattr(last, "activation", None) is keras.activations.softmax:
        linear = type(last).from_config(last.get_config() | {"activation": "linear", "name": "logits"})
        logits = linear(last.input)
        linear.set_weights(last.get_weights())
        return logits
    return network.outputs[0]


def _views(
    parts: _Parts, image: npt.NDArray[np.uint8], expected: npt.NDArray[np.float64], run: Run
) -> tuple[View, ...]:
    """Find the test-time augmentation of the served model, trying that of its preset first."""
    preset = PRESETS.get(str(run.info.get("preset")))
    for views in dict.fromkeys((*([preset.views] if preset else []), MIRRORED, MOVED, ALONE)):
        logits = parts.head(parts.features(_shown(image, views), training=False), training=False)
        mean = keras.ops.convert_to_numpy(average(logits, views))[0].astype(np.float64)
        shares = np.exp(mean - mean.max())
        if np.abs(shares / shares.sum() - expected).max() <= _TOLERANCE:
            return views
    raise ModelFileError(f"Grad-CAM does not support the architecture of the network in {run.path}")


def _shown(image: npt.NDArray[np.uint8], views: Sequence[View]) -> Any:
    return show(keras.ops.convert_to_tensor(image[np.newaxis].astype(np.float32)), views)


def _heat(
    parts: _Parts, image: npt.NDArray[np.uint8], views: Sequence[View], label: int
) -> npt.NDArray[np.float32]:
    maps = parts.features(_shown(image, views), training=False)
    gradients = _gradient(parts.head, maps, label)
    weights = gradients.mean(axis=(1, 2), keepdims=True)
    heats = np.maximum((weights * keras.ops.convert_to_numpy(maps)).sum(axis=-1), 0)
    heat = sum(
        view.share * (heat[:, ::-1] if view.mirrored else heat)
        for heat, view in zip(heats, views, strict=True)
    )
    most = np.max(heat)
    return np.asarray(heat / most if most > 0 else heat, np.float32)


def _gradient(head: keras.Model, maps: Any, label: int) -> npt.NDArray[np.float32]:
    """Return the gradient of a class logit with respect to the feature maps, in their shape."""

    def score(values: Any) -> Any:
        return keras.ops.sum(head(values, training=False)[:, label])

    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(maps)
            total = score(maps)
        return np.asarray(tape.gradient(total, maps))
    if keras.config.backend() == "jax":
        import jax

        return np.asarray(jax.grad(score)(maps))
    raise SettingsError(
        f"Grad-CAM requires TensorFlow or JAX. Received: KERAS_BACKEND={keras.config.backend()}",
        hint="unset KERAS_BACKEND",
    )
