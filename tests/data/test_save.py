"""Saving of data sets as archives."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cifarml import Dataset, load_dataset
from cifarml.data.save import save_images
from cifarml.errors import DataError


def test_round_trip_is_lossless_and_reproducible(drawn: Dataset, tmp_path: Path) -> None:
    path = save_images(drawn, tmp_path / "new" / "a.zip")
    back = load_dataset(path)
    assert back.class_names == drawn.class_names
    assert len(back) == len(drawn)
    for part in ("train", "test"):
        for label in range(10):
            given = getattr(drawn, part).images[getattr(drawn, part).labels == label]
            assert np.array_equal(getattr(back, part).images[getattr(back, part).labels == label], given)
    again = save_images(drawn, tmp_path / "b.zip")
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(path.read_bytes()).digest()
    assert [entry.name for entry in path.parent.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "c:d", " x"])
def test_class_names_that_are_not_valid_folder_names(drawn: Dataset, tmp_path: Path, name: str) -> None:
    odd = replace(drawn, class_names=(name, *drawn.class_names[1:]))
    with pytest.raises(DataError, match="folder"):
        save_images(odd, tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())


def test_unwritable_path(drawn: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't write"):
        save_images(drawn, tmp_path / "file" / "a.zip")


def test_validation_images_are_kept(drawn: Dataset, tmp_path: Path) -> None:
    is_validation = ~drawn.is_test & (np.arange(len(drawn)) % 3 == 0)
    back = load_dataset(save_images(replace(drawn, is_validation=is_validation), tmp_path / "a.zip"))
    assert back.is_validation.sum() == is_validation.sum()
    assert back.is_test.sum() == drawn.is_test.sum()
