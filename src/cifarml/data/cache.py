"""Decoded pictures of large sources, kept so that the second load takes no time."""

from __future__ import annotations

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from filelock import FileLock

from cifarml.data.dataset import Dataset
from cifarml.errors import CifarMLError

__all__ = ["read_cached", "write_cached"]

_logger = logging.getLogger(__name__)
_KEPT: Final = 8
"""As many data sets stay in the cache; the ones not used for longest go."""


def read_cached(folder: Path, key: str, origin: str) -> Dataset | None:
    """Return the data set that was kept under ``key``, or None where there is none that is whole.

    Args:
        folder: The cache.
        key: What :func:`write_cached` was given.
        origin: Where the source lies now, for people to read.
    """
    path = folder / f"{key}.npy"
    try:
        with path.open("rb") as file:
            images, labels, is_test = (np.load(file, allow_pickle=False) for _ in range(3))
            about = json.loads(np.load(file, allow_pickle=False).tobytes())
        for array in (images, labels, is_test):
            array.setflags(write=False)
        names, sources = tuple(about["class_names"]), tuple(about["sources"])
        dataset = Dataset(images, labels, names, sources, is_test, origin)
        if dataset.fingerprint != about["fingerprint"]:
            raise ValueError("the content does not match its fingerprint")
        os.utime(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, EOFError, MemoryError, CifarMLError) as error:
        _logger.warning("decoding again, since the cached pictures in %s are damaged: %s", path, error)
        return None
    return dataset


def write_cached(folder: Path, key: str, dataset: Dataset) -> None:
    """Keep a data set under ``key``; what can't be written (disk full) is only logged.

    Args:
        folder: The cache; made when it isn't there.
        key: A file name that stands for the content of the source.
        dataset: What to keep.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / "being-written"
        with FileLock(folder / "lock"):
            with partial.open("wb") as file, ThreadPoolExecutor(1) as pool:
                fingerprint = pool.submit(lambda: dataset.fingerprint)  # meanwhile, on another core
                for array in (dataset.images, dataset.labels, dataset.is_test):
                    np.save(file, array)
                about = {
                    "class_names": dataset.class_names,
                    "sources": dataset.sources,
                    "fingerprint": fingerprint.result(),
                }
                np.save(file, np.frombuffer(json.dumps(about).encode(), np.uint8))
            partial.replace(folder / f"{key}.npy")
        for path in sorted(folder.glob("*.npy"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            path.unlink(missing_ok=True)
    except OSError as error:
        _logger.warning("the decoded pictures are not kept for the next time: %s", error)
