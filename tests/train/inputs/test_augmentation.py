"""Data augmentation and batches."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest

from cifarml import Dataset
from cifarml.model.recipe import Recipe
from cifarml.train.inputs import batches as train_batches
from cifarml.train.inputs.augmentation import (
    augment_images,
    cut_out,
    distort,
    mix_images,
    recolour,
    shift_images,
)
from cifarml.train.inputs.batches import Batches, one_hot

SETTINGS: dict[str, Any] = {"num_epochs": 1, "batch_size": 32, "optimizer": "sgd", "learning_rate": 0.1}
ALL = Recipe(**SETTINGS, flip=True, shift=2, cutout=8, distortion=0.5, colour=0.5, mixing=1.0)


def numbers(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_shift_with_reflection_padding(drawn: Dataset) -> None:
    moved = shift_images(drawn.images, numbers(), by=3)
    for before, after in zip(drawn.images, moved, strict=True):
        padded = np.pad(before, ((3, 3), (3, 3), (0, 0)), mode="reflect")
        found = [
            (y, x) for y in range(7) for x in range(7) if (padded[y : y + 32, x : x + 32] == after).all()
        ]
        assert found
    assert (moved != drawn.images).any(axis=(1, 2, 3)).mean() > 0.8


def test_cutout(drawn: Dataset) -> None:
    cut = cut_out(drawn.images, numbers(), size=8)
    changed = (cut != drawn.images).any(axis=3).sum(axis=(1, 2))
    assert changed.max() <= 64
    assert changed.mean() > 20
    assert len(np.unique(cut[cut != drawn.images])) == 1


def test_distortion_of_strength_0_changes_nothing(drawn: Dataset) -> None:
    same = distort(drawn.images, numbers(), strength=0.0)
    assert np.abs(same.astype(int) - drawn.images).max() <= 1


def test_distortion_of_a_uniform_image_changes_nothing() -> None:
    plain = np.full((5, 32, 32, 3), (10, 130, 250), np.uint8)
    assert (distort(plain, numbers(), strength=1.0, shift=4) == plain).all()


def test_distortion_rotates_about_the_centre() -> None:
    """A disc at the centre keeps its position at any angle; pixels beside it change."""
    y, x = np.mgrid[:32, :32] - 15.5
    disc = ((y**2 + x**2 < 40) * 255).astype(np.uint8)[None, :, :, None].repeat(3, axis=3).repeat(50, axis=0)
    turned = distort(disc, numbers(), strength=0.5).astype(float).mean(axis=3)
    share = turned / turned.sum(axis=(1, 2), keepdims=True)
    assert np.abs((share * y).sum(axis=(1, 2))).max() < 0.2
    assert np.abs((share * x).sum(axis=(1, 2))).max() < 0.2
    assert (turned.std(axis=0) > 10).any()


def test_colour_jitter(drawn: Dataset) -> None:
    changed = recolour(drawn.images, numbers(), strength=0.5)
    assert (changed != drawn.images).mean() > 0.5
    assert abs(changed.mean() - drawn.images.mean()) < 12
    grey = np.full((4, 32, 32, 3), 128, np.uint8)
    assert (np.ptp(recolour(grey, numbers(), strength=1.0), axis=3) <= 1).all(), "grey stays grey"


@pytest.mark.parametrize("seed", range(8))
def test_mixed_targets_match_the_shares_of_the_images(seed: int) -> None:
    """With black and white images as the classes, the mean pixel value is the target of white."""
    images = np.repeat(np.array([0, 255], np.uint8), 8)[:, None, None, None] * np.ones(
        (1, 32, 32, 3), np.uint8
    )
    targets = one_hot(np.repeat([0, 1], 8), 2)
    mixed, shares = mix_images(images, targets, numbers(seed))
    assert np.allclose(shares.sum(axis=1), 1)
    assert np.allclose(mixed.mean(axis=(1, 2, 3)) / 255, shares[:, 1], atol=0.01)


def test_all_augmentations_together(drawn: Dataset) -> None:
    before = drawn.images.copy()
    changed = augment_images(drawn.images, ALL, numbers())
    assert changed.shape == drawn.images.shape
    assert changed.dtype == np.uint8
    assert (drawn.images == before).all()


def test_batches_are_reproducible(drawn: Dataset) -> None:
    """Seed, epoch and index determine a batch, whatever was requested before."""
    first, second = Batches(drawn.train, ALL, seed=3), Batches(drawn.train, ALL, seed=3)
    length = len(first)
    made = list(islice(first.endless(), 3 * length))
    again = [*second.epoch(2), *islice(second.endless(first_epoch=1), len(second))]
    for ours, theirs in zip(
        [*made[2 * len(first) :], *made[len(first) : 2 * len(first)]], again, strict=True
    ):
        assert np.array_equal(ours[0], theirs[0])
        assert np.array_equal(ours[1], theirs[1])
    other_seed = Batches(drawn.train, ALL, seed=4)
    assert (next(other_seed.epoch(2))[0] != again[0][0]).any()


def test_errors_of_the_prefetch_thread_are_raised(drawn: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(train_batches, "augment_images", fail)
    with pytest.raises(MemoryError, match="no room"):
        next(Batches(drawn.train, ALL, seed=3).endless())


def test_an_epoch_contains_each_image_once(drawn: Dataset) -> None:
    batches = Batches(drawn.train, Recipe(**SETTINGS), seed=0)
    seen = np.concatenate([images for images, _ in batches.epoch(0)])
    kept = {image.tobytes() for image in seen}
    assert len(seen) == len(drawn.train) // 32 * 32 or len(seen) == len(drawn.train)
    assert kept <= {image.tobytes() for image in drawn.train.images}
    assert (next(batches.epoch(1))[0] != seen[:32]).any()


def test_every_image_is_mirrored_every_other_epoch(drawn: Dataset) -> None:
    batches = Batches(drawn.train, Recipe(**SETTINGS, flip=True), seed=0)
    straight = {image.tobytes() for image in drawn.train.images}
    seen = []
    for epoch in range(2):
        images = np.concatenate([images for images, _ in batches.epoch(epoch)])
        seen.append({image.tobytes() for image in images} & straight)
    assert seen[0] | seen[1] == straight
    assert not seen[0] & seen[1]
    assert 0.3 < len(seen[0]) / len(straight) < 0.7


def test_fewer_images_than_a_batch(drawn: Dataset) -> None:
    few = Batches(drawn.test, Recipe(**SETTINGS | {"batch_size": 5000}), seed=0)
    assert len(few) == 1
    assert len(next(few.epoch(0))[0]) == len(drawn.test)
