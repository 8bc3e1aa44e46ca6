"""Groups of images that show the same."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from cifarml import Dataset
from cifarml.data.splitting.copies import copy_stem, group_copies


def noise(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def groups_of(images: npt.NDArray[np.uint8], names: list[str], labels: list[int] | None = None) -> list[int]:
    found = group_copies(images, np.array(labels or [0] * len(names), np.int64), names)
    return [int(group) for group in found]


@pytest.mark.parametrize(
    ("copy", "stem"),
    [
        ("x_1_flip.png", "x_1"),
        ("x_1_hflip.jpg", "x_1"),
        ("x_1-flipped-horizontal.jpg", "x_1"),
        ("x_1_rot90.png", "x_1"),
        ("x_1_rotated_15deg.png", "x_1"),
        ("x_1_aug_3.png", "x_1"),
        ("x_1_flip_bright.png", "x_1"),
        ("x_1 copy.png", "x_1"),
        ("x_1 copy 2.png", "x_1"),
        ("x_1 - Copy.png", "x_1"),
        ("x_1 - Copy (2).png", "x_1"),
        ("x_1 - Kopie.png", "x_1"),
        ("Copy of x_1.png", "x_1"),
        ("flipped_x_1.png", "x_1"),
        ("X_1.JPEG", "x_1"),
        ("x_1_jpg.rf.0123456789abcdef0123456789abcdef.jpg", "x_1_jpg"),
        ("IMG_7_burst01.jpg", "img_7"),
        ("clip3_frame_0012.jpg", "clip3"),
        ("00001IMG_00001_BURST20180815151200000_COVER.jpg", "burst20180815151200000"),
        ("burst3_1.jpg", "burst3"),
        ("IMG_20230101_120033_001.jpg", "img_20230101_120033"),
        ("20230101_120033(1).jpg", "20230101_120033"),
        ("x_1.png", "x_1"),
        ("flip.png", "flip"),
        ("frame_0001.png", "frame_0001"),
        ("grey wolf.png", "wolf"),
        ("a/b_flip/x_1.png", "a/b_flip/x_1"),
    ],
)
def test_stem(copy: str, stem: str) -> None:
    assert copy_stem(copy) == stem


def test_numbers_in_parentheses_are_copies_of_an_existing_file_only() -> None:
    assert groups_of(noise(3), ["a (1).png", "a (2).png", "b.png"]) == [0, 1, 2]
    assert groups_of(noise(4), ["a.png", "a (1).png", "a~2.png", "b.png"]) == [0, 0, 0, 3]


def test_equal_pixels_are_grouped_over_classes() -> None:
    images = noise(5)
    images[4] = images[1]
    assert groups_of(images, list("abcde"), [0, 0, 1, 1, 1]) == [0, 1, 2, 3, 1]
    assert groups_of(noise(2), ["x_1.png", "x_1_flip.png"], [0, 1]) == [0, 1], "stems are of one class"


def test_similar_images_are_grouped(drawn: Dataset) -> None:
    """Re-encoded, brighter and mirrored copies under other names."""
    images = drawn.images[drawn.labels == 0][:15]
    rng = np.random.default_rng(1)
    noisy = np.clip(images + rng.normal(0, 4, images.shape), 0, 255).astype(np.uint8)
    dim = (images * 0.8 + 5).astype(np.uint8)
    every = np.concatenate([images, noisy, dim[:, :, ::-1]])
    count = len(images)
    assert groups_of(every, [f"{i * 7919 % 1000}.png" for i in range(3 * count)]) == list(range(count)) * 3


def test_different_and_blank_images_are_not_similar(drawn: Dataset) -> None:
    images = drawn.images[drawn.labels == 1]
    assert len(set(groups_of(images, [f"{i * 7919}.png" for i in range(len(images))]))) == len(images)
    blank = np.stack([np.full((32, 32, 3), value, np.uint8) for value in (0, 1, 200, 255)])
    assert groups_of(blank, list("abcd")) == [0, 1, 2, 3]


def test_frames_of_a_single_video_are_cut_into_runs() -> None:
    groups = groups_of(noise(100), [f"clip_frame_{i}.png" for i in range(100)])
    assert groups == [i - i % 5 for i in range(100)]
