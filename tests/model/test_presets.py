"""Networks of the presets: layers, inputs, outputs and custom kernels, on both backends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, get_args

import keras
import numpy as np
import pytest

from cifarml import Dataset, build_model
from cifarml.errors import SettingsError
from cifarml.model import best, winograd
from cifarml.model.convnet import build_network, to_serve
from cifarml.model.layers import (
    PIXEL_MEAN,
    PIXEL_STD,
    FusedBatchNormalization,
    QuickActivation,
    QuickConv2D,
    whitening_filters,
)
from cifarml.model.presets import PRESETS
from cifarml.model.test_time_augmentation import ALONE, MIRRORED, MOVED, View
from cifarml.train.config import PresetName
from tests.flat_images import UNSEEN


def test_tutorial_has_the_parameters_of_the_article() -> None:
    assert build_model("tutorial", num_classes=10).count_params() == 1_250_858


def test_tutorial_has_the_layers_of_the_article() -> None:
    kinds = [type(layer).__name__ for layer in build_model("tutorial", 10).layers]
    block = ["Conv2D", "Conv2D", "MaxPooling2D", "Dropout"]
    assert kinds == ["Rescaling", *block, *block, "Flatten", "Dense", "Dropout", "Dense"]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_model_maps_pixels_to_probabilities(preset: str, num_classes: int) -> None:
    model = build_model(preset, num_classes)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    probabilities = keras.ops.convert_to_numpy(model(pixels))
    assert model.input_shape == (None, 32, 32, 3)
    assert model.inputs[0].dtype == "uint8"
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (3, num_classes)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_first_layer_rescales_pixels() -> None:
    """The input of the first convolution is in the range 0 to 1."""
    pixels = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1) * np.ones((1, 32, 32, 3), np.uint8)
    out = keras.ops.convert_to_numpy(build_model("tutorial", 10).layers[0](pixels))
    assert np.allclose(out[:, 0, 0, 0], [0, 0.2, 1])


@pytest.mark.parametrize("widths", [(30, 40), (8,)])  # there are 24 whitened channels
def test_convolutions_are_initialised_to_the_identity(widths: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    for layer in build_network(10, widths).layers:
        if isinstance(layer, QuickConv2D):
            images = random.normal(size=(2, 9, 9, layer.kernel.shape[2])).astype(np.float32)
            identity = min(layer.kernel.shape[2:])
            layer.pooled = False
            outputs = keras.ops.convert_to_numpy(layer(images))
            np.testing.assert_allclose(outputs[..., :identity], images[..., :identity], rtol=1e-6)
            assert (np.abs(outputs[..., identity:]).max(axis=(0, 1, 2)) > 0).all()


def trained_network(
    drawn: Dataset, precision: str, activation: str = "relu", num_epochs: int = 3
) -> keras.Sequential:
    keras.utils.set_random_seed(0)
    network = build_network(10, (16, 32), images=drawn.images, activation=activation, precision=precision)
    network.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    network.fit(drawn.images, drawn.labels, batch_size=50, epochs=num_epochs, shuffle=False, verbose=0)
    return network


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_serving_network_matches_trained_network(drawn: Dataset, activation: str) -> None:
    """It has only built-in Keras layers without batch normalisation, and averages over mirror images."""
    network = trained_network(drawn, "float32", activation)
    logits = [network.predict(images, verbose=0) for images in (drawn.images, drawn.images[:, :, ::-1])]
    for temperature in (1.0, 2.5):
        served = to_serve(network, views=MIRRORED, temperature=temperature)
        predicted = served.predict(drawn.images, verbose=0)
        expected = keras.ops.convert_to_numpy(keras.ops.softmax((logits[0] + logits[1]) / 2 / temperature))
        assert np.abs(predicted - expected).max() < 1e-5
        assert np.abs(predicted - served.predict(drawn.images[:, :, ::-1], verbose=0)).max() < 1e-5
        kinds = {type(layer) for layer in served.get_layer("body").layers}
        assert all(kind.__module__.startswith("keras.") for kind in kinds)
        assert keras.layers.BatchNormalization not in kinds


@pytest.mark.parametrize("views", [ALONE, MIRRORED, MOVED])
def test_prediction_is_the_mean_over_the_views(drawn: Dataset, views: Sequence[View]) -> None:
    network = build_network(10, (8,), images=drawn.images)
    predicted = to_serve(network, views=views).predict(drawn.images[:5], verbose=0)
    logits: Any = 0
    for mirrored, moved, share in views:
        seen = drawn.images[:5, :, ::-1] if mirrored else drawn.images[:5]
        seen = np.pad(seen, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")[:, 1 + moved :, 1 + moved :]
        logits += share * network.predict(seen[:, :32, :32], verbose=0)
    assert sum(view.share for view in views) == 1
    assert np.abs(predicted - keras.ops.convert_to_numpy(keras.ops.softmax(logits))).max() < 1e-5
    mirrored = to_serve(network, views=views).predict(drawn.images[:5, :, ::-1], verbose=0)
    assert (np.abs(predicted - mirrored).max() < 1e-5) == (views is not ALONE)


def test_best_averages_over_shifted_views(drawn: Dataset) -> None:
    recipe = best.choose_recipe(100, 10).changed(widths=(8,))
    network = best.build(10, recipe, images=drawn.images)
    predicted, shifted = (
        make(network, temperature=2.0).predict(drawn.images[:5], verbose=0)
        for make in (best.to_serve, partial(to_serve, views=MOVED))
    )
    assert (predicted == shifted).all()


def test_reduced_precision_trains_like_float32(drawn: Dataset) -> None:
    """The same batches give nearly the same accuracy and predictions."""
    exact, reduced = (trained_network(drawn, name, num_epochs=12) for name in ("float32", "mixed_bfloat16"))
    right = [
        (network.predict(drawn.images, verbose=0).argmax(axis=1) == drawn.labels).mean()
        for network in (exact, reduced)
    ]
    assert min(right) > 0.8
    assert abs(right[0] - right[1]) < 0.08
    served = to_serve(reduced, views=MIRRORED).predict(drawn.images, verbose=0)
    assert (served.argmax(axis=1) == reduced.predict(drawn.images, verbose=0).argmax(axis=1)).mean() > 0.9


@pytest.mark.parametrize("scale", [True, False])
def test_fused_batch_normalisation_matches_keras(scale: bool) -> None:
    inputs = np.random.default_rng(0).normal(3, 2, (40, 5, 5, 6)).astype(np.float32)
    ours, theirs = (
        kind(momentum=0.6, epsilon=1e-3, scale=scale)
        for kind in (FusedBatchNormalization, keras.layers.BatchNormalization)
    )
    for _ in range(3):
        one, other = (layer(inputs, training=True) for layer in (ours, theirs))
        assert np.abs(one - other).max() < 1e-4
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        assert np.allclose(one, other, rtol=2e-3)  # the kernel divides the variance by n - 1
    assert np.abs(ours(inputs) - theirs(inputs)).max() < 1e-2


def gradients(layer: keras.Layer, inputs: np.ndarray) -> tuple[list[np.ndarray], set[str]]:
    """Return the output of a layer, the gradients of images and kernel, and the types of its operations."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, *inputs.shape[1:]])])  # type: ignore[untyped-decorator]
    def compute(images: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images)
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) ** 2)
        return [outputs, *tape.gradient(loss, [images, layer.trainable_variables[0].value])]

    values = compute(tf.constant(inputs, tf.float32))
    kinds = {operation.type for operation in compute.get_concrete_function().graph.get_operations()}
    return [np.asarray(tf.cast(each, tf.float32)) for each in values], kinds


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize(
    ("precision", "side", "channels", "algorithm"),
    [
        ("float32", 3, 64, "winograd"),
        ("float32", 7, 64, "winograd"),
        ("float32", 14, 64, "winograd"),
        ("float32", 15, 64, "winograd when pooled"),
        ("float32", 7, 8, "default"),
        ("float32", 16, 64, "default"),
        ("mixed_bfloat16", 3, 6, "convolution"),
        ("mixed_bfloat16", 7, 6, "convolution"),
        ("mixed_bfloat16", 8, 6, "convolution"),
        ("mixed_bfloat16", 9, 6, "default"),
    ],
)
def test_convolution_and_gradients_match_keras(
    precision: str, side: int, channels: int, algorithm: str, pooled: bool
) -> None:
    """The algorithm is detected from the operations of the graph."""
    random = np.random.default_rng(0)
    count = {3: 5, 7: 1, 9: 4}.get(side, 33)
    inputs = random.normal(size=(count, side, side, channels)).astype(np.float32)
    settings = {"padding": "same", "use_bias": False, "dtype": precision}
    ours = QuickConv2D(channels + 1, 3, pooled=pooled, **settings)
    theirs = keras.Sequential([keras.layers.Conv2D(channels + 1, 3, **settings)])
    if pooled:
        theirs.add(keras.layers.MaxPooling2D(dtype=precision))
    for layer in (ours, theirs):
        layer.build(inputs.shape)
    theirs.set_weights(ours.get_weights())
    (expected, default), (received, kinds) = gradients(theirs, inputs), gradients(ours, inputs)
    assert {"Conv2D", "Conv2DBackpropFilter"} <= default
    if algorithm == "winograd when pooled":
        algorithm = "winograd" if pooled else "default"
    assert ("Conv2DBackpropFilter" in kinds) == (algorithm == "default")
    assert ("Conv2D" in kinds) == (algorithm != "winograd")
    assert ours.compute_output_shape(inputs.shape) == received[0].shape
    for one, other in zip(received, expected, strict=True):
        assert one.shape == other.shape
        differences = np.abs(one - other) / np.abs(other).max()
        tolerance = 2e-4 if precision == "float32" else 0.01
        if pooled:  # either of two nearly equal pixels may be the maximum
            assert np.quantile(differences, 0.99) <= max(tolerance, 5e-3)
        else:
            assert differences.max() <= tolerance


