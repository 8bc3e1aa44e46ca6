"""Grad-CAM heat maps: which places of an image speak for a class."""

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
from cifarml.model.presets import PRESETS
from cifarml.model.test_time_augmentation import ALONE, MIRRORED, MOVED, View, average, show
from cifarml.predict import Prediction
from cifarml.run import KERAS_MODEL, Run, RunLike

_CONVOLUTIONS: Final = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
_ACTIVATIONS: Final = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU, keras.layers.Activation)
_TOLERANCE: Final = 5e-3
"""The network that is taken apart may differ from the one that answers by so much in a probability."""


class Explanation(NamedTuple):
    """Grad-CAM heat map of an image.

    Attributes:
        prediction: The model's prediction for the image.
        class_name: The class that is explained.
        heat: float32, shape (h, w), 0 to 1: how much each place speaks for the class, as coarse as the last
            convolution sees the image, over all of its square. All zeros where nothing speaks for it.
        layer: Name of that convolution.
    """

    prediction: Prediction
    class_name: str
    heat: npt.NDArray[np.float32]
    layer: str


class _Parts(NamedTuple):
    """A network cut in two behind its last convolution."""

    features: keras.Model
    head: keras.Model
    layer: str


def explain_image(run: RunLike, image: ImageLike, *, class_name: str | None = None) -> Explanation:
    """Show which places of an image speak for a class, by Grad-CAM.

    Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017, equations 1 and 2): the maps of the last convolution, each weighted with how
    much the logit of the class grows with it on average, are added up, and what is below 0 is dropped. A
    network that answers by the mean over several views of an image is explained by the mean of their maps,
    mirrored back; views a pixel further are not moved back, as a place of the map is several pixels wide.

    Args:
        run: A run, the path of its folder, or a registered model.
        image: The path or bytes of an image file, a binary file object, a ``PIL.Image.Image`` or a uint8
            array; see :data:`~cifarml.images.ImageLike`.
        class_name: The class to explain; the predicted one by default.

    Returns:
        The prediction, and the map.

    Raises:
        ModelFileError: If there is no finished, unchanged model in the folder, or it can't be analysed:
            it has no convolution, or its structure is not that of a preset.
        ImageError: If the image can't be read.
        SettingsError: If the model doesn't know the class, or the Keras backend gives no gradients.

    Example:
        >>> explain_image("runs/first", "ship.png").heat.shape  # doctest: +SKIP
        (3, 3)
    """
    run = Run.open(run)
    pixels = decode_image(image)
    if class_name is not None and class_name not in run.class_names:
        raise SettingsError(
            f"the model does not know {class_name!r}; it knows {', '.join(run.class_names[:10])}",
            hint="all of them: cifarml predict IMAGE --top 1000",
        )
    prediction = run.predictor().predict(pixels)  # decoded already
    class_name = class_name if class_name is not None else prediction.label
    parts = _take_apart(_load_network(run), run.path)
    expected = np.array([prediction.probabilities[name] for name in run.class_names])
    views = _views(parts, pixels, expected, run)
    heat = _heat(parts, pixels, views, run.class_names.index(class_name))
    return Explanation(prediction, class_name, heat, parts.layer)


def _load_network(run: Run) -> keras.Model:
    content = run.read(KERAS_MODEL)
    with tempfile.TemporaryDirectory(prefix="cifarml-") as folder:
        path = Path(folder, KERAS_MODEL)  # of the bytes whose hash was checked, whatever happens to the file
        path.write_bytes(content)
        try:
            return keras.models.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # Keras raises almost anything on files that aren't its own
            raise ModelFileError(f"{run.path / KERAS_MODEL} can't be loaded: {error}") from error


def _take_apart(network: keras.Model, path: Path) -> _Parts:
    """Cut the network, or the one inside it that holds the last convolution, behind that convolution."""
    found = list(_convolutions(network))
    if not found:
        raise ModelFileError(f"the network in {path} has no convolution, so there is no map to draw")
    inner, name = found[-1]
    inner = _as_graph(inner)
    layer = inner.get_layer(name)
    maps = layer.output
    for each in inner.layers:
        if isinstance(each, _ACTIVATIONS) and each.input is maps:
            maps = each.output  # what the rest of the network sees of the convolution
    try:
        return _Parts(keras.Model(inner.inputs[0], maps), keras.Model(maps, _logits(inner)), name)
    except ValueError as error:  # a path leads around the convolution
        raise ModelFileError(f"the network in {path} can't be cut behind {name}: {error}") from error


def _as_graph(network: keras.Model) -> keras.Model:
    """Return a network whose layers each stand in one place of its graph, with the same weights.

    A Sequential puts all its layers into a new graph whenever one is added, and forgets none of them.
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
    """Find the convolutions of a network and of those inside it, in the order of its layers."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from _convolutions(layer)
        elif isinstance(layer, _CONVOLUTIONS):
            yield network, layer.name


def _logits(network: keras.Model) -> Any:
    """Return the output of a network before its softmax, if it ends in one."""
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
    """Return the views of an image whose mean logits are the model's answer: its preset's, as a rule."""
    preset = PRESETS.get(str(run.info.get("preset")))
    for views in dict.fromkeys((*([preset.views] if preset else []), MIRRORED, MOVED, ALONE)):
        logits = parts.head(parts.features(_shown(image, views), training=False), training=False)
        mean = keras.ops.convert_to_numpy(average(logits, views))[0].astype(np.float64)
        shares = np.exp(mean - mean.max())
        if np.abs(shares / shares.sum() - expected).max() <= _TOLERANCE:
            return views
    raise ModelFileError(f"the network in {run.path} is built in a way that can't be explained")


def _shown(image: npt.NDArray[np.uint8], views: Sequence[View]) -> Any:
    return show(keras.ops.convert_to_tensor(image[np.newaxis].astype(np.float32)), views)


def _heat(
    parts: _Parts, image: npt.NDArray[np.uint8], views: Sequence[View], label: int
) -> npt.NDArray[np.float32]:
    maps = parts.features(_shown(image, views), training=False)
    slopes = _gradient(parts.head, maps, label)
    weights = slopes.mean(axis=(1, 2), keepdims=True)
    heats = np.maximum((weights * keras.ops.convert_to_numpy(maps)).sum(axis=-1), 0)
    heat = sum(
        view.share * (heat[:, ::-1] if view.mirrored else heat)
        for heat, view in zip(heats, views, strict=True)
    )
    most = np.max(heat)
    return np.asarray(heat / most if most > 0 else heat, np.float32)


def _gradient(head: keras.Model, maps: Any, label: int) -> npt.NDArray[np.float32]:
    """Return how the logit of a class grows with each value of the maps, in their shape."""

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
        f"gradients are taken with TensorFlow or JAX. Received: KERAS_BACKEND={keras.config.backend()}",
        hint="leave KERAS_BACKEND unset",
    )
