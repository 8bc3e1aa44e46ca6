"""Labels and train/test split of images, derived from file names."""

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

_FLAT_NAME: Final = re.compile(r"(?P<class_name>.+)_(?P<number>\d+)")
_SPLITS: Final = {"train": False, "test": True}
_HINT: Final = (
    "name the images CLASS_NUMBER.png in one folder, or use a folder for each class, "
    "optionally inside train/ and test/; see docs/guides/own-images.md"
)


class Layout(NamedTuple):
    """Names, labels and split of N images, in the order of the source; class names are sorted."""

    class_names: tuple[str, ...]
    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    is_test: npt.NDArray[np.bool_]


class _Place(NamedTuple):
    """Class and split of an image."""

    class_name: str
    is_test: bool | None  # None: not specified by the source


def find_layout(files: Iterable[str], folders: Collection[str]) -> Layout:
    """Derive labels and train/test split from file and folder names.

    Two layouts are supported: files named `<class>_<number>.png`, and a folder for each class. Both can be
    inside `train` and `test` folders. Enclosing folders, hidden files and files other than images are
    ignored. If no images are marked as test images, the last tenth of each class by number is the test set.

    Args:
        files: Names of all files, with `/` as separator.
        folders: Names of all folders, including empty ones.

    Raises:
        DataError: If there are no images, their names contain no labels, or a class has too few images.
    """
    names = [name for name in files if _is_image(name)]
    if not names:
        raise DataError(f"no images found (files that end in {', '.join(sorted(SUFFIXES))})", _HINT)
    parent_of = [name.rpartition("/")[0] for name in names]
    parents = set(parent_of)
    wrapper = _common_folder(parents)
    inside = {parent: PurePosixPath(parent).relative_to(wrapper).parts for parent in parents}
    depths = {len(parts) for parts in inside.values()}
    tops = {parts[0].lower() for parts in inside.values() if parts}
    whole = _is_test(wrapper.name)
    if depths == {0} or (depths == {1} and tops <= _SPLITS.keys()):
        is_test = {parent: _is_test(parts[0]) if parts else whole for parent, parts in inside.items()}
        places = _parse_flat_names(names, is_test)
    elif depths == {1} or (depths == {2} and tops <= _SPLITS.keys()):
        _check_empty_classes(parents, {str(PurePosixPath(parent).parent) for parent in parents}, folders)
        place_of = {
            parent: _Place(parts[-1], whole if len(parts) == 1 else _is_test(parts[0]))
            for parent, parts in inside.items()
        }
        places = [place_of[parent] for parent in parent_of]
    else:
        shown = ", ".join(sorted(parent or "(top)" for parent in parents)[:6])
        raise DataError(f"unknown folder layout. Received images in: {shown}", _HINT)
    return _build_layout(names, places)


def last_tenth(
    labels: npt.NDArray[np.int64], num_classes: int, order: Sequence[int] | None = None
) -> npt.NDArray[np.bool_]:
    """Mark the last tenth of each class (at least one image) as test images.

    This generalizes the article's split: of each 200 images, 1-180 are for training and 181-200 for testing.

    Args:
        labels: int64, shape (N,).
        num_classes: Number of classes.
        order: The N positions in sorted order; 0 to N-1 if omitted.

    Returns:
        bool, shape (N,), True for test images.
    """
    ordered = np.arange(len(labels)) if order is None else np.asarray(order)
    is_test = np.zeros(len(labels), np.bool_)
    for label in range(num_classes):
        members = ordered[labels[ordered] == label]
        is_test[members[len(members) - max(1, round(len(members) * TEST_FRACTION)) :]] = True
    return is_test


def natural_key(name: str) -> list[tuple[bool, int, str]]:
    """Natural sort key, which orders `cat_2` before `cat_10`."""
    return [(part.isdigit(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def _is_image(name: str) -> bool:
    if name[name.rfind(".") :].lower() not in SUFFIXES:
        return False
    return not (name.startswith((".", "__MACOSX/")) or "/." in name)


def _common_folder(parents: Collection[str]) -> PurePosixPath:
    """Return the innermost folder that contains all given folders."""
    common = PurePosixPath(min(parents))
    while not all(PurePosixPath(parent).is_relative_to(common) for parent in parents):
        common = common.parent
    return common


def _is_test(folder: str) -> bool | None:
    return _SPLITS.get(folder.lower())


def _parse_flat_names(names: list[str], is_test: dict[str, bool | None]) -> list[_Place]:
    places = []
    unlabelled = []
    for name in names:
        parent, _, base = name.rpartition("/")
        if match := _FLAT_NAME.fullmatch(base[: base.rfind(".")]):
            places.append(_Place(match["class_name"], is_test[parent]))
        else:
            unlabelled.append(name)
    if unlabelled:
        raise DataError(
            f"{len(unlabelled):,} of {len(names):,} images have no label: "
            f"{', '.join(map(repr, unlabelled[:5]))}",
            _HINT,
        )
    return places


def _check_empty_classes(used: Collection[str], parents: Collection[str], folders: Collection[str]) -> None:
    """Raise DataError if a class folder contains no images."""
    empty = [
        folder
        for folder in folders
        if (folder.rpartition("/")[0] or ".") in parents
        and folder not in used
        and not folder.rpartition("/")[2].startswith((".", "__"))
    ]
    if empty:
        raise DataError(
            f"class folders without images: {', '.join(map(repr, sorted(empty)[:5]))}",
            hint="remove these folders, or put images into them",
        )


def _build_layout(names: list[str], places: list[_Place]) -> Layout:
    known = set(places)
    class_names = tuple(sorted({place.class_name for place in known}))
    check_class_names(class_names)
    number = {place: class_names.index(place.class_name) for place in known}
    labels = np.fromiter(map(number.__getitem__, places), np.int64, len(places))
    counts = np.bincount(labels)
    if counts.min() < 2:
        too_few = [name for name, count in zip(class_names, counts, strict=True) if count < 2]
        raise DataError(
            f"classes with a single image: {', '.join(map(repr, too_few[:5]))}; "
            "each class needs at least two, one for training and one for testing",
            hint="add images to these classes, or remove the classes",
        )
    if any(place.is_test for place in known):
        tests = {place: bool(place.is_test) for place in known}
        is_test = np.fromiter(map(tests.__getitem__, places), np.bool_, len(places))
    else:
        order = sorted(range(len(names)), key=lambda i: natural_key(names[i]))
        is_test = last_tenth(labels, len(class_names), order)
    return Layout(class_names, tuple(names), labels, is_test)
