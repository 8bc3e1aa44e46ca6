"""Immutability, validation, fingerprint, splits and subsets of `Dataset`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from cifarml import Dataset
from cifarml.errors import DataError


def make(num_train: int = 90, num_test: int = 10, num_classes: int = 3, **changes: Any) -> Dataset:
    """Return a data set with this many training and test images of each class."""
    rng = np.random.default_rng(0)
    count = (num_train + num_test) * num_classes
    labels = np.repeat(np.arange(num_classes), num_train + num_test)
    is_test = np.tile(np.arange(num_train + num_test) >= num_train, num_classes)
    fields: dict[str, Any] = {
        "images": rng.integers(0, 256, (count, 32, 32, 3), np.uint8),
        "labels": labels,
        "class_names": tuple(f"class {i}" for i in range(num_classes)),
        "sources": tuple(f"{i}.png" for i in range(count)),
        "is_test": is_test,
        "origin": "made up",
    }
    return Dataset(**fields | changes)


def test_dataset_is_immutable() -> None:
    images = np.zeros((4, 32, 32, 3), np.uint8)
    dataset = make(1, 1, 2, images=images)
    images[0] = 9
    assert not dataset.images.any(), "it holds a copy"
    for array in (dataset.images, dataset.labels, dataset.is_test, dataset.train.images):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.origin = "elsewhere"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((6, 32, 32, 3), np.float32)}, "uint8"),
        ({"images": np.zeros((6, 28, 28), np.uint8)}, "shape"),
        ({"labels": np.zeros(6, np.int32)}, "int64"),
        ({"labels": np.zeros(5, np.int64)}, "shape"),
        ({"labels": np.array([0, 1, 2, 3, 0, 0])}, "0..2"),
        ({"labels": np.array([0, 1, -1, 2, 0, 0])}, "0..2"),
        ({"sources": ("a",)}, "sources"),
        ({"is_test": np.zeros(6, np.int8)}, "bool"),
        ({"class_names": ("a",)}, "2 to 1000"),
        ({"class_names": tuple(map(str, range(1001)))}, "2 to 1000"),
        ({"class_names": ("a", "a", "b")}, "unique"),
        ({"class_names": ("a", " ", "b")}, "printable"),
        ({"class_names": ("a", "b\n", "c")}, "printable"),
        ({"class_names": ("a", "x" * 256, "c")}, "255"),
    ],
)
def test_invalid_fields_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(1, 1, 3, **changes)


def test_fingerprint_depends_on_content_only() -> None:
    dataset = make()
    assert dataset.fingerprint == make(origin="elsewhere", sources=("x",) * 300).fingerprint
    changed = dataset.images.copy()
    changed[0, 0, 0, 0] ^= 1
    others = [
        make(images=changed),
        make(labels=np.roll(dataset.labels, 1)),
        make(is_test=~dataset.is_test),
        make(class_names=("class 0", "class 1", "other")),
    ]
    assert len({other.fingerprint for other in [dataset, *others]}) == 5
    assert len(dataset.fingerprint) == 64


def test_split_is_disjoint_and_reproducible() -> None:
    dataset = make()
    splits = dataset.split(validation_fraction=0.1, seed=3)
    assert [len(part) for part in splits] == [243, 27, 30]
    assert splits.validation.class_counts().tolist() == [9, 9, 9]
    names = [set(part.sources) for part in splits]
    assert sum(map(len, names)) == len(set.union(*names)) == 300
    assert splits.test.is_test.all()
    assert not splits.train.is_test.any()
    again, other = dataset.split(seed=3), dataset.split(seed=4)
    assert again.train.fingerprint == splits.train.fingerprint
    assert other.train.fingerprint != splits.train.fingerprint
    assert other.test.fingerprint == splits.test.fingerprint


def test_default_validation_set_is_limited() -> None:
    many = make(12_000, 0)
    assert [len(part) for part in many.split()] == [33_501, 2_499, 0]
    assert [len(part) for part in many.split(validation_fraction=0.1)] == [32_400, 3_600, 0]


def test_split_with_few_images() -> None:
    assert [len(part) for part in make(1, 1).split(validation_fraction=0.5)] == [3, 0, 3]
    assert [len(part) for part in make().split(validation_fraction=0)] == [270, 0, 30]
    with pytest.raises(DataError, match="no training images"):
        make(0, 5).split()


def test_subset_is_balanced_with_a_tenth_for_testing() -> None:
    subset = make(90, 60).subset(60, seed=1)
    assert subset.class_counts().tolist() == [20, 20, 20]
    assert subset.test.class_counts().tolist() == [2, 2, 2]
    assert subset.fingerprint == make(90, 60).subset(60, seed=1).fingerprint
    assert subset.fingerprint != make(90, 60).subset(60, seed=2).fingerprint


def test_subset_size_not_divisible_by_number_of_classes() -> None:
    counts = make().subset(32).class_counts()
    assert counts.sum() == 32
    assert counts.max() - counts.min() == 1


def test_subset_of_training_or_test_images_only() -> None:
    assert make(0, 20).subset(30).is_test.all()
    assert not make(20, 0).subset(30).is_test.any()


@pytest.mark.parametrize(("count", "message"), [(5, "at least 6"), (400, "available"), (-1, "at least 6")])
def test_subset_size_out_of_range(count: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make().subset(count)


def test_take_keeps_the_order() -> None:
    taken = make().take(np.array([5, 2, 299]))
    assert taken.sources == ("5.png", "2.png", "299.png")
    assert taken.labels.tolist() == [0, 0, 2]


def with_validation(
    num_train: int = 90, num_test: int = 10, num_validation: int = 20, **changes: Any
) -> Dataset:
    """Return a data set whose source marks validation images."""
    dataset = make(num_train, num_test, **changes)
    numbers = np.tile(np.arange(num_train + num_test), 3)
    return dataclasses.replace(dataset, is_validation=numbers < num_validation)


def test_validation_images_of_the_source() -> None:
    dataset = with_validation(notes=("a note",))
    splits = dataset.split(seed=1)
    assert [len(part) for part in splits] == [210, 60, 30]
    assert splits.validation.is_validation.all()
    assert splits.validation.fingerprint == dataset.split(seed=2).validation.fingerprint
    assert [len(part) for part in dataset.split(validation_fraction=0.1)] == [243, 27, 30]
    assert {part.notes for part in (*splits, dataset.subset(30))} == {("a note",)}
    assert dataset.fingerprint != make().fingerprint
    assert with_validation(num_validation=0).fingerprint == make().fingerprint
    with pytest.raises(DataError, match="no training images"):
        with_validation(num_validation=90).split()
    with pytest.raises(DataError, match="both"):
        make(is_validation=np.ones(300, np.bool_))


@pytest.mark.parametrize("count", [6, 15, 60, 150, 300])
def test_subset_keeps_the_share_of_validation_images(count: int) -> None:
    subset = with_validation().subset(count)
    assert subset.class_counts().tolist() == [count // 3] * 3
    assert subset.test.class_counts().min() >= 1
    train = count - subset.is_test.sum() - subset.is_validation.sum()
    assert train >= 3
    assert abs(subset.is_validation.sum() - (count - subset.is_test.sum()) * 20 / 90) <= 3


@pytest.mark.parametrize(("num_train", "num_test", "sizes"), [(90, 1, [29, 1]), (3, 60, [3, 27])])
def test_subset_of_an_uneven_split(num_train: int, num_test: int, sizes: list[int]) -> None:
    subset = make(num_train, num_test).subset(90)
    assert [len(part) // 3 for part in (subset.train, subset.test)] == sizes


def test_repr() -> None:
    assert repr(make()) == "Dataset('made up': 300 images, 3 classes, 270 train + 30 test)"
