"""Data source for images in Azure Blob Storage, cached by etag."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath
from typing import Final

from cifarml.data.blob.address import BlobAddress
from cifarml.data.blob.blob_cache import BlobCache
from cifarml.data.blob.download import PART_BYTES
from cifarml.data.blob.info import BlobInfo
from cifarml.data.blob.store import BlobStore
from cifarml.data.file_tree import MAX_FILE_BYTES, FileTree
from cifarml.errors import DataError, ImageError
from cifarml.images import SUFFIXES
from cifarml.progress import OnProgress
from cifarml.settings import Settings

_MAX_BLOBS: Final = 500_000
_SMALL_BLOBS: Final = "small.sqlite"
_IN_USE_S: Final = 3600


class BlobTree(FileTree):
    """File tree of the blobs under a prefix; they are downloaded on creation.

    File names are relative to the prefix. Small blobs are cached in one SQLite file, large ones as files.
    """

    def __init__(
        self, store: BlobStore, origin: str, prefix: str, blobs: list[BlobInfo], cache: Path
    ) -> None:
        self.origin = origin
        self._blobs = {blob.name[len(prefix) :]: blob for blob in blobs}
        self.files = {name: blob.size_bytes for name, blob in self._blobs.items()}
        parents = (PurePosixPath(name).parents[:-1] for name in self.files)
        self.folders = frozenset(map(str, itertools.chain.from_iterable(parents)))
        self._cached_path = functools.partial(_cached_path, cache, store)
        self._cache = BlobCache(cache / _SMALL_BLOBS, store.url)
        with ExitStack() as undo:
            undo.callback(self._cache.close)
            missing = self._cache.missing(blob for blob in blobs if blob.size_bytes <= PART_BYTES)
            try:
                store.read(missing, self._cache.add)
            finally:
                self._cache.flush()
            large = [blob for blob in blobs if PART_BYTES < blob.size_bytes <= MAX_FILE_BYTES]
            places = [(blob, self._cached_path(blob)) for blob in large]
            store.download([(blob, path) for blob, path in places if not path.exists()])
            undo.pop_all()

    def read(self, name: str) -> bytes:
        """Return the content of a file; see FileTree."""
        blob = self._blobs[name]
        if blob.size_bytes > MAX_FILE_BYTES:
            raise ImageError(f"larger than {MAX_FILE_BYTES:,} bytes")
        content: bytes | None
        if blob.size_bytes <= PART_BYTES:
            content = self._cache.read(blob)
        else:
            path = self._cached_path(blob)
            try:
                content = path.read_bytes()
            except OSError as error:
                raise ImageError(f"can't be read: {error.strerror}") from error
            if len(content) != blob.size_bytes:
                path.unlink(missing_ok=True)
                content = None
        if content is None:
            raise ImageError("corrupt in the cache; it will be downloaded again next time")
        return content

    def key(self) -> str:
        """Return the SHA-256 of all names and etags."""
        state = "".join(f"{name}\0{blob.etag}\0" for name, blob in self._blobs.items())
        return hashlib.sha256(state.encode()).hexdigest()

    def close(self) -> None:
        """Close the cache."""
        self._cache.close()


def open_blobs(text: str, settings: Settings, *, on_progress: OnProgress) -> tuple[str, Path | BlobTree]:
    """Download the archive or the images at an address, unless they are cached.

    Returns:
        The address without secrets, and the path of the cached archive or the tree of images.

    Raises:
        CloudError: If there are no blobs, or they can't be downloaded.
        DataError: If the address is invalid, or its content can't be used.
    """
    address = BlobAddress.parse(text)
    cache = settings.cache_dir / "blobs"
    with BlobStore(address, settings=settings, on_progress=on_progress) as store:
        prefix, blobs = store.find_all(address.name)
        if prefix is None:
            blob = blobs[0]
            if PurePosixPath(blob.name).suffix.lower() in SUFFIXES:
                raise DataError(
                    f"expected an archive or a folder. Received: one image, {address}",
                    "pass the folder's address",
                )
            path = _cached_path(cache, store, blob)
            if not (path.exists() and path.stat().st_size == blob.size_bytes):
                store.download([(blob, path)])
            _mark_used(path)
            return str(address), path
        if len(blobs) > _MAX_BLOBS:
            raise DataError(f"{address} contains more than {_MAX_BLOBS:,} blobs", "pass a folder in it")
        return str(address), BlobTree(store, str(address), prefix, blobs, cache)


def _mark_used(path: Path) -> None:
    """Delete other versions of a cached archive, unless another process used them in the last hour."""
    with suppress(OSError):  # the cache may be read-only
        os.utime(path)
        for old in path.parent.glob(f"{path.name.partition('-')[0]}-*"):
            if old != path and old.stat().st_mtime < path.stat().st_mtime - _IN_USE_S:
                old.unlink(missing_ok=True)


def _cached_path(cache: Path, store: BlobStore, blob: BlobInfo) -> Path:
    """Return the path of a cached blob, derived from account, container, name and etag."""
    place = hashlib.sha256(f"{store.url}/{blob.name}".encode()).hexdigest()
    state = hashlib.sha256(blob.etag.encode()).hexdigest()
    return cache / place[:2] / f"{place[2:34]}-{state[:16]}"
