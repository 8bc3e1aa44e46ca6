"""Labels in the names of files."""

from __future__ import annotations

import pytest

from cifarml.data.layouts.flat_names import flat_class, natural_key, parse_flat_names
from cifarml.errors import DataError


@pytest.mark.parametrize(
    ("name", "class_name"),
    [
        ("cat_1.png", "cat"),
        ("a/b/red_panda_007.jpeg", "red_panda"),
        ("cat.0.jpg", "cat"),
        ("7_12.png", "7"),
        ("cafe\u0301_1.png", "caf\u00e9"),
        ("cat.png", ""),
        ("1.png", ""),
        ("v1.2.png", ""),
        ("cat_.png", ""),
        ("_1.png", ""),
    ],
)
def test_class_of_a_name(name: str, class_name: str) -> None:
    assert flat_class(name) == class_name


@pytest.mark.parametrize(
    "name",
    [
        "20230101_120033.jpg",
        "IMG_20230101_120033.jpg",
        "IMG_0001_2.jpg",
        "PXL_20230101_120033123.jpg",
        "2023-01-01_1.jpg",
        "img_1.png",
        "_MG_1234.jpg",
        "DSC_0007.jpg",
        "DSCN_0007.jpg",
        "DJI_0007.jpg",
        "Screenshot_1.png",
        "1672531200_1.jpg",
        "photo 2023.01.01_12.jpg",
    ],
)
def test_names_of_a_camera_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"1 of 2 images have no label: their names are dates.*'") as caught:
        parse_flat_names(["cat_1.png", name])
    assert name in caught.value.message


@pytest.mark.parametrize("name", ["train", "Val", "test1", "validation_set", "HOLDOUT"])
def test_names_of_splits_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=f"names of splits, not of classes: '{name}'"):
        parse_flat_names(["cat_1.png", f"{name}_1.png"])


def test_names_without_a_label_are_counted() -> None:
    with pytest.raises(DataError, match=r"2 of 3 images have no label: 'a\.png', 'b\.png'"):
        parse_flat_names(["a.png", "cat_1.png", "b.png"])


def test_natural_order() -> None:
    assert sorted(["a_10", "a_9", "a_1"], key=natural_key) == ["a_1", "a_9", "a_10"]
