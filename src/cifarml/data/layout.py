"""Labels and split of images, derived from file and folder names."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cifarml.data.dataset import check_class_names
from cifarml.data.flat_names import LAYOUT_HINT, flat_class, parse_flat_names
from cifarml.data.split_names import Split, check_no_splits, is_filler, split_in, split_level, split_of
from cifarml.errors import DataError
from cifarml.images import SUFFIXES

_SHOWN: Final = 5
_STRAYS: Final = 3
"""Images beside class folders that are ignored at least; more if they are less than a tenth."""


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


class _Folder(NamedTuple):
    """Images that are directly in one folder.

    Attributes:
        path: The folder.
        inside: The last parts of `path` that have not been interpreted yet.
        names: Names of the images.
    """

    path: str
    inside: tuple[str, ...]
    names: list[str]

    def step_into(self) -> _Folder:
        return self._replace(inside=self.inside[1:])

    @property
    def top(self) -> str:
        """The first part of the path that has not been interpreted yet."""
        return self.inside[0]

    @property
    def top_path(self) -> str:
        """The path up to `top`."""
        parts = self.path.split("/")
        return "/".join(parts[: len(parts) - len(self.inside) + 1])


class _Labels(NamedTuple):
    """Class and split of the labelled images, by file name."""

    class_of: dict[str, str]
    split_of: dict[str, Split]
    by_number: bool


def find_layout(files: Iterable[str], folders: Collection[str]) -> Layout:
    """Derive labels and split from file and folder names.

    Two layouts are supported: files named `<class>_<number>.png`, and a folder for each class, with any
    folders inside. Both can be inside folders that name a split (see `split_names`). Enclosing folders, hidden
    files, a few images beside the folders and files other than images are ignored. A validation folder is the
    test set if there is no test folder.

    Args:
        files: Names of all files, with `/` as separator.
        folders: Names of all folders, including empty ones.

    Raises:
        DataError: If there are no images, their names contain no labels, or the labels are ambiguous.
    """
    names = [name for name in files if _is_image(name)]
    if not names:
        raise DataError(f"no images found (files that end in {', '.join(sorted(SUFFIXES))})", LAYOUT_HINT)
    names_in: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        names_in[name.rpartition("/")[0]].append(name)
    notes: list[str] = []
    every = [_Folder(path, tuple(filter(None, path.split("/"))), inside) for path, inside in names_in.items()]
    images, outer = _unwrap(every, notes)
    tops = sorted({folder.top for folder in images if folder.inside})
    if splits := split_level(tops):
        images = _drop_others(images, splits, notes)
        labels = _label_splits(images, splits, folders, notes)
    elif inner := _splits_in_classes(images):
        labels = inner
    else:
        _check_several_classes(images, outer)
        splits = {top: split for top in outer if (split := split_of(top))}
        top, split = list(splits.items())[-1] if splits else ("", Split.TRAIN)
        labels = _label_part(images, split, folders, notes)
        if split is not Split.TRAIN:
            notes.append(_describe_splits({split: [top]}))
    return _build_layout(names, labels, notes)


def _is_image(name: str) -> bool:
    if name[name.rfind(".") :].lower() not in SUFFIXES:
        return False
    return not (name.startswith((".", "__MACOSX/")) or "/." in name)


def _unwrap(folders: list[_Folder], notes: list[str]) -> tuple[list[_Folder], list[str]]:
    """Leave out stray images and enclosing folders; return the remaining folders and the enclosing ones."""
    outer: list[str] = []
    while True:
        folders = _drop_strays(folders, notes)
        tops = {folder.inside[:1] for folder in folders}
        if tops == {()} or len(tops) > 1:
            return folders, outer
        outer.append(folders[0].top)
        folders = [folder.step_into() for folder in folders]


def _drop_strays(folders: list[_Folder], notes: list[str]) -> list[_Folder]:
    """Leave out a few images beside folders of images, or in folders beside many images."""
    beside = [folder for folder in folders if not folder.inside]
    within = [folder for folder in folders if folder.inside]
    strays, others = sorted((beside, within), key=_count)
    if not strays:
        return folders
    if not _are_few(strays, others):
        raise DataError(
            f"ambiguous folder layout. Received {_count(beside):,} images such as {beside[0].names[0]!r} "
            f"beside {_count(within):,} images in folders such as {within[0].top_path!r}",
            "move all images into folders of their classes; see docs/guides/own-images.md",
        )
    which = "beside the folders" if strays is beside else "in folders beside the other images"
    notes.append(f"ignored {_images(strays)} {which}: {_shown(strays)}")
    return others


def _drop_others(folders: list[_Folder], splits: dict[str, Split], notes: list[str]) -> list[_Folder]:
    """Leave out a few images in folders beside those of splits; many of them make the layout ambiguous."""
    parts = [folder for folder in folders if folder.top in splits]
    others = [folder for folder in folders if folder.top not in splits]
    if not others:
        return folders
    if len(set(splits.values())) == 1 or not _are_few(others, parts):
        tops = sorted({folder.top for folder in others})
        raise DataError(
            f"ambiguous folder layout: {', '.join(map(repr, sorted(splits)))} "
            f"{'is the name of a split' if len(splits) == 1 else 'are names of splits'}, not of classes. "
            f"Received beside it: {', '.join(map(repr, tops[:_SHOWN]))}",
            "rename the folder if it is a class; put all class folders into train/ if they are its classes",
        )
    notes.append(f"ignored {_images(others)} beside the folders of the split: {_shown(others)}")
    return parts


def _are_few(strays: list[_Folder], others: list[_Folder]) -> bool:
    return _count(strays) < _count(others) and _count(strays) <= max(_STRAYS, _count(others) // 10)


def _label_splits(
    images: list[_Folder], splits: dict[str, Split], folders: Collection[str], notes: list[str]
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
            notes.append(f"ignored folder {top!r}: its {_images(part)} have no labels of the training images")
            continue
        own = _label_part(inside, split, folders, notes)
        if split is Split.TRAIN:
            known |= set(own.class_of.values())
        used.setdefault(split, []).append(top)
        by_number = labels.by_number and own.by_number
        labels = _Labels(labels.class_of | own.class_of, labels.split_of | own.split_of, by_number)
    notes.append(_describe_splits(used))
    return labels


def _unwrap_split(folders: list[_Folder], notes: list[str]) -> list[_Folder]:
    """Step into the only folder inside that of a split if it names the split again, or nothing."""
    folders = _drop_strays(folders, notes)
    tops = {folder.inside[:1] for folder in folders}
    if len(tops) == 1 and tops != {()} and (is_filler(folders[0].top) or split_in(folders[0].top)[0]):
        return _unwrap_split([folder.step_into() for folder in folders], notes)
    return folders


def _possible_classes(folders: list[_Folder]) -> set[str]:
    flat = {flat_class(name) for folder in folders if not folder.inside for name in folder.names}
    return flat | {_class_name(folder) for folder in folders if folder.inside}


def _describe_splits(used: dict[Split, list[str]]) -> str:
    as_test = Split.TEST not in used
    shown = [
        f"{'test' if split is Split.VALIDATION and as_test else split.value} {', '.join(map(repr, tops))}"
        for split in (Split.TRAIN, Split.VALIDATION, Split.TEST)
        if (tops := used.get(split))
    ]
    why = " (a validation folder is the test set if there is no test folder)"
    return f"split by folders: {'; '.join(shown)}" + why * (as_test and Split.VALIDATION in used)


def _splits_in_classes(folders: list[_Folder]) -> _Labels | None:
    """Label images in `<class>/<split>`, or return None if the folders are others.

    Raises:
        DataError: If only some folders inside those of classes name splits.
    """
    named = [folder for folder in folders if any(map(split_of, folder.inside[1:]))]
    if not named:
        return None
    splits = {folder.path: split_of(folder.inside[1]) for folder in folders if len(folder.inside) == 2}
    if len(splits) < len(folders) or not all(splits.values()):
        other = next((folder for folder in folders if folder not in named), named[0])
        raise DataError(
            "ambiguous folder layout: only some folders are inside those of a split. "
            f"Received: {named[0].path!r}, {other.path!r}",
            LAYOUT_HINT,
        )
    class_of = {name: _class_name(folder) for folder in folders for name in folder.names}
    split = {name: splits[folder.path] or Split.TRAIN for folder in folders for name in folder.names}
    return _Labels(class_of, split, by_number=False)


def _check_several_classes(folders: list[_Folder], outer: list[str]) -> None:
    """Raise DataError if all images are in the folder of a single class."""
    if not outer or folders[0].inside or is_filler(outer[-1]) or split_of(outer[-1]):
        return
    if not any(flat_class(name) for folder in folders for name in folder.names):
        check_class_names((unicodedata.normalize("NFC", outer[-1]),))


def _label_part(images: list[_Folder], split: Split, folders: Collection[str], notes: list[str]) -> _Labels:
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


def _class_name(folder: _Folder) -> str:
    return unicodedata.normalize("NFC", folder.top)


def _check_empty_classes(images: list[_Folder], folders: Collection[str]) -> None:
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


def _count(folders: list[_Folder]) -> int:
    return sum(len(folder.names) for folder in folders)


def _images(folders: list[_Folder]) -> str:
    count = _count(folders)
    return f"{count:,} image{'' if count == 1 else 's'}"


def _shown(folders: list[_Folder]) -> str:
    names = [name for folder in folders for name in folder.names]
    return ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
