"""Groups of images that show the same: copies, augmented versions, bursts and near-duplicates."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from cifarml.data.layouts.flat_names import natural_key

_CHANGE: Final = (
    r"(?:[hv]?[-_ ]?flip(?:ped)?(?:[-_ ]?(?:lr|ud|h|v|horizontal(?:ly)?|vertical(?:ly)?))?"
    r"|(?:horizontal|vertical)[-_ ]?flip|mirror(?:ed)?|rot(?:ate|ated|ation)?|aug|augment(?:ed|ation)?"
    r"|cop(?:y|ie|ia)|kopie|crop(?:ped)?|scaled?|resized?|bright(?:ness|er)?|brightened|dark(?:er)?|darkened"
    r"|nois[ey]|blur(?:red|ry)?|gr[ae]y(?:scale)?|contrast|jitter(?:ed)?|zoom(?:ed)?|shift(?:ed)?"
    r"|translated?|sheared?|edit(?:ed)?|orig(?:inal)?|transform(?:ed)?|distort(?:ed)?|sharp|sharpen(?:ed)?)"
)
_SUFFIX: Final = re.compile(
    rf"(?<=.)(?:[-_ .]+{_CHANGE}|[-_ .]+(?:burst|frame))[-_ .]*\d*(?:deg)?(?: ?\(\d+\))?$"
)
_PREFIX: Final = re.compile(rf"^{_CHANGE}\d*(?:deg)?(?:[-_ .]+(?:of|von|de|di)[-_ .]+|[-_ .]+)(?=.)")
_ROBOFLOW: Final = re.compile(r"(.+)\.rf\.[0-9a-f]{16,}")
_BURST: Final = re.compile(r".*(burst\d{8,}).*|(burst[-_ ]?\d+)[-_ ].+")
_SAME_SECOND: Final = re.compile(
    r"(.*(?:19|20)\d{6}[-_]?\d{6})\d*(?:[-_~.]\d{1,3}| ?\(\d+\))*(?:[-_.][a-z]+)?"
)
_COUNTED: Final = re.compile(r"(.+?)(?: ?\(\d+\)|~\d+)")
_SIMILAR: Final = 0.97
"""Correlation of near-duplicates. Of CIFAR-10's images 1 % are in such pairs, of 3,400 clothing photos 6."""
_BLANK: Final = 1.0
"""Standard deviation of the grey values below which an image is blank, and similar to none."""
_MAX_COMPARED: Final = 20_000
"""Images of a class up to which all pairs are compared."""


def group_copies(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], names: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Group images that show the same.

    Images are in one group if their pixels are equal and, within a class, if their names have a common stem
    (`x_1`, `x_1_flip`, `x_1 copy`, frames of a burst) or if they are similar, mirrored or not. A group with
    almost all images of a class, such as the frames of a video, is cut into runs of consecutive names.

    Args:
        images: uint8, shape (N, 32, 32, 3).
        labels: int64, shape (N,).
        names: N file names.

    Returns:
        int64, shape (N,), the lowest index in the group of each image.
    """
    merged = _Groups(len(images))
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        of_class = [names[i] for i in members.tolist()]
        groups = _Groups(len(members))
        groups.join_equal(_stems(of_class))
        for first, second in _similar_pairs(images[members]):
            groups.join(first, second)
        for run in _cut_giant(groups.roots(), of_class):
            for position in run[1:]:
                merged.join(int(members[run[0]]), int(members[position]))
    merged.join_equal(map(pixel_digest, images))
    return merged.roots()


def pixel_digest(image: npt.NDArray[np.uint8]) -> bytes:
    """Return a hash of an image's pixels."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def copy_stem(name: str) -> str:
    """Return a file name without its suffix and the marks of copies, augmented versions and bursts.

    Example:
        >>> copy_stem("cat/x_1_flip.png"), copy_stem("cat/Copy of x_1.png")
        ('cat/x_1', 'cat/x_1')
    """
    folder, slash, base = name.lower().rpartition("/")
    stem = base[: base.rfind(".")] if "." in base else base
    for pattern in (_ROBOFLOW, _BURST, _SAME_SECOND):
        if match := pattern.fullmatch(stem):
            stem = next(filter(None, match.groups()))
            break
    while (shorter := _PREFIX.sub("", _SUFFIX.sub("", stem))) != stem:
        stem = shorter
    return folder + slash + stem


