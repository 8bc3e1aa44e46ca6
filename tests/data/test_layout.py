"""Labels and split of images in the layouts that people have."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from cifarml.data.layout import Layout, find_layout
from cifarml.errors import DataError

CLASSES = ("cat", "dog")
SPELLINGS = [
    ("train", "val", "test"),
    ("Train", "Valid", "Test"),
    ("TRAINING", "VALIDATION", "TESTING"),
    ("training_set", "validation_set", "test_set"),
    ("train2017", "dev", "test1"),
    ("train-images", "eval", "holdout"),
    ("seg_train", "seg_val", "seg_test"),
]
STYLES = {
    "folders": "{split}/{name}/{i}.png",
    "subfolders": "{split}/{name}/part {i}/{i}.png",
    "twice": "{split}/{split}/{name}/{i}.png",
    "images": "{split}/images/{name}/{i}.png",
    "flat": "{split}/{name}_{i}.png",
    "dotted": "{split}/{name}.{i}.png",
    "inside": "{name}/{split}/{i}.png",
}


def paths(style: str, splits: Iterable[str], classes: Iterable[str] = CLASSES, count: int = 4) -> list[str]:
    return [
        style.format(split=split, name=name, i=i)
        for split, name, i in itertools.product(splits, classes, range(1, count + 1))
    ]


def layout_of(names: Iterable[str]) -> Layout:
    """Return the layout of these files; the folders are those that contain them."""
    names = list(names)
    parents = {name.rpartition("/")[0] for name in names}
    folders = {
        "/".join(parent.split("/")[: i + 1]) for parent in parents for i in range(parent.count("/") + 1)
    }
    return find_layout(names, folders - {""})


def split_sizes(layout: Layout) -> tuple[int, int, int]:
    tests, validation = int(layout.is_test.sum()), int(layout.is_validation.sum())
    return len(layout.names) - tests - validation, validation, tests


@pytest.mark.parametrize("wrapper", ["", "data/", "a b/data/images/"])
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: spelling[0])
def test_splits(spelling: tuple[str, str, str], style: str, wrapper: str) -> None:
    if style == "inside" and spelling[0] == "seg_train":
        pytest.skip("inside class folders only the usual names are recognized")
    train, validation, test = spelling
    for splits, sizes in (
        ((train, validation, test), (8, 8, 8)),
        ((train, test), (8, 0, 8)),
        ((train, validation), (8, 0, 8)),
    ):
        names = [wrapper + name for name in paths(STYLES[style], splits)]
        layout = layout_of(names)
        assert layout.class_names == CLASSES
        assert layout.names == tuple(names)
        assert split_sizes(layout) == sizes
        assert all(CLASSES[label] in name for label, name in zip(layout.labels, names, strict=True))
        held_out = test if test in splits else validation
        assert all(
            f"{held_out}/" in name for name, is_test in zip(names, layout.is_test, strict=True) if is_test
        )
        if style != "inside":
            assert f"test {held_out!r}" in layout.notes[-1]
        assert ("a validation folder is the test set" in str(layout.notes)) == (
            test not in splits and style != "inside"
        )


@pytest.mark.parametrize("style", ["folders", "flat"])
@pytest.mark.parametrize(
    ("split", "sizes"), [("train", (8, 0, 0)), ("valid", (0, 0, 8)), ("test", (0, 0, 8)), ("x", (8, 0, 0))]
)
def test_one_split_only(style: str, split: str, sizes: tuple[int, int, int]) -> None:
    assert split_sizes(layout_of(paths(STYLES[style], [split]))) == sizes


@pytest.mark.parametrize(
    "unlabelled",
    ["test/{i}.png", "test1/{i}.png", "test/test/{i}.png", "test/unknown/{i}.png", "unlabeled/{i}.png",
     "test/IMG_{i}.png", "seg_pred/{i}.png"],
)  # fmt: skip
@pytest.mark.parametrize("style", ["folders", "flat", "dotted"])
def test_test_folder_without_labels(style: str, unlabelled: str) -> None:
    train = "seg_train" if "seg" in unlabelled else "train"
    names = paths(STYLES[style], [train])
    layout = layout_of([*names, *(unlabelled.format(i=i) for i in range(30))])
    assert layout.class_names == CLASSES
    assert layout.names == tuple(names)
    folder = unlabelled.partition("/")[0]
    assert f"ignored folder {folder!r}: its 30 images have no known label" in layout.notes


def test_validation_is_the_test_set_if_the_test_folder_has_no_labels() -> None:
    layout = layout_of([*paths(STYLES["folders"], ["train", "val"]), "test/1.png", "test/2.png"])
    assert split_sizes(layout) == (8, 0, 8)


def test_labels_of_training_and_test_images_in_different_styles() -> None:
    names = [*paths(STYLES["folders"], ["train"]), *paths(STYLES["flat"], ["test"])]
    assert split_sizes(layout_of(names)) == (8, 0, 8)


@pytest.mark.parametrize(
    ("names", "stray"),
    [
        (paths("{name}/{i}.png", [""]), "top.png"),
        (paths("photos/{name}/{i}.png", [""]), "photos/cover.png"),
        (paths("photos/{name}/{i}.png", [""]), "cover.png"),
        (paths("{split}/{name}/{i}.png", ["train", "val"]), "train/montage.png"),
        (paths("{split}/{name}/{i}.png", ["train", "val"]), "montage.png"),
        (paths("{split}/{name}/{i}.png", ["train", "val"]), "plots/1.png"),
        (paths("{name}_{i}.png", [""]), "plots/1.png"),
    ],
)
def test_stray_image(names: list[str], stray: str) -> None:
    layout = layout_of([*names, stray])
    assert layout.class_names == CLASSES
    assert layout.names == tuple(names)
    assert any("ignored 1 image " in note and repr(stray) in note for note in layout.notes)


def test_subfolders_of_a_class() -> None:
    layout = layout_of(
        [*paths("cat/{name}/{i}.png", [""], ("a", "b")), "cat/1.png", "dog/1.png", "dog/x/y/2.png"]
    )
    assert layout.class_names == CLASSES
    assert layout.labels.tolist() == [0] * 9 + [1] * 2
    assert layout.notes == ("subfolders belong to their class: 'cat/a', 'cat/b', 'dog/x/y'",)


def test_classes_inside_a_split_can_be_named_train() -> None:
    layout = layout_of(paths(STYLES["folders"], ["train", "test"], ("car", "train")))
    assert layout.class_names == ("car", "train")


def test_unicode_spellings_of_one_class() -> None:
    names = [*paths(STYLES["folders"], ["train"], ("caf\u00e9", "dog")), "train/cafe\u0301/x.png"]
    names += paths(STYLES["folders"], ["test"], ("cafe\u0301", "dog"))
    layout = layout_of(names)
    assert layout.class_names == ("caf\u00e9", "dog")
    assert split_sizes(layout) == (9, 0, 8)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (paths("{split}_{i}.png", ["train", "val"]), "names of splits, not of classes: 'train', 'val'"),
        (paths("{split}/{i}.png", ["train", "val"]), "have no label: 'train/1.png'"),
        (paths("{split}/cat_{i}.png", ["train", "val"], "x"), "a single class: 'cat'"),
        (
            paths("{name}/{i}.png", [""], ("train", "car", "ship")),
            "'train' is the name of a split.*'car', 'ship'",
        ),
        (paths("{name}/{i}.png", [""], ("val", "test", "x")), "'test', 'val' are names of splits.*'x'"),
        (
            paths("{split}_{name}/{i}.png", ["train", "test"]),
            "not classes. Received: 'test_cat', 'train_cat'",
        ),
        (
            paths("{split}_{name}_{i}.png", ["train", "test"]),
            "not classes. Received: 'test_cat', 'train_cat'",
        ),
        ([*paths("cat/{split}/{i}.png", ["train"]), "dog/1.png"], "Received: 'cat/train', 'dog'"),
        (paths("{name}/{split}/{split}/{i}.png", ["train", "test"]), "ambiguous folder layout"),
        (paths("2023010{i}_12003{i}.png", "x"), "dates or numbers of a camera"),
        (paths("photos/{i}.png", "x"), "have no label: 'photos/1.png'"),
        (
            [*paths("{name}/{i}.png", "x"), *paths("{name}_{i}.png", "x")],
            "8 images such as 'cat_1.png' beside 8",
        ),
        (paths("cat/{i}.png", "x"), "a single class: 'cat'"),
        (paths("{split}/cat/{i}.png", ["train", "test"], "x"), "a single class: 'cat'"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_ambiguous_guesses_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        layout_of(dict.fromkeys(names))
    assert caught.value.hint
