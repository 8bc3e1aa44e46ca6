"""From a file to a blob: never over other content unseen, and taken up again after a break."""

from __future__ import annotations

import hashlib
import mimetypes
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceModifiedError
from azure.storage.blob import BlobBlock, BlobClient, ContentSettings

from cifarml.data.blob.http import CONNECTIONS, ChangedError, Wire
from cifarml.data.blob.info import SHA256

__all__ = ["SMALL_BYTES", "upload_large", "upload_small"]

SMALL_BYTES: Final = 4 * 2**20
"""Files up to this size go in one request."""

_BLOCK_BYTES: Final = 8 * 2**20
_MAX_BLOCKS: Final = 50_000
"""Of a block blob: https://learn.microsoft.com/azure/storage/blobs/scalability-targets"""


def upload_small(wire: Wire, path: Path, name: str, *, etag: str | None) -> None:
    """Write a file of at most SMALL_BYTES in one request.

    Args:
        wire: The connections.
        path: The file.
        name: Name of the blob.
        etag: What the blob there must have; None where none may be there.

    Raises:
        ChangedError: If another blob is there.
        CloudError: If the service refuses, or can't be reached.
        OSError: If the file can't be read.
    """
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    headers = {f"x-ms-meta-{SHA256}": sha256, "Content-Type": _content_type(name)}
    wire.put(name, content, etag=etag, headers=headers)


def upload_large(blob: BlobClient, path: Path, *, etag: str | None, on_bytes: Callable[[int], None]) -> int:
    """Write a file in blocks, of which those that an earlier, interrupted call has sent are kept.

    A block is named by its place and its content, and the blob appears only when all are there.

    Args:
        blob: The client of the blob.
        path: The file.
        etag: What the blob there must have; None where none may be there.
        on_bytes: Told how many bytes are there.

    Returns:
        How many bytes were there already.

    Raises:
        ChangedError: If another blob is there.
        AzureError: If the service refuses, or can't be reached.
        OSError: If the file can't be read.
    """
    there = _staged(blob)
    block_bytes = max(_BLOCK_BYTES, -(-path.stat().st_size // _MAX_BLOCKS))
    digest = hashlib.sha256()
    blocks: list[BlobBlock] = []
    saved = 0
    with path.open("rb") as file, ThreadPoolExecutor(CONNECTIONS) as pool:
        waiting: deque[tuple[Future[Any], int]] = deque()

        def settle() -> None:
            sent, size = waiting.popleft()
            sent.result()
            on_bytes(size)

        try:
            while block := file.read(block_bytes):
                digest.update(block)
                block_id = f"{len(blocks):05d}-{hashlib.sha256(block).hexdigest()[:40]}"
                blocks.append(BlobBlock(block_id))
                if block_id in there:
                    saved += len(block)
                    on_bytes(len(block))
                    continue
                sent = pool.submit(blob.stage_block, block_id, block, validate_content=True)
                waiting.append((sent, len(block)))
                if len(waiting) >= _AHEAD:
                    settle()
            while waiting:
                settle()
        finally:
            for sent, _ in waiting:
                sent.cancel()
    condition: dict[str, Any] = {"match_condition": MatchConditions.IfMissing}
    if etag:
        condition = {"etag": etag, "match_condition": MatchConditions.IfNotModified}
    try:
        blob.commit_block_list(
            blocks,
            metadata={SHA256: digest.hexdigest()},
            content_settings=ContentSettings(content_type=_content_type(path.name)),
            **condition,
        )
    except (ResourceExistsError, ResourceModifiedError) as error:
        raise ChangedError(blob.blob_name) from error
    return saved


_AHEAD: Final = 6
"""Blocks in memory: 48 MiB."""


def _staged(blob: BlobClient) -> set[str]:
    """Return the names of the blocks that wait to become a blob."""
    try:
        _, uncommitted = blob.get_block_list("uncommitted")
    except HttpResponseError as error:
        if error.status_code == 404:
            return set()
        raise
    return {block.id for block in uncommitted}


def _content_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