@pytest.mark.parametrize(
    ("activation", "precision", "is_fused"),
    [("silu", "float32", True), ("silu", "mixed_bfloat16", False), ("relu", "float32", False)],
)
def test_activation_and_gradient_match_keras(activation: str, precision: str, is_fused: bool) -> None:
    import tensorflow as tf

    values = tf.constant(np.linspace(-90, 90, 1001, dtype=np.float32).reshape(-1, 7, 11))
    found, kinds = [], []
    for kind in (QuickActivation, keras.layers.Activation):
        layer = kind(activation, dtype=precision)

        @tf.function  # type: ignore[untyped-decorator]
        def compute(values: tf.Tensor, layer: keras.Layer = layer) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(values)
                outputs = layer(values)
            return [outputs, tape.gradient(outputs, values, tf.cast(values, outputs.dtype))]

        found.append([np.asarray(tf.cast(each, tf.float32)) for each in compute(values)])
        graph = compute.get_concrete_function(values).graph
        kinds.append({operation.type for operation in graph.get_operations()})
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)
    assert (kinds[0] != kinds[1]) == is_fused


def test_layer_can_be_restored_from_its_config() -> None:
    layer = QuickConv2D(5, 3, padding="same", pooled=True)
    assert QuickConv2D.from_config(layer.get_config()).pooled is True


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14])
def test_winograd_convolution_is_precise(size: int) -> None:
    """The reference is a direct convolution in float64."""
    random = np.random.default_rng(size)
    images = random.normal(size=(3, size, size, 48)).astype(np.float32)
    kernel = random.normal(size=(3, 3, 48, 5)).astype(np.float32)
    padded = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    expected = np.einsum("nhwcij,ijcd->nhwd", windows, kernel, optimize=True)
    received = keras.ops.convert_to_numpy(winograd.convolve(images, kernel, size=size))
    assert (received - expected).std() < 3e-5 * expected.std()


