"""Lines about a data set's classes, splits and warnings."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cifarml import Dataset, load_dataset
from cifarml.data.dataset import BadImage
from cifarml.data.describe import (
    count_classes,
    describe_classes,
    describe_splits,
    list_counts,
    list_warnings,
    shorten,
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("drawn:200")


def two_classes(dataset: Dataset, num_cats: int) -> Dataset:
    """Return a data set of ships, and some cats."""
    is_cat = np.arange(len(dataset)) < num_cats
    return dataset.relabel(np.where(is_cat, 0, 1), ("cat", "ship"))


def test_classes_with_counts_of_training_images(dataset: Dataset) -> None:
    assert describe_classes(two_classes(dataset, 10)) == "2 classes: cat 10, ship 170"
    line = describe_classes(dataset)
    assert line.startswith("10 classes: airplane 18, automobile 18, ")
    assert line.endswith(", ... (18 each)")
    assert len(line) < 80


def test_many_classes_are_shortened() -> None:
    line = list_counts({f"class {number}": number + 1 for number in range(1000)})
    assert line.startswith("1,000 classes: class 0 1, class 1 2, ")
    assert line.endswith(", ... (1 to 1,000 each)")
    assert len(line) < 80
    assert "a" * 20 not in list_counts({"a" * 255: 1, "b" * 255: 1})


@pytest.mark.parametrize(
    ("origin", "shown"),
    [
        ("2000pics.zip", "2000pics.zip: "),
        ("/data/" + "folder/" * 20 + "2000pics.zip", "2000pics.zip: "),
        ("az://container/" + "x" * 200, "xxx"),
    ],
)
def test_splits(dataset: Dataset, origin: str, shown: str) -> None:
    line = describe_splits(dataclasses.replace(dataset, origin=origin).split())
    assert line.startswith(shown)
    assert line.endswith(": 10 classes; 160 training, 20 validation, 20 test images")
    assert len(line) < 80


def test_counts_of_each_split(dataset: Dataset) -> None:
    found = count_classes(dataset.split())
    assert found[0] == {"name": "airplane", "train": 16, "validation": 2, "test": 2}
    assert [each["name"] for each in found] == list(dataset.class_names)


def test_warnings_of_the_data_check(dataset: Dataset) -> None:
    assert list_warnings(dataset) == []
    images = dataset.images.copy()
    images[dataset.is_test] = images[~dataset.is_test][: dataset.is_test.sum()]
    skipped = (BadImage("x.png", "damaged"),)
    found = list_warnings(dataclasses.replace(two_classes(dataset, 10), images=images, skipped=skipped))
    assert "20 images are in both train and test" in found
    assert any(each.startswith("imbalanced classes") for each in found)
    assert not any("read" in each for each in found), "skipped images are listed one by one"


def test_shorten() -> None:
    assert shorten("cat") == "cat"
    assert shorten("a" * 30 + "b" * 30) == "aaaaaaaa…bbbbbbb"
