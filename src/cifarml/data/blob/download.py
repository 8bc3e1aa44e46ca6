"""Download a blob to a file: concurrent range requests, hash verification, resumable."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Final

from azure.core import MatchConditions
from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob import ContainerClient
from filelock import FileLock

from cifarml.data.blob.info import BlobInfo, ChangedError
from cifarml.data.blob.transfer_progress import THREADS, map_in_threads
from cifarml.errors import DataError
from cifarml.locks import hold

PART_BYTES: Final = 4 * 2**20
_TRIES: Final = 3


def download_blob(
    container: ContainerClient,
    info: BlobInfo,
    find: Callable[[], BlobInfo],
    target: Path,
    lock: Path,
    on_bytes: Callable[[int], None],
) -> int:
    """Download a blob to a file; return the number of bytes downloaded, 0 if the file has the content.

    The file is created atomically, after its size and hash were verified. A blob of more than one part is
    written to ``<target>.<hash of the etag>.partial``, which a later call resumes unless the blob has
    changed; a concurrent process waits for the lock and uses the same download. ``find`` looks up a changed
    blob again; ``on_bytes`` receives the number of bytes downloaded, negative if they are discarded.

    Raises:
        AzureError: If the blob can't be read.
        ChangedError: If it changed or did not match its hash in each of three attempts.
        DataError: If the file can't be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(_TRIES):
            if attempt:
                info = find()
            if has_content(target, info):
                on_bytes(info.size_bytes)
                return 0
            with suppress(ChangedError):
                if info.size_bytes > PART_BYTES:
                    return _download_parts(container, info, target, lock, on_bytes)
                _write_whole(target, read_small(container, info))
                on_bytes(info.size_bytes)
                return info.size_bytes
    except OSError as error:
        raise DataError(
            f"can't write {target}: {error.strerror or error}", "try again; data already downloaded is kept"
        ) from error
    raise ChangedError


def read_small(container: ContainerClient, info: BlobInfo) -> bytes:
    """Return the verified content of a blob of at most one part, in one request.

    Raises:
        ChangedError: If it has changed since it was listed, or does not match its hash.
        AzureError: If it can't be read.
    """
    content = _read_part(container, info, 0) if info.size_bytes else b""
    if not info.matches(content):
        raise ChangedError
    return content


def has_content(path: Path, info: BlobInfo) -> bool:
    """Return whether a file has the content of a blob; False if the blob has no hash."""
    if not path.is_file() or path.stat().st_size != info.size_bytes:
        return False
    with path.open("rb") as file:
        return bool(info.hash) and hashlib.file_digest(file, info.new_digest).hexdigest() == info.hash


def _write_whole(target: Path, content: bytes) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _read_part(container: ContainerClient, info: BlobInfo, start: int) -> bytes:
    size_bytes = min(PART_BYTES, info.size_bytes - start)
    try:
        content = container.download_blob(
            info.name,
            offset=start,
            length=size_bytes,
            etag=info.etag,
            match_condition=MatchConditions.IfNotModified,
            validate_content=not info.hash,  # by an MD5 of the range
        ).readall()
    except (ResourceModifiedError, ResourceNotFoundError) as error:
        if getattr(error, "error_code", "") == "ContainerNotFound":
            raise
        raise ChangedError from error
    if len(content) != size_bytes:
        raise ChangedError
    return content


def _download_parts(
    container: ContainerClient, info: BlobInfo, target: Path, lock: Path, on_bytes: Callable[[int], None]
) -> int:
    """Resume the partial file unless another process has finished it; return the bytes downloaded."""
    tag = hashlib.sha256(info.etag.encode()).hexdigest()[:12]
    partial = target.with_name(f"{target.name}.{tag}.partial")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with hold(FileLock(lock), f"the download of {target.name}"):
        if has_content(target, info):
            on_bytes(info.size_bytes)
            return 0
        for old in target.parent.glob(f"{escape(target.name)}.????????????.partial"):
            if old != partial:
                old.unlink(missing_ok=True)
        with suppress(ChangedError):
            if _append_parts(container, info, partial, on_bytes):
                partial.replace(target)
                return info.size_bytes
        on_bytes(-partial.stat().st_size)
        partial.unlink()
    raise ChangedError


def _append_parts(
    container: ContainerClient, info: BlobInfo, partial: Path, on_bytes: Callable[[int], None]
) -> bool:
    """Append the missing parts to the partial file; return whether its content matches the hash."""
    digest = info.new_digest()
    with partial.open("a+b") as file:
        have = file.tell()
        if have > info.size_bytes:
            file.truncate(have := 0)
        file.seek(0)
        while block := file.read(2**20):
            digest.update(block)
        on_bytes(have)
        starts = range(have, info.size_bytes, PART_BYTES)
        for part in map_in_threads(lambda start: _read_part(container, info, start), starts, ahead=THREADS):
            file.write(part)
            digest.update(part)
            on_bytes(len(part))
    return partial.stat().st_size == info.size_bytes and info.hash in {None, digest.hexdigest()}