def test_whitened_pixels_are_uncorrelated(drawn: Dataset) -> None:
    filters = whitening_filters(drawn.images)
    assert filters.shape == (2, 2, 3, 24)
    assert np.array_equal(filters[..., :12], -filters[..., 12:])
    pixels = (drawn.images.astype(np.float32) / 255 - PIXEL_MEAN) / PIXEL_STD
    whitened = keras.ops.convert_to_numpy(keras.ops.conv(pixels, filters[..., :12], padding="valid"))
    second = np.einsum("nhwi,nhwj->ij", whitened[:, ::3, ::3], whitened[:, ::3, ::3], optimize=True)
    second /= whitened[:, ::3, ::3, 0].size
    assert np.abs(second - np.diag(np.diag(second))).max() < 0.02
    assert np.diag(second).max() < 1.02


def responses(filters: np.ndarray, images: np.ndarray) -> np.ndarray:
    pixels = (images.astype(np.float32) / 255 - PIXEL_MEAN) / PIXEL_STD
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.conv(pixels, filters, padding="valid")))


def test_whitening_ignores_what_the_images_do_not_contain(drawn: Dataset) -> None:
    """Filters of grayscale images respond to the brightness only, and those of constant ones to no edge."""
    gray = np.repeat(drawn.images[..., :1], 3, axis=-1)
    filters = whitening_filters(gray)
    assert (np.abs(filters[..., :12]).max(axis=(0, 1, 2)) > 0).sum() == 4
    assert np.abs(filters.sum(axis=2)).max() > 1
    colored = np.stack([gray[..., 0] // 2, gray[..., 0], gray[..., 0]], axis=-1)
    mean = np.repeat(colored.mean(axis=-1, keepdims=True), 3, axis=-1)
    assert responses(filters, colored) == pytest.approx(responses(filters, mean), abs=0.01)
    constant = whitening_filters(np.full((3, 32, 32, 3), 200, np.uint8))
    assert np.isfinite(constant).all()
    assert (np.abs(constant[..., :12]).max(axis=(0, 1, 2)) > 0).sum() == 1


def test_whitening_covers_all_classes_of_sorted_images(drawn: Dataset) -> None:
    gray = np.repeat(drawn.images[..., :1], 3, axis=-1)
    images = np.concatenate([np.tile(gray, (26, 1, 1, 1)), drawn.images])  # 5,200 gray images come first
    assert (np.abs(whitening_filters(images)[..., :12]).max(axis=(0, 1, 2)) > 0).all()


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_channels_that_are_constant_in_training_stay_constant(precision: str) -> None:
    """Six normalisations amplify nothing, so that rounding errors do not decide about any image."""
    black = np.zeros((20, 32, 32, 3), np.uint8)
    network = build_network(2, (8, 16, 16), images=black, precision=precision)
    for layer in network.layers:
        if isinstance(layer, FusedBatchNormalization):
            layer.momentum = 0.0
    network(black, training=True)
    served = to_serve(network, views=ALONE)
    logits = keras.ops.convert_to_numpy(served.get_layer("body")(UNSEEN.astype(np.float32)))
    assert np.abs(logits).max() < 100


@pytest.mark.parametrize("num_images", [1, 500, 1800, 9_999, 10_000, 50_000])
@pytest.mark.parametrize("preset", PRESETS)
def test_choose_recipe_for_any_number_of_images(preset: str, num_images: int) -> None:
    recipe = PRESETS[preset].choose_recipe(num_images, 10)
    assert recipe.changed(num_epochs=2).num_epochs == 2
    with pytest.raises(SettingsError, match="num_epochs"):
        recipe.changed(num_epochs=0)


@pytest.mark.parametrize("num_images", [500, 50_000])
@pytest.mark.parametrize("preset", PRESETS)
def test_wider_networks_need_more_epochs(preset: str, num_images: int) -> None:
    sizes = PRESETS[preset].sizes(num_images)
    assert sizes[0].least_epochs == 0
    assert list(sizes) == sorted(sizes, key=lambda size: size.least_epochs)
    assert list(sizes) == sorted(sizes, key=lambda size: sum(size.widths))


def test_config_lists_all_presets() -> None:
    assert set(get_args(PresetName)) == set(PRESETS)


@pytest.mark.parametrize(("preset", "num_classes"), [("nothing", 10), ("tutorial", 1), ("tutorial", 1001)])
def test_build_model_refuses_invalid_arguments(preset: str, num_classes: int) -> None:
    with pytest.raises(SettingsError):
        build_model(preset, num_classes)


@pytest.mark.exhaustive
def test_training_on_jax() -> None:
    """The export agrees with the model."""
    code = """
import sys, tempfile, pathlib
import keras
from cifarml import Predictor, TrainConfig, load_dataset, train_model
dataset = load_dataset("drawn:120")
with tempfile.TemporaryDirectory() as folder:
    config = TrainConfig(num_epochs=1, batch_size=50, widths=(64,))
    run = train_model(config, dataset, pathlib.Path(folder) / "run")
    assert run.info["onnx_difference"] <= 1e-4
    assert run.predictor().predict_images(dataset.images).shape == (120, 10)
    print(keras.config.backend())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "jax"
