"""Image files by folder: enclosing folders and stray images are ignored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from cifarml.data.layouts.split_names import Split
from cifarml.errors import DataError
from cifarml.images import SUFFIXES

_SHOWN: Final = 5
_STRAYS: Final = 3
"""Images beside class folders that are ignored at least; more if they are less than a tenth."""


class ImageFolder(NamedTuple):
    """Images that are directly in one folder.

    Attributes:
        path: The folder.
        inside: The last parts of `path` that have not been interpreted yet.
        names: Names of the images.
    """

    path: str
    inside: tuple[str, ...]
    names: list[str]

    def step_into(self) -> ImageFolder:
        """Mark the first part as interpreted."""
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


def group_by_folder(names: Iterable[str]) -> list[ImageFolder]:
    """Group image files by their folders."""
    names_in: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        names_in[name.rpartition("/")[0]].append(name)
    return [ImageFolder(path, tuple(filter(None, path.split("/"))), own) for path, own in names_in.items()]


def is_image(name: str) -> bool:
    """Return whether a file is an image, by its suffix, and not hidden."""
    if name[name.rfind(".") :].lower() not in SUFFIXES:
        return False
    return not (name.startswith((".", "__MACOSX/")) or "/." in name)


def unwrap(folders: list[ImageFolder], notes: list[str]) -> tuple[list[ImageFolder], list[str]]:
    """Omit stray images and enclosing folders; return the remaining folders and the enclosing ones."""
    outer: list[str] = []
    while True:
        folders = drop_strays(folders, notes)
        tops = {folder.inside[:1] for folder in folders}
        if tops == {()} or len(tops) > 1:
            return folders, outer
        outer.append(folders[0].top)
        folders = [folder.step_into() for folder in folders]


def drop_strays(folders: list[ImageFolder], notes: list[str]) -> list[ImageFolder]:
    """Omit a few images beside folders of images, or in folders beside many images."""
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
    notes.append(f"ignored {count_images(strays)} {which}: {_shown(strays)}")
    return others


def drop_others(folders: list[ImageFolder], splits: dict[str, Split], notes: list[str]) -> list[ImageFolder]:
    """Omit a few images in folders beside those of splits; many of them make the layout ambiguous."""
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
    notes.append(f"ignored {count_images(others)} beside the folders of the split: {_shown(others)}")
    return parts


def _are_few(strays: list[ImageFolder], others: list[ImageFolder]) -> bool:
    return _count(strays) < _count(others) and _count(strays) <= max(_STRAYS, _count(others) // 10)


def _count(folders: list[ImageFolder]) -> int:
    return sum(len(folder.names) for folder in folders)


def count_images(folders: list[ImageFolder]) -> str:
    """Return the number of images, such as "12 images"."""
    count = _count(folders)
    return f"{count:,} image{'' if count == 1 else 's'}"


def _shown(folders: list[ImageFolder]) -> str:
    names = [name for folder in folders for name in folder.names]
    return ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
