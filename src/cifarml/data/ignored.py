"""Image files of a source that are not read, counted by kind."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from cifarml.data.file_tree import FileTree
from cifarml.errors import ImageError
from cifarml.imaging.formats import identify, is_hidden, kind_of_name, suffix_of

UNLABELLED: Final = "image without a label"
"""Kind of images that are outside the layout of a source."""


@dataclasses.dataclass(frozen=True)
class IgnoredFiles:
    """Image files of one kind that were not read.

    Attributes:
        kind: What they are, such as "HEIC (iPhone) image".
        count: Number of files.
        example: Name of one of them, in a folder with other images if there is one.
        hint: How to have them read.
    """

    kind: str
    count: int
    example: str
    hint: str

    def __str__(self) -> str:
        what = self.kind if self.count == 1 else _plural(self.kind)
        verb = "" if self.kind.startswith(("missing", "label")) else " not read"
        return f"{self.count:,} {what}{verb}{': ' if self.count == 1 else ', such as '}{self.example!r}"


def _plural(kind: str) -> str:
    """Return the plural of a kind.

    Example:
        >>> _plural("JPEG image without a suffix")
        'JPEG images without a suffix'
    """
    for noun in ("image", "link", "drawing", "icon", "texture", "metafile", "batch", "label"):
        if f"{noun} " in f"{kind} ":
            return f"{kind} ".replace(f"{noun} ", "batches " if noun == "batch" else f"{noun}s ", 1).rstrip()
    return kind


def find_ignored(tree: FileTree, used: Iterable[str]) -> tuple[IgnoredFiles, ...]:
    """Find the files of a source that are images by suffix or first bytes, but are not used.

    Args:
        tree: The files.
        used: Names of the images that are used.

    Returns:
        The files by kind, the most frequent first.
    """
    used = set(used)
    found: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for name in tree.files:
        if name not in used and not is_hidden(name) and (described := _describe(tree, name)):
            found[described[0]].append((name, described[1]))
    for name in filter(_may_be_image, tree.broken):
        found["broken link"].append((name, "restore the file that it points to, or remove the link"))
    parents = {name.rpartition("/")[0] for name in used}
    groups = []
    for kind, files in found.items():
        example, hint = next((each for each in files if each[0].rpartition("/")[0] in parents), files[0])
        groups.append(IgnoredFiles(kind, len(files), example, hint))
    return tuple(sorted(groups, key=lambda group: -group.count))


def find_images(tree: FileTree) -> list[str]:
    """Return the names of all images by suffix or first bytes, and of broken links that may be images.

    Not all of them can be read.
    """
    files = [name for name in tree.files if not is_hidden(name)]
    images = [name for name in files if kind_of_name(name) or _describe(tree, name)]
    return images + list(filter(_may_be_image, tree.broken))


def _may_be_image(name: str) -> bool:
    return not is_hidden(name) and (kind_of_name(name) is not None or not suffix_of(name))


def _describe(tree: FileTree, name: str) -> tuple[str, str] | None:
    """Return the kind of an unused image file, and how to have it read; None if it is not an image."""
    by_name = kind_of_name(name)
    if by_name and by_name.is_read:
        return UNLABELLED, "move it into the folder of its class, or remove it"
    try:
        kind = identify(tree.head(name)) or by_name
    except ImageError:
        kind = by_name
    if kind is None:
        return None
    if not kind.is_read:
        return kind.name, kind.to_hint(name)
    suffix = suffix_of(name)
    stem = name.removesuffix(name[-len(suffix) :]) if suffix else name
    how = f"with the suffix {suffix}" if suffix else "without a suffix"
    return f"{kind.name} {how}", f"rename it: mv '{name}' '{stem}{kind.suffixes[0]}'"
