"""Reader for the official CIFAR-10 archives, python and binary version.

Format: https://www.cs.toronto.edu/~kriz/cifar.html, sections "Dataset layout" and "Binary version".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cifarml.cifar10 import ARCHIVE_SHA256, ARCHIVE_SIZE_BYTES, IMAGE_SIZE
from cifarml.data.cifar10.download import download_file
from cifarml.data.cifar10.safe_pickle import load_arrays, to_array
from cifarml.data.dataset import Dataset, check_class_names
from cifarml.data.file_tree import FileTree
from cifarml.data.ignored import IgnoredFiles
from cifarml.data.splitting.draw_split import last_tenth
from cifarml.errors import DataError
from cifarml.progress import OnProgress, Progress, ignore_progress
from cifarml.settings import Settings

_BATCH: Final = re.compile(r"(?P<folder>(?:.*/)?)(?P<kind>data_batch_\d+|test_batch)(?P<binary>\.bin)?")
_OFFICIAL: Final = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
_IMAGE_BYTES: Final = IMAGE_SIZE * IMAGE_SIZE * 3


class _Batch(NamedTuple):
    name: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    file_names: list[str]
    is_test: bool


def download_official(settings: Settings, *, on_progress: OnProgress = ignore_progress) -> Path:
    """Download the official archive to the cache, unless it is cached, and return its path.

    Raises:
        DownloadError: If the download fails or its hash does not match.
    """
    return download_file(
        str(settings.cifar10_url),
        settings.cache_dir / "cifar-10-python.tar.gz",
        sha256=ARCHIVE_SHA256,
        size_bytes=ARCHIVE_SIZE_BYTES,
        on_progress=on_progress,
    )


def is_official(names: Iterable[str]) -> bool:
    """Return whether file names are those of an official archive."""
    return any(_BATCH.fullmatch(name) for name in names)


def load_official(tree: FileTree, *, on_progress: OnProgress = ignore_progress) -> Dataset:
    """Load the batches of an official archive, or of a folder that it was extracted to.

    The test set is `test_batch` or, if that is missing, the last tenth of each class.

    Raises:
        DataError: If a batch is damaged or contains anything other than images and labels.
    """
    found = [match for match in map(_BATCH.fullmatch, sorted(tree.files)) if match]
    if len({(match["folder"], match["binary"]) for match in found}) > 1:
        raise DataError(
            f"{tree.origin} contains more than one CIFAR-10 archive: {found[0][0]}, {found[-1][0]}"
        )
    read_batch = _read_binary if found[0]["binary"] else _read_pickle
    batches: list[_Batch] = []
    for match in found:
        try:
            batches.append(read_batch(match[0], tree.read(match[0])))
        except DataError as error:
            raise DataError(f"{tree.origin}: {match[0]}: {error.message}", error.hint) from error
        count = sum(len(batch.labels) for batch in batches)
        on_progress(Progress("reading images", count, count if match is found[-1] else None))
    class_names = _class_names(tree, found[0]["folder"], binary=bool(found[0]["binary"]))
    labels = np.concatenate([batch.labels for batch in batches])
    is_test = np.concatenate([np.full(len(batch.labels), batch.is_test) for batch in batches])
    if not is_test.any():
        is_test = last_tenth(labels, len(class_names))
    images = np.concatenate([batch.images for batch in batches])
    for array in (images, labels, is_test):
        array.setflags(write=False)
    sources = tuple(f"{batch.name}/{name}" for batch in batches for name in batch.file_names)
    missing = _missing_batches([match["kind"] for match in found])
    return Dataset(images, labels, class_names, sources, is_test, tree.origin, ignored=missing)


def _missing_batches(kinds: list[str]) -> tuple[IgnoredFiles, ...]:
    """Report batches of the official archive that are not there."""
    missing = [kind for kind in _OFFICIAL if kind not in kinds]
    if not missing:
        return ()
    hint = "download the archive again, or pass cifar10 instead of its path"
    return (IgnoredFiles("missing batch", len(missing), missing[0], hint),)


def to_images(planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Convert rows of 1024 red, 1024 green and 1024 blue values to shape (N, 32, 32, 3)."""
    return np.ascontiguousarray(planes.reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE).transpose(0, 2, 3, 1))


def _read_binary(name: str, content: bytes) -> _Batch:
    if not content or len(content) % (_IMAGE_BYTES + 1):
        raise DataError(f"size must be a multiple of 3,073 bytes. Received: {len(content):,}")
    rows = np.frombuffer(content, np.uint8).reshape(-1, _IMAGE_BYTES + 1)
    names = [f"{i}" for i in range(len(rows))]
    return _Batch(name, to_images(rows[:, 1:]), rows[:, 0].astype(np.int64), names, "test_batch" in name)


def _read_pickle(name: str, content: bytes) -> _Batch:
    batch = load_arrays(content)
    if not isinstance(batch, dict):
        raise DataError(f"a batch must be a dict. Received: {type(batch).__name__}")
    labels = batch.get(b"labels")
    if not (b"data" in batch and isinstance(labels, list)):
        raise DataError(f"a batch requires 'data' and 'labels'. Received: {list(map(to_text, batch))[:6]}")
    array = to_array(batch[b"data"], _IMAGE_BYTES)
    if len(array) != len(labels):
        raise DataError(f"expected one label per image. Received: {len(labels)} labels, {len(array)} images")
    if not all(isinstance(label, int) and 0 <= label < 1000 for label in labels):
        raise DataError("labels must be integers from 0 to 999")
    file_names = batch.get(b"filenames")
    if not isinstance(file_names, list) or len(file_names) != len(labels):
        file_names = [f"{i}" for i in range(len(labels))]
    names = list(map(to_text, file_names))
    return _Batch(name, to_images(array), np.array(labels, np.int64), names, "test_batch" in name)


def _class_names(tree: FileTree, folder: str, *, binary: bool) -> tuple[str, ...]:
    name = f"{folder}batches.meta{'.txt' if binary else ''}"
    if name not in tree.files:
        raise DataError(f"{tree.origin}: {name}, the file of class names, is missing")
    try:
        content = tree.read(name)
        names = content.decode().split() if binary else map(to_text, load_arrays(content)[b"label_names"])
        class_names = tuple(names)
        check_class_names(class_names)
    except (UnicodeDecodeError, LookupError, TypeError) as error:
        raise DataError(f"{tree.origin}: {name} is damaged: {error!r}") from error
    except DataError as error:
        raise DataError(f"{tree.origin}: {name}: {error.message}", error.hint) from error
    return class_names


def to_text(value: object) -> str:
    """Decode a pickled string; return "?" for other values, whose `str()` could take forever."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str) else "?"
