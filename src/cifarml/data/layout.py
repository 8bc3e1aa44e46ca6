"""Labels and split of images, derived from file and folder names."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cifarml.data.dataset import check_class_names
from cifarml.data.layouts.flat_names import LAYOUT_HINT, flat_class, parse_flat_names
from cifarml.data.layouts.image_folders import (
    ImageFolder,
    count_images,
    drop_others,
    drop_strays,
    group_by_folder,
    is_image,
    unwrap,
)
from cifarml.data.layouts.split_names import (
    Split,
    check_no_splits,
    is_filler,
    split_in,
    split_level,
    split_of,
)
from cifarml.errors import DataError
from cifarml.images import SUFFIXES

_SHOWN: Final = 5


class Layout(NamedTuple):
    """Names, labels and split of N images, in the order of the source; class names are sorted.

    Attributes:
        class_names: Names of the classes.
        names: Name of each image file.
        labels: int64, shape (N,).
        is_test: bool, shape (N,); all False if the source has no test images.
        is_validation: bool, shape (N,).
        by_number: True if the labels are in the names of the files, which are numbered within each class.
        notes: Statements about how labels and split were derived.
    """

    class_names: tuple[str, ...]
    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    is_test: npt.NDArray[np.bool_]
    is_validation: npt.NDArray[np.bool_]
    by_number: bool = False
    notes: tuple[str, ...] = ()


class _Labels(NamedTuple):
    """Class and split of the labelled images, by file name."""

    class_of: dict[str, str]
    split_of: dict[str, Split]
    by_number: bool


def find_layout(files: Iterable[str], folders: Collection[str]) -> Layout:
    """Derive labels and split from file and folder names.

    Two layouts are supported: files named `<class>_<number>.png`, and a folder for each class, with any
    folders inside. Both can be inside folders that name a split (see `split_names`). Enclosing folders,
    hidden files, a few images beside the folders and files other than images are ignored. A validation
    folder is the test set if there is no test folder.

    Args:
        files: Names of all files, with `/` as separator.
        folders: Names of all folders, including empty ones.

    Raises:
        DataError: If there are no images, their names contain no labels, or the labels are ambiguous.
    """
    names = [name for name in files if is_image(name)]
    if not names:
        raise DataError(f"no images found (files that end in {', '.join(sorted(SUFFIXES))})", LAYOUT_HINT)
    notes: list[str] = []
    images, outer = unwrap(group_by_folder(names), notes)
    tops = sorted({folder.top for folder in images if folder.inside})
    if splits := split_level(tops):
        images = drop_others(images, splits, notes)
        labels = _label_splits(images, splits, folders, notes)
    elif inner := _splits_in_classes(images, notes):
        labels = inner
    else:
        _check_several_classes(images, outer)
        splits = {top: split for top in outer if (split := split_of(top))}
        top, split = list(splits.items())[-1] if splits else ("", Split.TRAIN)
        labels = _label_part(images, split, folders, notes)
        if split is not Split.TRAIN:
            notes.append(_describe_splits({split: [top]}))
    return _build_layout(names, labels, notes)


def _label_splits(
    images: list[ImageFolder], splits: dict[str, Split], folders: Collection[str], notes: list[str]
) -> _Labels:
    """Label the images of each split; a folder for validation or testing without labels is ignored."""
    labels = _Labels({}, {}, by_number=True)
    used: dict[Split, list[str]] = {}
    known: set[str] = set()
    for top in sorted(splits, key=lambda top: (splits[top] is not Split.TRAIN, top)):
        split = splits[top]
        part = [folder for folder in images if folder.top == top]
        inside = _unwrap_split([folder.step_into() for folder in part], notes)
        if split is Split.UNLABELLED or (known and known.isdisjoint(_possible_classes(inside))):
            notes.append(f"ignored folder {top!r}: its {count_images(part)} have no known label")
            continue
        own = _label_part(inside, split, folders, notes)
        if split is Split.TRAIN:
            known |= {name.casefold() for name in own.class_of.values()}
        used.setdefault(split, []).append(top)
        by_number = labels.by_number and own.by_number
        labels = _Labels(labels.class_of | own.class_of, labels.split_of | own.split_of, by_number)
    notes.append(_describe_splits(used))
    return labels


def _unwrap_split(folders: list[ImageFolder], notes: list[str]) -> list[ImageFolder]:
    """Step into the only folder inside that of a split if it names the split again, or nothing."""
    folders = drop_strays(folders, notes)
    tops = {folder.inside[:1] for folder in folders}
    if len(tops) == 1 and tops != {()} and (is_filler(folders[0].top) or split_in(folders[0].top)[0]):
        return _unwrap_split([folder.step_into() for folder in folders], notes)
    return folders


def _possible_classes(folders: list[ImageFolder]) -> set[str]:
    flat = {flat_class(name) for folder in folders if not folder.inside for name in folder.names}
    flat |= {_class_name(folder) for folder in folders if folder.inside}
    return {name.casefold() for name in flat}


def _describe_splits(used: dict[Split, list[str]]) -> str:
    as_test = Split.TEST not in used
    shown = [
        f"{'test' if split is Split.VALIDATION and as_test else split.value} {', '.join(map(repr, tops))}"
        for split in (Split.TRAIN, Split.VALIDATION, Split.TEST)
        if (tops := used.get(split))
    ]
    why = " (a validation folder is the test set if there is no test folder)"
    return f"split by folders: {'; '.join(shown)}" + why * (as_test and Split.VALIDATION in used)


def _splits_in_classes(folders: list[ImageFolder], notes: list[str]) -> _Labels | None:
    """Label images in `<class>/<split>`, or return None if the folders are others.

    Raises:
        DataError: If only some folders inside those of classes name splits.
    """
    named = [folder for folder in folders if any(map(split_of, folder.inside[1:]))]
    if not named:
        return None
    splits = {folder.path: split_of(folder.inside[1]) for folder in folders if len(folder.inside) == 2}
    if len(splits) < len(folders) or not all(splits.values()):
        paths = sorted({folder.path for folder in (*named[:2], *folders[-1:])})
        raise DataError(
            "ambiguous folder layout: folders of splits are inside other folders, but not all as CLASS/train "
            f"and CLASS/test. Received: {', '.join(map(repr, paths))}",
            "use folders train/CLASS and test/CLASS; see docs/guides/own-images.md",
        )
    class_of = {name: _class_name(folder) for folder in folders for name in folder.names}
    notes.append("split by the folders inside those of the classes")
    split = {name: splits[folder.path] or Split.TRAIN for folder in folders for name in folder.names}
    return _Labels(class_of, split, by_number=False)


def _check_several_classes(folders: list[ImageFolder], outer: list[str]) -> None:
    """Raise DataError if all images are in the folder of a single class."""
    if not outer or folders[0].inside or is_filler(outer[-1]) or split_of(outer[-1]):
        return
    if not any(flat_class(name) for folder in folders for name in folder.names):
        check_class_names((unicodedata.normalize("NFC", outer[-1]),))


def _label_part(
    images: list[ImageFolder], split: Split, folders: Collection[str], notes: list[str]
) -> _Labels:
    """Label images that are in one folder, or in a folder per class."""
    names = [name for folder in images for name in folder.names]
    if not images[0].inside:
        class_of = dict(zip(names, parse_flat_names(names), strict=True))
        return _Labels(class_of, dict.fromkeys(names, split), by_number=True)
    _check_empty_classes(images, folders)
    class_of = {name: _class_name(folder) for folder in images for name in folder.names}
    if deeper := sorted(folder.path for folder in images if len(folder.inside) > 1):
        notes.append(f"subfolders belong to their class: {', '.join(map(repr, deeper[:_SHOWN]))}")
    return _Labels(class_of, dict.fromkeys(names, split), by_number=False)


def _class_name(folder: ImageFolder) -> str:
    return unicodedata.normalize("NFC", folder.top)


def _check_empty_classes(images: list[ImageFolder], folders: Collection[str]) -> None:
    """Raise DataError if a class folder contains no images."""
    used = {folder.top_path for folder in images}
    parents = {path.rpartition("/")[0] for path in used}
    empty = [
        folder
        for folder in folders
        if folder.rpartition("/")[0] in parents
        and folder not in used
        and not folder.rpartition("/")[2].startswith((".", "__"))
    ]
    if empty:
        raise DataError(
            f"class folders without images: {', '.join(map(repr, sorted(empty)[:_SHOWN]))}",
            hint="remove these folders, or put images into them",
        )


def _build_layout(names: list[str], labels: _Labels, notes: list[str]) -> Layout:
    names = [name for name in names if name in labels.class_of]
    class_names = tuple(sorted(set(labels.class_of.values())))
    check_class_names(class_names)
    check_no_splits(class_names)
    number = {class_name: position for position, class_name in enumerate(class_names)}
    splits = [labels.split_of[name] for name in names]
    test = Split.TEST if Split.TEST in splits else Split.VALIDATION
    return Layout(
        class_names,
        tuple(names),
        np.fromiter((number[labels.class_of[name]] for name in names), np.int64, len(names)),
        np.fromiter((split is test for split in splits), np.bool_, len(names)),
        np.fromiter((split is Split.VALIDATION is not test for split in splits), np.bool_, len(names)),
        labels.by_number,
        tuple(notes),
    )
