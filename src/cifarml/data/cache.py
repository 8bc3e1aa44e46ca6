"""Cache of decoded images for large sources."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from cifarml.cifar10 import IMAGE_SHAPE
from cifarml.data.dataset import Dataset
from cifarml.data.fingerprint import Fingerprint
from cifarml.data.ignored import IgnoredFiles
from cifarml.errors import CifarMLError

_logger = logging.getLogger(__name__)
_MAX_ENTRIES: Final = 8
"""Maximum number of cached data sets; the least recently used ones are evicted."""


def read_cached(folder: Path, key: str, origin: str) -> Dataset | None:
    """Return the data set cached under `key`, or None if the entry is missing or damaged."""
    path = folder / f"{key}.npy"
    try:
        with path.open("rb") as file:
            images, labels, is_test, is_validation = (np.load(file, allow_pickle=False) for _ in range(4))
            about = json.loads(np.load(file, allow_pickle=False).tobytes())
        for array in (images, labels, is_test, is_validation):
            array.setflags(write=False)
        names, sources = tuple(about["class_names"]), tuple(about["sources"])
        notes = tuple(map(str, about["notes"]))
        ignored = tuple(IgnoredFiles(**each) for each in about["ignored"])
        dataset = Dataset(
            *(images, labels, names, sources, is_test, origin, (), is_validation, notes), ignored=ignored
        )
        if dataset.fingerprint != about["fingerprint"]:
            raise ValueError("the content does not match its fingerprint")
        os.utime(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, EOFError, MemoryError, CifarMLError) as error:
        _logger.warning("cached images in %s are damaged, decoding again: %s", path, error)
        return None
    return dataset


class CacheWriter:
    """Context manager that writes a data set to the cache while its images are being decoded.

    An empty key disables caching. A failure to write (full disk, lock held by another process) is only
    logged. The entry is stored by `finish`; without it, nothing is cached.
    """

    def __init__(self, folder: Path, key: str, num_images: int, class_names: tuple[str, ...]) -> None:
        self._folder, self._key = folder, key
        self._partial = folder / "being-written"
        self._fingerprint = Fingerprint(num_images, class_names)
        self._shape = (num_images, *IMAGE_SHAPE)
        self._stack = ExitStack()
        self._written: list[Future[None]] = []

    def __enter__(self) -> Self:
        if not self._key:
            return self
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._stack.enter_context(FileLock(self._folder / "lock", timeout=0))
            self._stack.callback(self._partial.unlink, missing_ok=True)
            self._file = self._stack.enter_context(self._partial.open("wb"))
        except (OSError, Timeout) as error:
            self._stop_writing(error)
            return self
        self._pool = self._stack.enter_context(ThreadPoolExecutor(1))
        header = {"descr": "|u1", "fortran_order": False, "shape": self._shape}
        self._submit(np.lib.format.write_array_header_1_0, self._file, header)
        return self

    def add(self, images: npt.NDArray[np.uint8]) -> None:
        """Write the next images, uint8 of shape (B, 32, 32, 3); the array must not be modified afterwards."""
        self._submit(self._write, images)

    def finish(self, dataset: Dataset) -> None:
        """Store the data set, whose images must all have been added."""
        if not self._key:
            return
        try:
            for written in self._written:
                written.result()
            arrays = (dataset.labels, dataset.is_test, dataset.is_validation)
            for array in arrays:
                np.save(self._file, array)
            about = {
                "class_names": dataset.class_names,
                "sources": dataset.sources,
                "notes": dataset.notes,
                "ignored": [vars(files) for files in dataset.ignored],
                "fingerprint": self._fingerprint.finish(*arrays),
            }
            np.save(self._file, np.frombuffer(json.dumps(about).encode(), np.uint8))
            self._file.close()
            self._partial.replace(self._folder / f"{self._key}.npy")
            entries = sorted(self._folder.glob("*.npy"), key=lambda path: path.stat().st_mtime)
            for path in entries[:-_MAX_ENTRIES]:
                path.unlink(missing_ok=True)
        except OSError as error:
            self._stop_writing(error)

    def _submit(self, write: Callable[..., None], *arguments: object) -> None:
        if self._key:
            self._written.append(self._pool.submit(write, *arguments))

    def _write(self, images: npt.NDArray[np.uint8]) -> None:
        self._fingerprint.add(images)
        self._file.write(images.data)

    def _stop_writing(self, error: OSError) -> None:
        _logger.warning("decoded images are not cached: %s", error)
        self._key = ""

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # a partial file that can't be flushed is discarded anyway
            self._stack.close()
