"""From file names to labels: which pictures there are, of which class, to train on or to test with."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cifarml.data.dataset import TEST_FRACTION, check_class_names
from cifarml.errors import DataError
from cifarml.images import SUFFIXES

__all__ = ["Layout", "find_layout", "last_tenth"]

_FLAT_NAME: Final = re.compile(r"(?P<class_name>.+)_(?P<number>\d+)")
_SPLITS: Final = frozenset({"train", "test"})
_HINT: Final = (
    "name the pictures CLASS_NUMBER.png in one folder, or give each class a folder of its own, "
    "in train/ and test/ if you like; see docs/data.md"
)


class Layout(NamedTuple):
    """Labels of pictures by name.

    Attributes:
        class_names: Sorted names of the classes.
        names: The pictures, in the order in which the source lists them.
        labels: int64, shape (N,).
        is_test: bool, shape (N,).
    """

    class_names: tuple[str, ...]
    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    is_test: npt.NDArray[np.bool_]


class _Picture(NamedTuple):
    name: str
    class_name: str
    is_test: bool | None  # None: the source does not say


def find_layout(files: Iterable[str], folders: Collection[str]) -> Layout:
    """Read the labels off the names.

    Two layouts are known: ``<class>_<number>.png`` all in one folder, and a folder for each class, which
    may lie in ``train`` and ``test``. Folders around them don't matter; hidden files and files that
    are no pictures are passed over. Where the source has no test pictures of its own, the last tenth of
    each class by number becomes the test set.

    Args:
        files: Names of files, parts separated by ``/``.
        folders: Names of folders, empty ones included.

    Returns:
        Pictures and labels.

    Raises:
        DataError: If there are no pictures, or no labels in their names, or too few of a class.
    """
    names = [name for name in files if _is_picture(name)]
    if not names:
        raise DataError(f"no pictures there (files that end in {', '.join(sorted(SUFFIXES))})", _HINT)
    parents = {name.rpartition("/")[0] for name in names}
    wrapper = _common_folder(parents)
    inside = {parent: PurePosixPath(parent).relative_to(wrapper).parts for parent in parents}
    depths = {len(parts) for parts in inside.values()}
    tops = {parts[0].lower() for parts in inside.values() if parts}
    whole = wrapper.name.lower() if wrapper.name.lower() in _SPLITS else None
    if depths == {0} or (depths == {1} and tops <= _SPLITS):
        pictures = _flat(
            names, {p: whole or (parts[0].lower() if parts else None) for p, parts in inside.items()}
        )
    elif depths == {1}:
        _check_empty_classes(parents, {str(wrapper)}, folders)
        pictures = [_Picture(name, inside[name.rpartition("/")[0]][0], _is_test(whole)) for name in names]
    elif depths == {2} and tops <= _SPLITS:
        _check_empty_classes(parents, {str(PurePosixPath(parent).parent) for parent in parents}, folders)
        where = {parent: (parts[1], parts[0].lower() == "test") for parent, parts in inside.items()}
        pictures = [_Picture(name, *where[name.rpartition("/")[0]]) for name in names]
    else:
        shown = ", ".join(sorted(parent or "(top)" for parent in parents)[:6])
        raise DataError(f"the folders are of no known layout. Received pictures in: {shown}", _HINT)
    return _layout(pictures)


def last_tenth(
    labels: npt.NDArray[np.int64], num_classes: int, order: Sequence[int] | None = None
) -> npt.NDArray[np.bool_]:
    """Mark the last tenth of each class, at least one picture, as test pictures.

    This is the article's split (numbers 1-180 of each 200 train, 181-200 test), for any number.

    Args:
        labels: int64, shape (N,).
        num_classes: How many classes there are.
        order: The N positions in the order that counts; as they stand when left out.

    Returns:
        bool, shape (N,).
    """
    ordered = np.arange(len(labels)) if order is None else np.asarray(order)
    is_test = np.zeros(len(labels), np.bool_)
    for label in range(num_classes):
        members = ordered[labels[ordered] == label]
        is_test[members[len(members) - max(1, round(len(members) * TEST_FRACTION)) :]] = True
    return is_test


def natural_key(name: str) -> list[tuple[bool, int, str]]:
    """Sort key that puts ``cat_2`` before ``cat_10``."""
    return [(part.isdigit(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def _is_picture(name: str) -> bool:
    if name[name.rfind(".") :].lower() not in SUFFIXES:
        return False
    return not (name.startswith((".", "__MACOSX/")) or "/." in name)


def _common_folder(parents: Collection[str]) -> PurePosixPath:
    """Return the innermost folder that holds all of them."""
    common = PurePosixPath(min(parents))
    while not all(PurePosixPath(parent).is_relative_to(common) for parent in parents):
        common = common.parent
    return common


def _is_test(split: str | None) -> bool | None:
    return None if split is None else split == "test"


def _flat(names: list[str], split_of: dict[str, str | None]) -> list[_Picture]:
    pictures = []
    without = []
    for name in names:
        parent, _, base = name.rpartition("/")
        match = _FLAT_NAME.fullmatch(base[: base.rfind(".")])
        if match:
            pictures.append(_Picture(name, match["class_name"], _is_test(split_of[parent])))
        else:
            without.append(name)
    if without:
        raise DataError(
            f"{len(without):,} of {len(names):,} pictures have no label: {', '.join(map(repr, without[:5]))}",
            _HINT,
        )
    return pictures


def _check_empty_classes(used: Collection[str], beside: Collection[str], folders: Collection[str]) -> None:
    """Raise where a class folder holds no picture: a label without pictures."""
    empty = [
        folder
        for folder in folders
        if (folder.rpartition("/")[0] or ".") in beside
        and folder not in used
        and not folder.rpartition("/")[2].startswith((".", "__"))
    ]
    if empty:
        raise DataError(
            f"class folders without pictures: {', '.join(map(repr, sorted(empty)[:5]))}",
            hint="remove these folders, or put pictures into them",
        )


def _layout(pictures: list[_Picture]) -> Layout:
    class_names = tuple(sorted({picture.class_name for picture in pictures}))
    check_class_names(class_names)
    number = {name: label for label, name in enumerate(class_names)}
    labels = np.array([number[picture.class_name] for picture in pictures], np.int64)
    counts = np.bincount(labels)
    if counts.min() < 2:
        alone = [name for name, count in zip(class_names, counts, strict=True) if count < 2]
        raise DataError(
            f"classes with a single picture: {', '.join(map(repr, alone[:5]))}; "
            "each needs at least two, one to train on and one to test with",
            hint="add pictures of these classes, or remove them",
        )
    splits = {picture.is_test for picture in pictures}
    if None in splits or splits == {False}:
        order = sorted(range(len(pictures)), key=lambda i: natural_key(pictures[i].name))
        is_test = last_tenth(labels, len(class_names), order)
    else:
        is_test = np.array([bool(picture.is_test) for picture in pictures])
    return Layout(class_names, tuple(picture.name for picture in pictures), labels, is_test)
