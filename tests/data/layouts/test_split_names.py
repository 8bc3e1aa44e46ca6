"""Recognition of folders that name a split."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cifarml.data.layouts.split_names import SPELLINGS, Split, check_no_splits, split_level, split_of
from cifarml.errors import DataError

STYLES = ["{}", "{}1", "{}_set", "{}-data", "{}set", "{} images", "{}2017", "images_{}", "{}_images_2"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
def test_every_spelling(style: str, change: Callable[[str], str]) -> None:
    for split, words in SPELLINGS.items():
        assert {split_of(change(style.format(word))) for word in words} == {split}


@pytest.mark.parametrize(
    "name",
    [
        "cat",
        "trains",
        "trainer",
        "valley",
        "valve",
        "testudo",
        "device",
        "devil",
        "steam train",
        "",
        "1",
        "set",
    ],
)
def test_classes_are_not_splits(name: str) -> None:
    assert split_of(name) is None


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["seg_train", "seg_test"], {"seg_train": Split.TRAIN, "seg_test": Split.TEST}),
        (["CatsTrain", "CatsVal"], {"CatsTrain": Split.TRAIN, "CatsVal": Split.VALIDATION}),
        (["train", "unlabeled"], {"train": Split.TRAIN, "unlabeled": Split.UNLABELLED}),
        (["cat", "unlabeled"], {}),
        (["steam train", "diesel train"], {}),
        (["test_positive", "test_negative"], {}),
        (["train", "car"], {"train": Split.TRAIN}),
        (["seg_train"], {}),
        ([], {}),
    ],
)
def test_sibling_folders(names: list[str], found: dict[str, Split]) -> None:
    assert split_level(names) == found


def test_classes_with_names_of_splits() -> None:
    check_no_splits(["test_positive", "test_negative", "steam train"])
    with pytest.raises(DataError, match="'test_cat', 'train_cat'"):
        check_no_splits(["dog", "test_cat", "train_cat", "train_dog"])
