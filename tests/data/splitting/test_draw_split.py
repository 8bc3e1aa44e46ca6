"""Choice of test images in a source without test folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cifarml import Dataset, load_dataset
from cifarml.data.splitting.draw_split import draw_tenth, last_tenth
from tests.data.splitting.test_copies import noise
from tests.image_files import image_bytes, image_contents, write_folder, write_zip


def test_last_tenth() -> None:
    assert last_tenth(np.repeat([0, 1], [20, 3]), 2).nonzero()[0].tolist() == [18, 19, 22]


@pytest.mark.parametrize("count", [2, 5, 10, 37, 200])
def test_drawn_tenth_is_stratified(count: int) -> None:
    labels = np.repeat([0, 1, 2], [count, 2 * count, 3])
    is_test = draw_tenth(noise(len(labels)), labels, [f"{i}.png" for i in range(len(labels))])
    tests = np.bincount(labels[is_test], minlength=3).tolist()
    assert tests == [max(1, round(count / 10)), max(1, round(count / 5)), 1]


def test_order_and_names_do_not_matter() -> None:
    images, labels = noise(100), np.arange(100) % 2
    names = [f"{i}.png" for i in range(100)]
    order = np.random.default_rng(1).permutation(100)
    first = draw_tenth(images, labels, names)
    assert draw_tenth(images[order], labels[order], names).tolist() == first[order].tolist()


def test_names_of_kinds_within_a_class_do_not_decide(tmp_path: Path) -> None:
    """With the last tenth by name, the test set would contain bananas and tomatoes only."""
    kinds = {"fruit": ("apple", "banana"), "vegetable": ("cabbage", "tomato")}
    names = [f"{top}/{kind}_{i}.png" for top, two in kinds.items() for kind in two for i in range(50)]
    test = load_dataset(write_folder(tmp_path / "x", image_contents(names))).test
    assert test.class_counts().tolist() == [10, 10]
    assert len({name.rpartition("/")[2].partition("_")[0] for name in test.sources}) == 4


def test_copies_stay_on_one_side(tmp_path: Path) -> None:
    stems = [f"{name}/{name}_{i}" for name in ("cat", "dog") for i in range(40)]
    names = [stem + end for stem in stems for end in (".png", "_flip.png", " copy.png", "_rot90.png")]
    dataset = load_dataset(write_zip(tmp_path / "x.zip", image_contents(names)))
    assert dataset.test.class_counts().tolist() == [16, 16]
    for stem in stems:
        sides = {
            bool(dataset.is_test[i]) for i, name in enumerate(dataset.sources) if name[: len(stem) + 1]
            in {f"{stem}.", f"{stem}_", f"{stem} "}
        }  # fmt: skip
        assert len(sides) == 1


def test_identical_pixels_stay_on_one_side(tmp_path: Path) -> None:
    files = {f"{name}/{i * 7919}.png": image_bytes(i % 20) for name in "a" for i in range(60)}
    files |= {f"b/{i}.bmp": image_bytes(100 + i, "BMP") for i in range(30)}
    files |= {f"b/x{i}.png": image_bytes(100 + i) for i in range(30)}
    dataset = load_dataset(write_folder(tmp_path / "x", files))
    test, train = ({image.tobytes() for image in part.images} for part in (dataset.test, dataset.train))
    assert dataset.test.class_counts().tolist() == [6, 6]
    assert not test & train


@pytest.mark.parametrize("sizes", [(8, 4), (2, 1), (1, 1), (3,), (9, 1)])
def test_few_groups(sizes: tuple[int, ...]) -> None:
    """Every class has training and test images; the smallest group is tested if none is small enough."""
    names = [f"x{group}_aug_{i}.png" for group, size in enumerate(sizes) for i in range(size)]
    names += [f"other{i}.png" for i in range(10)]
    labels = np.repeat([0, 1], [sum(sizes), 10])
    if len(sizes) == 1:
        names[0] = names[0].replace("aug", "flip")
    is_test = draw_tenth(noise(len(names)), labels, names)
    tests = int(is_test[labels == 0].sum())
    assert tests == (min(sizes) if len(sizes) > 1 else 1)
    assert tests < sum(sizes)


def test_identical_images_only() -> None:
    images = np.zeros((20, 32, 32, 3), np.uint8)
    labels = np.repeat([0, 1], 10)
    is_test = draw_tenth(images, labels, [f"{i}.png" for i in range(20)])
    assert is_test.nonzero()[0].tolist() == [9, 19]


def test_seeds_do_not_change_the_test_set(tmp_path: Path) -> None:
    names = [f"{name}/{i}.png" for name in "ab" for i in range(50)]
    path = write_zip(tmp_path / "x.zip", image_contents(names))
    whole = load_dataset(path)
    tests = {load_dataset(path, seed=seed).test.sources for seed in (0, 1)}
    assert tests == {whole.test.sources}
    for seed in range(3):
        part: Dataset = load_dataset(path, subset=40, seed=seed)
        assert set(part.test.sources) <= set(whole.test.sources), "never trained on elsewhere"
        assert part.test.class_counts().tolist() == [2, 2]
