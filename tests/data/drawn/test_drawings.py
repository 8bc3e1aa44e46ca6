from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse.linalg import svds

from cifarml.cifar10 import CLASS_NAMES
from cifarml.data.dataset import Dataset
from cifarml.data.drawn.drawings import FIGURES, MAX_DRAWN, MIN_DRAWN, draw_dataset
from cifarml.errors import DataError
from cifarml.progress import Progress

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def drawings() -> Dataset:
    return draw_dataset(2000)


def test_drawings_are_reproducible() -> None:
    first, again = draw_dataset(60, seed=7), draw_dataset(60, seed=7)
    assert first.fingerprint == again.fingerprint
    assert first.sources == again.sources


def test_larger_set_begins_with_smaller_one(drawings: Dataset) -> None:
    small = draw_dataset(57)
    assert np.array_equal(small.images, drawings.images[:57])
    assert np.array_equal(small.labels, drawings.labels[:57])
    assert small.sources == drawings.sources[:57]


def test_different_seeds_share_no_image() -> None:
    zero, one = draw_dataset(100, seed=0), draw_dataset(100, seed=1)
    assert not {image.tobytes() for image in zero.images} & {image.tobytes() for image in one.images}


def test_every_class_has_a_figure(drawings: Dataset) -> None:
    assert tuple(FIGURES) == CLASS_NAMES == drawings.class_names


@pytest.mark.parametrize("count", [20, 25, 99, 500])
def test_classes_are_balanced(count: int) -> None:
    dataset = draw_dataset(count)
    counts = dataset.class_counts()
    assert len(dataset) == counts.sum() == count
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(("count", "tests_a_class"), [(20, 1), (200, 2), (2000, 20)])
def test_last_tenth_of_each_class_is_test_set(count: int, tests_a_class: int) -> None:
    dataset = draw_dataset(count)
    assert dataset.test.class_counts().tolist() == [tests_a_class] * 10
    assert dataset.train.class_counts().tolist() == [count // 10 - tests_a_class] * 10
    for label in range(10):
        split = dataset.is_test[dataset.labels == label]
        assert np.array_equal(split, np.sort(split))


def test_uneven_classes_have_training_and_test_images() -> None:
    dataset = draw_dataset(29)
    assert dataset.test.class_counts().tolist() == [1] * 10
    assert dataset.train.class_counts().tolist() == [2] * 9 + [1]


def test_no_image_is_drawn_twice(drawings: Dataset) -> None:
    assert len({image.tobytes() for image in drawings.images}) == len(drawings)


def test_sources_and_origin(drawings: Dataset) -> None:
    assert drawings.sources[0] == "drawn:airplane_1 (seed 0)"
    assert drawings.sources[-1] == "drawn:truck_200 (seed 0)"
    assert len(set(drawings.sources)) == len(drawings)
    assert drawings.origin == "drawn:2000 (drawings, not photographs)"
    assert draw_dataset(20, seed=5).sources[13] == "drawn:cat_2 (seed 5)"


@pytest.mark.parametrize("count", [-1, 0, MIN_DRAWN - 1, MAX_DRAWN + 1])
def test_number_of_images_out_of_range(count: int) -> None:
    with pytest.raises(DataError, match=rf"Received: {count}$") as caught:
        draw_dataset(count)
    assert caught.value.hint


def test_negative_seed() -> None:
    with pytest.raises(DataError, match=r"Received: -3$") as caught:
        draw_dataset(20, seed=-3)
    assert caught.value.hint


def test_progress_rises_to_the_total() -> None:
    seen: list[Progress] = []
    draw_dataset(450, on_progress=seen.append)
    done = [progress.done for progress in seen]
    assert done == sorted(set(done))
    assert len(done) > 2
    assert {progress.total for progress in seen} == {450}
    assert done[-1] == 450


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def _fit_linear(pixels: Floats, labels: npt.NDArray[np.int64], *, steps: int, decay: float) -> Floats:
    """Train a softmax regression by full-batch gradient descent with Nesterov momentum."""
    targets = np.eye(10, dtype=np.float32)[labels]
    rate = 1 / (0.5 * float(svds(pixels, k=1, return_singular_vectors=False)[0]) ** 2 / len(pixels) + decay)
    weights = ahead = np.zeros((pixels.shape[1], 10), np.float32)
    for step in range(steps):
        gradient = pixels.T @ (_softmax(pixels @ ahead) - targets) / len(pixels) + decay * ahead
        before, weights = weights, (ahead - rate * gradient).astype(np.float32)
        ahead = weights + np.float32(step / (step + 3)) * (weights - before)
    return weights


@pytest.mark.slow
def test_linear_model_accuracy_is_between_20_and_60_percent(drawings: Dataset) -> None:
    train, test = drawings.train, draw_dataset(1000, seed=1)
    mean = train.images.mean(axis=0) / 255

    def features(dataset: Dataset) -> Floats:
        pixels = (dataset.images / 255 - mean).reshape(len(dataset), -1)
        return np.hstack([pixels, np.ones((len(dataset), 1))]).astype(np.float32)

    weights = _fit_linear(features(train), train.labels, steps=250, decay=0.02)
    train_accuracy = np.mean((features(train) @ weights).argmax(axis=1) == train.labels)
    test_accuracy = np.mean((features(test) @ weights).argmax(axis=1) == test.labels)
    assert train_accuracy > 0.5
    assert 0.2 < test_accuracy < 0.6
