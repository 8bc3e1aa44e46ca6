"""From a blob to a file: in parts, several at a time, checked, and taken up again after a break."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from cifarml.data.blob.http import CONNECTIONS, ChangedError, Wire
from cifarml.data.blob.info import BlobInfo
from cifarml.errors import CloudError, DataError

__all__ = ["PART_BYTES", "download_blob", "download_small", "has_content", "read_small"]

PART_BYTES: Final = 4 * 2**20
_TRIES: Final = 3


def download_blob(
    wire: Wire,
    info: BlobInfo,
    find: Callable[[], BlobInfo],
    target: Path,
    *,
    lock: Path,
    on_bytes: Callable[[int], None],
) -> int:
    """Bring a blob into a file.

    The bytes go to ``<target>.<etag>.partial`` and are renamed only when size and hash are right, so
    ``target`` is never half. A later call resumes a partial file, and starts over where the blob has
    changed. A lock makes a second process wait and use the same download.

    Args:
        wire: The connections.
        info: What the blob was a moment ago.
        find: Asks the service what it is now; called when it has changed.
        target: The file to make; another file of that name is replaced.
        lock: Path of the lock file.
        on_bytes: Told how many bytes have come, negative where they are of no use.

    Returns:
        How many bytes it has, 0 where they were all there.

    Raises:
        CloudError: If it can't be had, or does not match its hash.
        DataError: If the file can't be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            for tried in range(_TRIES):
                if tried:
                    info = find()
                if has_content(target, info):
                    on_bytes(info.size_bytes)
                    return 0
                partial = _partial(target, info)
                for old in target.parent.glob(f"{_escaped(target.name)}.????????????.partial"):
                    if old != partial:
                        old.unlink(missing_ok=True)
                try:
                    whole = _fetch(wire, info, partial, on_bytes)
                except ChangedError:
                    on_bytes(-partial.stat().st_size)
                    partial.unlink()
                    continue
                if whole:
                    partial.replace(target)
                    return info.size_bytes
                on_bytes(-info.size_bytes)
                partial.unlink()
    except OSError as error:
        raise DataError(
            f"can't write {target}: {error.strerror or error}", "what has arrived is kept; try again"
        ) from error
    raise CloudError(
        f"can't read {info.name}: it changed, or did not match its hash, {_TRIES} times in a row",
        "was it damaged before it was uploaded? Upload it again: cifarml data upload FILE",
    )


def read_small(wire: Wire, info: BlobInfo) -> bytes:
    """Return the content of a blob of at most one part, checked, in one request.

    Raises:
        ChangedError: If it has changed since it was listed, or does not match its hash.
        CloudError: If it can't be had.
    """
    checked = not (info.sha256 or info.md5)
    content = b""
    if info.size_bytes:
        content = wire.get(info.name, etag=info.etag, start=0, size_bytes=info.size_bytes, checked=checked)
    if not info.matches(content):
        raise ChangedError(info.name)
    return content


def download_small(wire: Wire, info: BlobInfo, target: Path) -> None:
    """Bring a blob of at most one part into a file, in one request.

    Raises:
        ChangedError: If it has changed since it was listed, or does not match its hash.
        CloudError: If it can't be had.
        OSError: If the file can't be written.
    """
    content = read_small(wire, info)
    partial = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def has_content(path: Path, info: BlobInfo) -> bool:
    """Tell whether a file holds a blob's content already, as far as the blob's hash tells."""
    if not path.is_file() or path.stat().st_size != info.size_bytes:
        return False
    name, wanted = ("sha256", info.sha256) if info.sha256 else ("md5", info.md5 and info.md5.hex())
    with path.open("rb") as file:
        return wanted is not None and hashlib.file_digest(file, name).hexdigest() == wanted


def _partial(target: Path, info: BlobInfo) -> Path:
    tag = hashlib.sha256(info.etag.encode()).hexdigest()[:12]
    return target.with_name(f"{target.name}.{tag}.partial")


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _fetch(wire: Wire, info: BlobInfo, partial: Path, on_bytes: Callable[[int], None]) -> bool:
    """Bring what is missing of the partial file; return whether all of it matches the hash."""
    digest: Any = hashlib.sha256() if info.sha256 else hashlib.md5(usedforsecurity=False)
    wanted = info.sha256 or (info.md5.hex() if info.md5 else None)
    with partial.open("a+b") as file:
        have = file.tell()
        if have > info.size_bytes:
            file.truncate(have := 0)
        file.seek(0)
        while block := file.read(2**20):
            digest.update(block)
        on_bytes(have)
        for part in _parts(wire, info, have):
            file.write(part)
            digest.update(part)
            on_bytes(len(part))
    return partial.stat().st_size == info.size_bytes and wanted in {None, digest.hexdigest()}


def _parts(wire: Wire, info: BlobInfo, start: int) -> Iterator[bytes]:
    """Yield the parts in order, with some more under way."""
    checked = not (info.sha256 or info.md5)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        waiting: deque[Future[bytes]] = deque()
        try:
            for begin in range(start, info.size_bytes, PART_BYTES):
                size = min(PART_BYTES, info.size_bytes - begin)
                waiting.append(
                    pool.submit(
                        wire.get, info.name, etag=info.etag, start=begin, size_bytes=size, checked=checked
                    )
                )
                if len(waiting) >= CONNECTIONS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for part in waiting:
                part.cancel()
