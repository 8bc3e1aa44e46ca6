import io
import subprocess
import sys
import textwrap
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from cifarml.errors import DataError, SettingsError
from cifarml.evaluation.metrics import Reliability, evaluate_probabilities, measure_reliability
from cifarml.report import figure as canvas
from cifarml.report import image_grids as grids
from cifarml.report import plots as report
from cifarml.report import reliability_diagram as reliability
from tests.report.samples import make_dataset, make_names, make_probabilities

HOSTILE = (
    "$x^",
    "a_b",
    "\\frac{",
    "W" * 255,
    "i" * 255,
    "猫" * 255,
    "猫犬",
    "🐱🦄",
    "قطة سوداء",
    "कुत्ता",
    "$\\alpha$ 100 %",
    "e\u0301" * 100,
    "\ufe0f",
)


def saved(figure: Figure) -> Image.Image:
    """Save the figure as PNG and check that it is an image with something on it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=60)
    image = Image.open(buffer).convert("RGB")
    expected = figure.get_size_inches() * 60
    assert image.size == pytest.approx(tuple(expected), abs=1)
    assert 100 < min(image.size) <= max(image.size) < 4000
    assert len(colors_of(image)) > 20
    return image


def colors_of(image: Image.Image) -> set[tuple[int, ...]]:
    colors = image.getcolors(maxcolors=1 << 24) or []
    return {color for _, color in colors if isinstance(color, tuple)}


def texts(figure: Figure) -> list[Text]:
    found = figure.findobj(Text)
    return [artist for artist in found if isinstance(artist, Text) and artist.get_text()]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in texts(figure)]


def titles(figure: Figure) -> list[Text]:
    """Return the titles above the images."""
    return [text for text in figure.axes[0].texts if text.get_text()]


def spans(figure: Figure) -> list[tuple[float, float, float, float]]:
    figure.canvas.draw()
    return [text.get_window_extent().extents for text in texts(figure)]


def overlaps(figure: Figure) -> int:
    boxes = spans(figure)
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    return sum(
        min(a[2], b[2]) - max(a[0], b[0]) > 1 and min(a[3], b[3]) - max(a[1], b[1]) > 1 for a, b in pairs
    )


def test_image_grid_shows_100_images_with_class_names() -> None:
    dataset = make_dataset(120, make_names(10))
    figure = grids.image_grid(dataset)
    saved(figure)
    assert len(titles(figure)) == 100
    assert {text.get_text() for text in titles(figure)} == set(dataset.class_names)
    assert {"100 of 120 images, 10 classes", "made for a test"} <= set(words(figure))
    assert overlaps(figure) == 0


def test_image_grid_keeps_every_pixel() -> None:
    dataset = make_dataset(1, ("a", "b"))
    (image,) = grids.image_grid(dataset).axes[0].get_images()
    mosaic = np.asarray(image.get_array())
    top, left = mosaic.shape[0] - 34, 2
    np.testing.assert_array_equal(mosaic[top : top + 32, left : left + 32], dataset.images[0])
    assert image.get_interpolation() == "nearest"


def test_seed_chooses_images() -> None:
    dataset = make_dataset(300, make_names(300))
    first, again, other = (grids.image_grid(dataset, num_images=20, seed=seed) for seed in (1, 1, 2))
    assert words(first) == words(again)
    assert words(first) != words(other)


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (7, 1), (10, 1), (11, 2), (35, 4)])
def test_fewer_images_need_fewer_rows(count: int, rows: int) -> None:
    figure = grids.image_grid(make_dataset(count, ("cat", "dog")))
    saved(figure)
    assert len(titles(figure)) == count
    assert len({text.get_position()[1] for text in titles(figure)}) == rows
    assert f"{count} image{'s' if count > 1 else ''}, 2 classes" in words(figure)


def test_wrong_predictions_are_red() -> None:
    dataset = make_dataset(100, make_names(10))
    wrong = np.array([3, 30, 31, 99])
    figure = grids.prediction_grid(dataset, make_probabilities(dataset, wrong))
    image = saved(figure)
    red = [text.get_text() for text in titles(figure) if to_hex(text.get_color()) == grids.WRONG.lower()]
    dark = [text.get_text() for text in titles(figure) if to_hex(text.get_color()) == canvas.INK]
    names = dataset.class_names
    expected = [
        line
        for label in dataset.labels[wrong].tolist()
        for line in (f"{names[(label + 1) % 10]} 80 %", f"true: {names[label]}")
    ]
    assert sorted(red) == sorted(expected)
    assert len(dark) == 96
    assert all(text.endswith(" 80 %") for text in dark)
    assert tuple(int(grids.WRONG[i : i + 2], 16) for i in (1, 3, 5)) in colors_of(image)
    assert overlaps(figure) == 0


def test_wrong_images_have_a_red_frame() -> None:
    dataset = make_dataset(2, ("cat", "dog"))
    order = np.random.default_rng(0).permutation(2)
    figure = grids.prediction_grid(dataset, make_probabilities(dataset, order[:1]))
    (image,) = figure.axes[0].get_images()
    mosaic = np.asarray(image.get_array())
    top = mosaic.shape[0] - 34
    red = [int(grids.WRONG[i : i + 2], 16) for i in (1, 3, 5)]
    assert (mosaic[top - 1, 1:35] == red).all()
    assert (mosaic[top + 32, 1:35] == red).all(), "the frame of the bottom row is complete"
    assert (mosaic[top - 1, 36:] == 255).all()


def test_prediction_grid_heading_shows_accuracy() -> None:
    dataset = make_dataset(200, make_names(4))
    shown = np.random.default_rng(5).permutation(200)[:50]
    figure = grids.prediction_grid(dataset, make_probabilities(dataset, shown[:10]), num_images=50, seed=5)
    assert "40 of 50 images correct (80.0 %)" in words(figure)
    assert any(word.startswith("accuracy on all 200 images: 95.0 %") for word in words(figure))


@pytest.mark.parametrize("classes", [2, 1000])
def test_prediction_grid_with_few_and_many_classes(classes: int) -> None:
    dataset = make_dataset(12, make_names(classes))
    figure = grids.prediction_grid(dataset, make_probabilities(dataset, np.arange(12)))
    saved(figure)
    assert "0 of 12 images correct (0.0 %)" in words(figure)


def test_prediction_grid_with_nan() -> None:
    dataset = make_dataset(4, ("cat", "dog"))
    figure = grids.prediction_grid(dataset, np.full((4, 2), np.nan, np.float32))
    saved(figure)
    assert "cat nan %" in words(figure)


def test_hostile_names_are_shortened_and_literal() -> None:
    dataset = make_dataset(40, HOSTILE, origin="C:\\new\n$x^ 猫" + "o" * 5000)
    probabilities = make_probabilities(dataset, np.arange(20))
    figures = [
        grids.image_grid(dataset),
        grids.prediction_grid(dataset, probabilities),
        report.confusion_matrix(evaluate_probabilities(probabilities, dataset.labels, HOSTILE)),
    ]
    for figure in figures:
        saved(figure)
        shown = words(figure)
        assert any(word.startswith("$x^") for word in shown)
        assert any(word.startswith("WWW") and "…" in word for word in shown)
        assert not any(text.get_parse_math() for text in texts(figure) if "$" in text.get_text())
    for figure in figures[:2]:
        assert overlaps(figure) == 0
        width, _ = figure.get_size_inches() * figure.dpi
        assert all(left >= -1 and right <= width + 1 for left, _, right, _ in spans(figure))


def test_missing_glyphs_are_replaced_by_class_number() -> None:
    dataset = make_dataset(2, ("cat", "\U00020000"))  # a rare ideograph
    assert "#1 ▯" in words(grids.image_grid(dataset))


@pytest.mark.parametrize("num_images", [0, -1, 1001])
def test_grid_with_invalid_number_of_images(num_images: int) -> None:
    with pytest.raises(SettingsError, match="num_images must be 1 to 1000"):
        grids.image_grid(make_dataset(4, ("cat", "dog")), num_images=num_images)


def test_grid_of_empty_data_set() -> None:
    with pytest.raises(DataError, match="no images to show"):
        grids.image_grid(make_dataset(0, ("cat", "dog")))


def test_prediction_grid_with_wrong_shape() -> None:
    with pytest.raises(DataError, match=r"must be of shape \(4, 2\)"):
        grids.prediction_grid(make_dataset(4, ("cat", "dog")), np.zeros((4, 3), np.float32))


def test_learning_curves_show_percent_names_and_best_epochs() -> None:
    figure = report.learning_curves(
        {
            "loss": [2.0, 1.5, 1.0, 0.5],
            "accuracy": [0.2, 0.4, 0.6, 0.9],
            "val_loss": [2.1, 1.25, 1.4, 1.6],
            "val_accuracy": [0.2, 0.4, 0.55, 0.5],
        }
    )
    saved(figure)
    shown = words(figure)
    assert "best validation: 55.0 % at epoch 3" in shown
    assert "best validation: 1.25 at epoch 2" in shown
    assert shown.count("train") == shown.count("validation") == 2
    accuracy, loss = figure.axes
    np.testing.assert_allclose(np.asarray(accuracy.lines[0].get_ydata()), [20, 40, 60, 90])
    np.testing.assert_array_equal(np.asarray(loss.lines[0].get_xdata()), [1, 2, 3, 4])
    assert all(float(tick).is_integer() for tick in loss.get_xticks())
    assert overlaps(figure) == 0


def test_learning_curves_without_validation() -> None:
    figure = report.learning_curves({"loss": [2.0, 1.0], "accuracy": [0.2, 0.4]})
    saved(figure)
    assert "validation" not in words(figure)
    assert not any("best" in word for word in words(figure))


@pytest.mark.parametrize("same", [False, True])
def test_learning_curves_of_one_epoch(same: bool) -> None:
    history = {"loss": [2.0], "accuracy": [0.2], "val_loss": [2.0 if same else 1.9], "val_accuracy": [0.2]}
    figure = report.learning_curves(history)
    saved(figure)
    assert "Accuracy and loss over 1 epoch" in words(figure)
    assert overlaps(figure) == 0


def test_learning_curves_with_non_finite_values() -> None:
    nan, inf = float("nan"), float("inf")
    figure = report.learning_curves(
        {
            "loss": [2, nan, inf],
            "accuracy": [nan] * 3,
            "val_loss": [nan, 1.5, 1e30],
            "val_accuracy": [nan] * 3,
        }
    )
    saved(figure)
    assert "best validation: 1.5 at epoch 2" in words(figure)


@pytest.mark.parametrize("history", [{}, {"loss": [], "accuracy": []}])
def test_learning_curves_without_epochs(history: dict[str, list[float]]) -> None:
    with pytest.raises(DataError, match="at least one epoch"):
        report.learning_curves(history)


@pytest.mark.parametrize("classes", [2, 3, 10, 12, 13, 100, 1000])
def test_confusion_matrix_of_any_size(classes: int) -> None:
    labels = np.arange(max(40, classes)) % classes
    probabilities = np.eye(classes, dtype=np.float32)[np.where(labels == 1, 0, labels)]
    figure = report.confusion_matrix(evaluate_probabilities(probabilities, labels, make_names(classes)))
    saved(figure)
    shown = words(figure)
    assert len(shown) < 500
    assert ("recall" in shown) == ("precision" in shown) == (classes <= 12)
    if classes <= 100:
        assert shown.count("thing 1") == 2
        assert overlaps(figure) == 0
    (image,) = figure.axes[0].get_images()
    np.testing.assert_array_equal(np.asarray(image.get_array())[1, :2], [1, 0])


def test_confusion_matrix_shows_percent_count_recall_and_precision() -> None:
    labels = np.array([0] * 300 + [1])
    probabilities = np.eye(3, dtype=np.float32)[[0] * 299 + [1, 1]]
    shown = words(
        report.confusion_matrix(evaluate_probabilities(probabilities, labels, ("cat", "dog", "emu")))
    )
    assert "Accuracy 99.7 % on 301 images" in shown
    assert {"299", "< 1 %", "50 %"} <= set(shown)
    assert shown.count("–") == 2


def test_heading_of_a_constant_prediction() -> None:
    labels = np.array([0] * 300 + [1] * 12)
    evaluation = evaluate_probabilities(np.eye(2, dtype=np.float32)[labels * 0], labels, ("cat", "dog"))
    figure = report.confusion_matrix(evaluation)
    saved(figure)
    shown = words(figure)
    for line in (
        "Accuracy 96.2 % on 312 images",
        "balanced accuracy 50.0 %, majority baseline 96.2 %",
        "never predicted: dog",
    ):
        assert line in shown
    assert any(line.startswith("95 % interval 93.4 % to ") for line in shown)
    assert overlaps(figure) == 0


@pytest.mark.parametrize("key", ["accuracy", "loss"])
def test_single_learning_curve(key: Any) -> None:
    figure = report.learning_curve(
        {"loss": [2.0, 1.0], "accuracy": [0.2, 0.4], f"val_{key}": [1.0, 0.5]}, key
    )
    saved(figure)
    (axes,) = figure.axes
    expected = [20, 40] if key == "accuracy" else [2, 1]
    np.testing.assert_allclose(np.asarray(axes.lines[0].get_ydata()), expected)
    assert {"train", "validation"} <= set(words(figure))
    assert overlaps(figure) == 0


def test_reliability_diagram_shows_accuracy_and_confidence() -> None:
    """10 images at 60 % confidence, 9 of them correct; 10 at 100 %, 5 of them correct."""
    probabilities = np.array([[0.6, 0.4]] * 10 + [[1.0, 0.0]] * 10, np.float32)
    labels = np.array([0] * 9 + [1] + [0] * 5 + [1] * 5)
    figure = reliability.reliability_diagram({"now": measure_reliability(probabilities, labels, num_bins=5)})
    saved(figure)
    upper, lower = figure.axes
    accuracy, gap = upper.containers
    assert [bar.get_height() for bar in accuracy] == pytest.approx([0.6, 0.5])
    assert [bar.get_height() for bar in gap] == pytest.approx([0.3, 0.5])
    assert [to_hex(bar.get_facecolor()) for bar in gap] == ["#8fc1e3", "#e8a87c"], (
        "underconfident, overconfident"
    )
    assert [bar.get_height() for bar in lower.containers[0]] == pytest.approx([0, 0, 0, 0.5, 0.5])
    assert {"now", "expected calibration error 40.0 %"} <= set(words(figure))
    assert overlaps(figure) == 0


def test_reliability_diagrams_side_by_side() -> None:
    one = Reliability(np.array([3, 0]), np.array([0.4, 0.0]), np.array([0.5, 0.0]))
    figure = reliability.reliability_diagram(
        {f"{when} temperature scaling": one for when in ("before", "after")}
    )
    saved(figure)
    assert len(figure.axes) == 4
    assert overlaps(figure) == 0
    with pytest.raises(DataError, match="at least one panel"):
        reliability.reliability_diagram({})


def test_notebook_representation_is_png() -> None:
    figure = report.learning_curves({"loss": [1.0], "accuracy": [0.5]})
    png = figure._repr_png_()  # type: ignore[attr-defined]
    assert Image.open(io.BytesIO(png)).format == "PNG"


def test_figures_are_independent_of_global_state() -> None:
    dataset = make_dataset(12, ("cat", "dog"))
    probabilities = make_probabilities(dataset, np.arange(3))
    np.random.seed(7)
    expected = np.random.random()
    np.random.seed(7)
    before = dict(mpl.rcParams)

    def draw() -> list[Image.Image]:
        return [
            saved(grids.image_grid(dataset)),
            saved(grids.prediction_grid(dataset, probabilities)),
            saved(report.learning_curves({"loss": [1, 2], "accuracy": [0, 1], "val_loss": [1, 3]})),
            saved(
                report.confusion_matrix(
                    evaluate_probabilities(probabilities, dataset.labels, dataset.class_names)
                )
            ),
        ]

    images = draw()
    assert dict(mpl.rcParams) == before
    assert np.random.random() == expected
    dark: Any = {"axes.facecolor": "black", "figure.facecolor": "black", "text.color": "lime"}
    with mpl.rc_context(dark | {"font.family": ["serif"], "font.size": 30.0, "image.cmap": "hot"}):
        assert [image.tobytes() for image in draw()] == [image.tobytes() for image in images]


@pytest.mark.slow
def test_pyplot_is_not_imported() -> None:
    code = """
        import sys
        import cifarml.report.plots as report
        report.learning_curves({"loss": [1.0], "accuracy": [0.5]})
        assert "matplotlib.pyplot" not in sys.modules
        assert "tensorflow" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=120)
