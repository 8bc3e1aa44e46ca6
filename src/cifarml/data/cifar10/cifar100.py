"""Reader for the official CIFAR-100 archives, python and binary version, with fine or coarse labels.

Format: https://www.cs.toronto.edu/~kriz/cifar.html, section "The CIFAR-100 dataset".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cifarml.cifar10 import IMAGE_SIZE
from cifarml.data.cifar10.official import to_images, to_text
from cifarml.data.cifar10.safe_pickle import load_arrays, to_array
from cifarml.data.dataset import Dataset, check_class_names
from cifarml.data.file_tree import FileTree
from cifarml.errors import DataError, ImageError
from cifarml.progress import OnProgress, Progress, ignore_progress

_META: Final = re.compile(r"(?P<folder>(?:.*/)?)(?:meta|fine_label_names\.txt)")
_IMAGE_BYTES: Final = IMAGE_SIZE * IMAGE_SIZE * 3
_PARTS: Final = ("train", "test")


def find_cifar100(names: Iterable[str]) -> tuple[str, bool] | None:
    """Return the folder of a CIFAR-100 archive, and whether it is the binary version; None for others."""
    files = set(names)
    for name in sorted(files):
        if match := _META.fullmatch(name):
            folder, is_binary = match["folder"], name.endswith(".txt")
            if all(f"{folder}{part}{'.bin' if is_binary else ''}" in files for part in _PARTS):
                return folder, is_binary
    return None


def load_cifar100(
    tree: FileTree, *, coarse: bool = False, on_progress: OnProgress = ignore_progress
) -> Dataset:
    """Load CIFAR-100 from an archive, or from a folder that it was extracted to.

    Args:
        tree: The files.
        coarse: Use the 20 coarse labels (superclasses) instead of the 100 fine ones.
        on_progress: Called after each part.

    Raises:
        DataError: If a file is damaged, or contains anything other than images and labels.
    """
    found = find_cifar100(tree.files)
    if found is None:
        raise DataError(f"{tree.origin} is not a CIFAR-100 archive")
    folder, is_binary = found
    kind = "coarse" if coarse else "fine"
    read, read_names = (_read_binary, _binary_names) if is_binary else (_read_pickle, _pickle_names)
    images, labels, sources = [], [], []
    for part in _PARTS:
        name = f"{folder}{part}{'.bin' if is_binary else ''}"
        try:
            part_images, part_labels, names = read(tree.read(name), kind)
        except (DataError, ImageError) as error:
            raise DataError(f"{tree.origin}: {name}: {error.message}", error.hint) from error
        images.append(part_images)
        labels.append(part_labels)
        sources += [f"{name}/{each}" for each in names]
        on_progress(Progress("reading images", len(sources), len(sources) if part == "test" else None))
    try:
        class_names = read_names(tree, folder, kind)
        check_class_names(class_names)
    except (UnicodeDecodeError, LookupError, TypeError) as error:
        raise DataError(f"{tree.origin}: the file of class names is damaged: {error!r}") from error
    except DataError as error:
        raise DataError(f"{tree.origin}: class names: {error.message}", error.hint) from error
    is_test = np.repeat([False, True], [len(each) for each in labels])
    arrays = np.concatenate(images), np.concatenate(labels)
    notes = (f"CIFAR-100 with {kind} labels",)
    return Dataset(*arrays, class_names, tuple(sources), is_test, tree.origin, notes=notes)


_Part = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], list[str]]


def _read_binary(content: bytes, kind: str) -> _Part:
    if not content or len(content) % (_IMAGE_BYTES + 2):
        raise DataError(f"size must be a multiple of 3,074 bytes. Received: {len(content):,}")
    rows = np.frombuffer(content, np.uint8).reshape(-1, _IMAGE_BYTES + 2)
    labels = rows[:, 0 if kind == "coarse" else 1].astype(np.int64)
    return to_images(rows[:, 2:]), labels, [str(i) for i in range(len(rows))]


def _read_pickle(content: bytes, kind: str) -> _Part:
    batch = load_arrays(content)
    labels: Any = batch.get(f"{kind}_labels".encode()) if isinstance(batch, dict) else None
    if not isinstance(labels, list) or b"data" not in batch:
        raise DataError(f"it requires 'data' and '{kind}_labels'")
    array = to_array(batch[b"data"], _IMAGE_BYTES)
    if len(array) != len(labels) or not all(isinstance(each, int) and 0 <= each < 1000 for each in labels):
        raise DataError(
            f"expected one label per image, 0 to 999. Received: {len(labels)} for {len(array)} images"
        )
    names = batch.get(b"filenames")
    if not isinstance(names, list) or len(names) != len(labels):
        names = list(range(len(labels)))
    return (
        to_images(array),
        np.array(labels, np.int64),
        [str(i) if isinstance(i, int) else to_text(i) for i in names],
    )


def _binary_names(tree: FileTree, folder: str, kind: str) -> tuple[str, ...]:
    return tuple(tree.read(f"{folder}{kind}_label_names.txt").decode().split())


def _pickle_names(tree: FileTree, folder: str, kind: str) -> tuple[str, ...]:
    return tuple(map(to_text, load_arrays(tree.read(f"{folder}meta"))[f"{kind}_label_names".encode()]))
