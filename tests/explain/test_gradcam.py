"""Grad-CAM heat maps of models with known relevant regions, and their figure and command."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers
from matplotlib.text import Text
from PIL import Image

from cifarml import Dataset, Run, TrainConfig, train_model
from cifarml.errors import ImageError, ModelFileError, SettingsError
from cifarml.explain.drawing import explanation_figure
from cifarml.explain.gradcam import Explanation, explain_image
from cifarml.model.test_time_augmentation import ALONE, MIRRORED, MOVED, View, average, show
from cifarml.predict import Prediction
from cifarml.run import write_manifest
from cifarml.train.export import export_onnx
from tests.conftest import CommandLine
from tests.image_files import image_bytes

CORNERS = {"top left": (0, 0), "top right": (0, 24), "bottom left": (24, 0), "bottom right": (24, 24)}


def spotted(corner: str, colour: tuple[int, int, int] = (255, 0, 0)) -> npt.NDArray[np.uint8]:
    """Return a grey noisy image with a coloured 8x8 spot in a corner."""
    grey = np.random.default_rng(3).integers(60, 160, (32, 32, 1), np.uint8)
    image = np.repeat(grey, 3, axis=2)
    row, column = CORNERS[corner]
    image[row : row + 8, column : column + 8] = colour
    return image


def png(image: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def red_and_blue_kernel() -> npt.NDArray[np.float32]:
    """Return a 3x3 kernel that detects red and blue but not grey."""
    kernel = np.zeros((3, 3, 3, 2), np.float32)
    kernel[1, 1, :, 0] = (1, -0.5, -0.5)
    kernel[1, 1, :, 1] = (-0.5, -0.5, 1)
    return kernel


def red_or_not(pooling: layers.Layer) -> keras.Sequential:
    """Return a hand-made network with two logits; the first is high if the image contains red."""
    network = keras.Sequential(
        [
            keras.Input((32, 32, 3), name="image"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(2, 3, padding="same", name="red_detector"),
            layers.ReLU(),
            pooling,
            layers.Dense(2),
        ]
    )
    network.layers[1].set_weights([red_and_blue_kernel(), np.zeros(2, np.float32)])
    network.layers[-1].set_weights([np.array([[3, 0], [0, 3]], np.float32), np.zeros(2, np.float32)])
    return network


def with_views(body: keras.Model, views: Sequence[View]) -> keras.Model:
    """Add test-time augmentation to a network, like the presets."""
    given = keras.Input((32, 32, 3), dtype="uint8")
    mean = average(body(show(keras.ops.cast(given, "float32"), views)), views)
    return keras.Model(given, layers.Softmax()(mean))


def save_run(folder: Path, model: keras.Model, names: Sequence[str] = ("red", "other"), **info: str) -> Run:
    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    export_onnx(model, folder / "model.onnx", tuple(names), spotted("top left")[np.newaxis])
    return write_manifest(folder, tuple(names), {"run": folder.name, **info})


def heat_share(explanation: Explanation, corner: str) -> float:
    """Return the share of the heat in one quarter of the image."""
    heat = explanation.heat
    high, wide = -(-heat.shape[0] // 2), -(-heat.shape[1] // 2)
    rows = slice(0, high) if corner.startswith("top") else slice(-high, None)
    columns = slice(0, wide) if corner.endswith("left") else slice(-wide, None)
    return float(heat[rows, columns].sum() / heat.sum())


@pytest.fixture(scope="module")
def hand_made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    body = red_or_not(layers.GlobalMaxPooling2D())
    return save_run(tmp_path_factory.mktemp("explain") / "hand_made", with_views(body, MIRRORED))


@pytest.mark.parametrize("corner", CORNERS)
def test_heat_is_in_the_relevant_corner(hand_made: Run, corner: str) -> None:
    found = explain_image(hand_made.path, png(spotted(corner)))
    assert (found.prediction.label, found.class_name, found.layer) == ("red", "red", "red_detector")
    assert found.heat.shape == (32, 32)
    assert found.heat.dtype == np.float32
    assert found.heat.max() == 1
    assert heat_share(found, corner) > 0.95, "the heat map of the mirrored view is flipped back"


@pytest.mark.parametrize("views", [ALONE, MOVED])
def test_heat_with_other_views(tmp_path: Path, views: Sequence[View]) -> None:
    model = with_views(red_or_not(layers.GlobalMaxPooling2D()), views)
    found = explain_image(save_run(tmp_path / "run", model).path, png(spotted("top right")))
    assert heat_share(found, "top right") > 0.95


def test_heat_depends_on_class(hand_made: Run) -> None:
    both = spotted("top left")
    both[24:, 24:] = (0, 0, 255)
    assert heat_share(explain_image(hand_made.path, png(both), class_name="red"), "top left") > 0.95
    assert heat_share(explain_image(hand_made.path, png(both), class_name="other"), "bottom right") > 0.95


def test_heat_is_zero_without_evidence(hand_made: Run) -> None:
    found = explain_image(hand_made.path, png(spotted("top left")), class_name="other")
    assert not found.heat.any()


def test_heat_equals_formula(tmp_path: Path) -> None:
    """After global average pooling, the Grad-CAM weights equal those of the last layer."""
    body = red_or_not(layers.GlobalAveragePooling2D())
    weights = np.random.default_rng(0).normal(0, 9, (2, 2)).astype(np.float32)
    body.layers[-1].set_weights([weights, np.zeros(2, np.float32)])
    given = keras.Input((32, 32, 3), dtype="uint8")
    logits = body(keras.ops.cast(given, "float32"))
    run = save_run(tmp_path / "run", keras.Model(given, layers.Softmax()(logits)))
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    maps = keras.ops.convert_to_numpy(keras.Sequential(body.layers[:3])(image[np.newaxis].astype(np.float32)))
    for label, name in enumerate(run.class_names):
        expected = np.maximum((maps[0] * weights[:, label]).sum(axis=-1), 0)
        found = explain_image(run.path, png(image), class_name=name)
        np.testing.assert_allclose(found.heat, expected / max(expected.max(), 1e-9), atol=1e-5)


def test_views_of_the_preset_are_preferred(tmp_path: Path) -> None:
    """If predictions hardly depend on the image, they do not identify the views."""
    edges = np.zeros((3, 3, 3, 2), np.float32)
    edges[1, 0, :, 0], edges[1, 2, :, 0] = -1, 1  # detects edges, darker on the left
    body = red_or_not(layers.GlobalAveragePooling2D())
    body.layers[1].set_weights([edges, np.zeros(2, np.float32)])
    body.layers[-1].set_weights([1e-3 * np.eye(2, dtype=np.float32), np.zeros(2, np.float32)])
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    pixels = image[np.newaxis].astype(np.float32)
    for preset, views in (("tutorial", ALONE), ("fast", MIRRORED)):
        run = save_run(tmp_path / preset, with_views(body, ALONE), preset=preset)
        maps = keras.ops.convert_to_numpy(keras.Sequential(body.layers[:3])(show(pixels, views)))[..., 0]
        expected = sum(
            view.share * (each[:, ::-1] if view.mirrored else each)
            for view, each in zip(views, maps, strict=True)
        )
        found = explain_image(run.path, png(image), class_name="red")
        np.testing.assert_allclose(found.heat, expected / np.max(expected), atol=1e-5)


def test_network_like_the_article(tmp_path: Path) -> None:
    """Sequential with built-in activations, Flatten and softmax, in which only one corner is relevant."""
    network = keras.Sequential(
        [
            keras.Input((32, 32, 3), dtype="uint8", name="image"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(2, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    network.layers[1].set_weights([red_and_blue_kernel(), np.zeros(2, np.float32)])
    kernel = np.zeros((16, 16, 2, 2), np.float32)
    kernel[:4, :4, 0, 0] = 1
    network.layers[-1].set_weights([kernel.reshape(-1, 2), np.array([0, 4], np.float32)])
    run = save_run(tmp_path / "run", network)
    found = explain_image(run.path, png(spotted("top left")))
    assert found.prediction.label == "red"
    assert heat_share(found, "top left") > 0.95
    assert explain_image(run.path, png(spotted("top right"))).prediction.label == "other"


@pytest.mark.parametrize("preset", ["fast", "tutorial"])
def test_heat_of_trained_network(tmp_path: Path, preset: Any) -> None:
    """The classes differ only in the colour of the top left corner."""
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 2
    images = rng.integers(0, 130, (600, 32, 32, 3), np.uint8)
    images[labels == 0, :8, :8] = (250, 20, 20)
    images[labels == 1, :8, :8] = (20, 20, 250)
    dataset = Dataset(
        images=images,
        labels=labels.astype(np.int64),
        class_names=("red", "blue"),
        sources=tuple(map(str, range(600))),
        is_test=np.arange(600) >= 560,
        origin="spots",
    )
    settings: dict[str, Any] = {"widths": (16, 32)} if preset == "fast" else {"learning_rate": 1e-3}
    config = TrainConfig(preset=preset, num_epochs=3, **settings)
    run = train_model(config, dataset, tmp_path / "run")
    assert run.info["test_accuracy"] == 1
    found = [explain_image(run.path, png(each)) for each in images[-2:]]
    shares = {corner: sum(heat_share(each, corner) for each in found) for corner in CORNERS}
    assert max(shares, key=shares.__getitem__) == "top left"
    assert shares["top left"] > 1.2 * shares["bottom right"], shares


JAX = """
import sys
from pathlib import Path
from cifarml import explain_image
found = explain_image(sys.argv[1], Path(sys.argv[2]).read_bytes())
import json, keras
assert keras.config.backend() == "jax"
print(json.dumps(found.heat.tolist()))
"""


@pytest.mark.exhaustive
def test_jax_gives_the_same_heat(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(image_bytes(1))
    done = subprocess.run(
        [sys.executable, "-c", JAX, str(trained.path), str(tmp_path / "image.png")],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    here = explain_image(trained.path, image_bytes(1)).heat
    assert here.any()
    np.testing.assert_allclose(np.array(json.loads(done.stdout.splitlines()[-1])), here, atol=1e-3)


def test_prediction_equals_predictor(trained: Run) -> None:
    found = explain_image(trained.path, image_bytes(2))
    assert found.prediction == trained.predictor().predict(image_bytes(2))
    assert found.class_name == found.prediction.label
    assert found.heat.shape == (3, 3)


def test_unsupported_models_and_images(tmp_path: Path, trained: Run) -> None:
    with pytest.raises(SettingsError, match=r"has no class 'unicorn'\. Its classes: airplane"):
        explain_image(trained.path, image_bytes(), class_name="unicorn")
    with pytest.raises(ImageError):
        explain_image(trained.path, b"not an image")

    flat = [keras.Input((32, 32, 3), dtype="uint8"), layers.Rescaling(1 / 255), layers.Flatten()]
    without = save_run(tmp_path / "without", keras.Sequential([*flat, layers.Dense(2, activation="softmax")]))
    with pytest.raises(ModelFileError, match="has no convolution"):
        explain_image(without.path, image_bytes())

    given = keras.Input((32, 32, 3), dtype="uint8")
    scaled = layers.Rescaling(1 / 255)(given)
    around = layers.Add()([scaled, layers.Conv2D(3, 3, padding="same")(scaled)])
    output = layers.Dense(2, activation="softmax")(layers.GlobalMaxPooling2D()(around))
    bypass = save_run(tmp_path / "bypass", keras.Model(given, output))
    with pytest.raises(ModelFileError, match="can't be split after conv2d"):
        explain_image(bypass.path, image_bytes())

    body = red_or_not(layers.GlobalMaxPooling2D())
    inverted = layers.Softmax()(body(layers.Rescaling(-1, 255)(given)))
    other = save_run(tmp_path / "other", keras.Model(given, inverted))
    with pytest.raises(ModelFileError, match="does not support the architecture"):
        explain_image(other.path, png(spotted("top left")))


def test_modified_or_unsafe_model_is_not_loaded(hand_made: Run, tmp_path: Path) -> None:
    copied = tmp_path / "changed"
    copied.mkdir()
    for name in ("manifest.json", *hand_made.files):
        (copied / name).write_bytes((hand_made.path / name).read_bytes())
    (copied / "model.keras").write_bytes(b"PK changed")
    with pytest.raises(ModelFileError, match="was changed after training"):
        explain_image(copied, image_bytes())

    (copied / "manifest.json").unlink()
    written = write_manifest(copied, hand_made.class_names, {})
    with pytest.raises(ModelFileError, match="can't be loaded"):
        explain_image(written.path, image_bytes())

    code = keras.Sequential([keras.Input((32, 32, 3)), layers.Lambda(lambda pixels: pixels * 2)])
    code.save(copied / "model.keras")
    (copied / "manifest.json").unlink()
    written = write_manifest(copied, hand_made.class_names, {})
    with pytest.raises(ModelFileError, match="can't be loaded"):
        explain_image(written.path, image_bytes())


def make_explanation(names: tuple[str, ...], class_name: str, heat: npt.NDArray[np.float32]) -> Explanation:
    ranked = {name: 0.5 / (place + 1) for place, name in enumerate(names)}
    return Explanation(Prediction(names[0], 0.5, ranked), class_name, heat, "conv")


def test_figure_shows_image_heat_and_classes() -> None:
    names = ("cat", "<script>", "W" * 255, "قطة", "🐱", "猫" * 90, "last")
    heat = np.zeros((4, 4), np.float32)
    heat[0, 3] = 1
    image = spotted("top left").repeat(4, axis=0).repeat(4, axis=1)
    figure = explanation_figure(make_explanation(names, "last", heat), image)
    given, heated = (np.asarray(axes.get_images()[0].get_array()) for axes in figure.axes[:2])
    np.testing.assert_array_equal(given, image)
    assert heated.shape == image.shape
    change = np.abs(heated - heated.mean(axis=2, keepdims=True)).sum(axis=2)
    assert change[:32, 96:].mean() > 5 * change[64:, :64].mean(), "the overlay is in the region of the heat"
    texts = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
    assert {"cat", "<script>", "last", "cat 50.0 %"} <= set(texts)
    assert any("evidence for last" in text and "4x4" in text for text in texts)
    assert len([text for text in texts if text.endswith(" %")]) == 7, "5 classes, explained class, heading"
    file = io.BytesIO()
    figure.savefig(file)
    assert Image.open(file).width > 800


def test_figure_without_evidence() -> None:
    figure = explanation_figure(
        make_explanation(("cat", "dog"), "dog", np.zeros((2, 2), np.float32)), spotted("top left")
    )
    texts = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
    assert any("no evidence for dog" in text for text in texts)
    with pytest.raises(ImageError, match="expected a uint8 array"):
        explanation_figure(
            make_explanation(("a", "b"), "a", np.zeros((2, 2), np.float32)), np.zeros((8, 9, 3), np.float32)
        )


def test_command_line(cifarml: CommandLine, hand_made: Run, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(png(spotted("top left").repeat(5, axis=0).repeat(5, axis=1)))
    done = cifarml("explain", "image.png", "--run", hand_made.path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("red ")
    assert "Image: image_explained.png" in done.stdout
    with Image.open(tmp_path / "image_explained.png") as drawn:
        assert drawn.format == "PNG"
    before = (tmp_path / "image_explained.png").read_bytes()

    again = cifarml("explain", "image.png", "--run", hand_made.path)
    assert again.returncode == 1
    assert "already exists" in again.stderr
    assert "--force" in again.stderr
    assert (tmp_path / "image_explained.png").read_bytes() == before
    itself = cifarml("explain", "image.png", "--run", hand_made.path, "-o", "image.png", "--force")
    assert itself.returncode == 1, "the input image is never overwritten"

    forced = cifarml(
        "explain", "image.png", "--run", hand_made.path, "--force", "--class", "other", "--json", "-q"
    )
    assert forced.returncode == 0, forced.stderr
    document = json.loads(forced.stdout)
    assert (document["label"], document["class"]) == ("red", "other")
    assert np.array(document["heat"]).shape == (32, 32)
    assert (tmp_path / "image_explained.png").read_bytes() != before
    assert {path.name for path in tmp_path.iterdir()} == {"image.png", "image_explained.png"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.png"], "can't read 'none.png'"),
        (["notes.png"], "notes.png: not a PNG"),
        (["image.png", "--class", "unicorn"], "has no class 'unicorn'"),
        (["image.png", "-o", "why.jpg"], "must end in .png"),
        (["image.png", "-o", "image.png/why.png"], "can't write"),
        (["image.png", "--run", "none"], "no run 'none'"),
    ],
)
def test_command_line_errors(
    cifarml: CommandLine, hand_made: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "image.png").write_bytes(image_bytes())
    (tmp_path / "notes.png").write_text("notes")
    done = cifarml("explain", *([] if "--run" in arguments else ["--run", hand_made.path]), *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert not done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"image.png", "notes.png"}