class _Groups:
    """Disjoint sets of N items (union-find)."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def _root(self, item: int) -> int:
        while self._parents[item] != item:
            self._parents[item] = item = self._parents[self._parents[item]]
        return item

    def join(self, first: int, second: int) -> None:
        """Merge the groups of two items."""
        low, high = sorted((self._root(first), self._root(second)))
        self._parents[high] = low

    def join_equal(self, keys: Iterable[object]) -> None:
        """Merge the items with equal keys; there is one key for each item."""
        first: dict[object, int] = {}
        for item, key in enumerate(keys):
            if (other := first.setdefault(key, item)) != item:
                self.join(other, item)

    def roots(self) -> npt.NDArray[np.int64]:
        """Return the lowest item in the group of each item."""
        return np.array([self._root(item) for item in range(len(self._parents))], np.int64)


def _stems(names: Sequence[str]) -> Iterator[str]:
    """Return the stem of each name; `x (1)` is a copy of `x` only if there is an `x`."""
    stems = [copy_stem(name) for name in names]
    known = set(stems)
    for stem in stems:
        counted = _COUNTED.fullmatch(stem)
        yield counted[1] if counted and counted[1] in known else stem


def _cut_giant(roots: npt.NDArray[np.int64], names: Sequence[str]) -> Iterator[list[int]]:
    """Return the positions in each group; a group that leaves too few others for a test set is cut."""
    positions: defaultdict[int, list[int]] = defaultdict(list)
    for position, root in enumerate(roots.tolist()):
        positions[root].append(position)
    length = max(1, len(names) // 20)
    for group in positions.values():
        if len(names) - len(group) < length:
            group.sort(key=lambda position: natural_key(names[position]))
            yield from (group[start : start + length] for start in range(0, len(group), length))
        else:
            yield group


def _similar_pairs(images: npt.NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """Find pairs of images whose grey values correlate, at a resolution of 8x8 and of 16x16."""
    if not 2 <= len(images) <= _MAX_COMPARED:
        return
    grey = images.mean(axis=3, dtype=np.float32)
    fine_grey = _halve(grey)
    fine, fine_flipped = (_normalize(each) for each in (fine_grey, fine_grey[:, :, ::-1]))
    coarse_grey = _halve(fine_grey)
    coarse, coarse_flipped = (_normalize(each) for each in (coarse_grey, coarse_grey[:, :, ::-1]))
    for start in range(0, len(images), 1000):
        block = coarse[start : start + 1000].T
        for others, finer in ((coarse, fine), (coarse_flipped, fine_flipped)):
            for second, first in np.argwhere(others[start:] @ block >= _SIMILAR) + start:
                if first < second and fine[first] @ finer[second] >= _SIMILAR:
                    yield int(first), int(second)


def _halve(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Reduce grey values of shape (N, H, W) to (N, H / 2, W / 2)."""
    rows = grey[:, ::2] + grey[:, 1::2]
    return ((rows[:, :, ::2] + rows[:, :, 1::2]) / 4).astype(np.float32, copy=False)


def _normalize(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return grey values of shape (N, H * W) with zero mean and unit norm; 0 for blank images."""
    flat: npt.NDArray[np.float32] = grey.reshape(len(grey), -1).copy()
    flat -= flat.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    flat[norms[:, 0] <= _BLANK * grey.shape[1]] = 0
    flat /= np.maximum(norms, 1)
    return flat
