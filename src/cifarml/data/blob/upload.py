"""Upload a file to a blob: never over other content unseen, resumed after an interruption."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceModifiedError
from azure.storage.blob import BlobBlock, BlobClient, ContainerClient, ContentSettings

from cifarml.data.blob.http import BlobHttpClient, ChangedError
from cifarml.data.blob.info import SHA256
from cifarml.data.blob.transfer_progress import map_in_threads

_SMALL_BYTES: Final = 4 * 2**20
"""Files up to this size are sent in one request."""

_BLOCK_BYTES: Final = 8 * 2**20
_BLOCKS_AHEAD: Final = 6
"""Blocks in memory: 48 MiB."""
_MAX_BLOCKS: Final = 50_000
"""Of a block blob: https://learn.microsoft.com/azure/storage/blobs/scalability-targets"""


def upload_blob(
    client: BlobHttpClient,
    container: ContainerClient,
    name: str,
    path: Path,
    *,
    etag: str | None,
    on_bytes: Callable[[int], None],
) -> int:
    """Upload a file in one request, or in blocks if it is large, skipping those that were sent before.

    A block's ID is its position and the hash of its content, so that an interrupted upload is resumed. The
    blob appears once all blocks are there.

    Args:
        client: Sends small files.
        container: Sends blocks.
        name: Name of the blob.
        path: The file.
        etag: The etag of the blob to replace; None to create one.
        on_bytes: Called with the bytes that are there.

    Returns:
        Bytes that were there already.

    Raises:
        ChangedError: If there is another blob of that name.
        AzureError: If the service refuses a block, or can't be reached.
        CloudError: If the service refuses a small file, or can't be reached.
        OSError: If the file can't be read.
    """
    content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    if path.stat().st_size <= _SMALL_BYTES:
        content = path.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        headers = {f"x-ms-meta-{SHA256}": sha256, "Content-Type": content_type}
        client.put(name, content, etag=etag, headers=headers)
        on_bytes(len(content))
        return 0
    blob = container.get_blob_client(name)
    there = _staged_blocks(blob)
    block_bytes = max(_BLOCK_BYTES, -(-path.stat().st_size // _MAX_BLOCKS))
    digest = hashlib.sha256()
    block_ids: list[str] = []

    def read_blocks() -> Iterator[tuple[str, bytes]]:
        with path.open("rb") as file:
            while content := file.read(block_bytes):
                digest.update(content)
                block_ids.append(f"{len(block_ids):05d}-{hashlib.sha256(content).hexdigest()[:40]}")
                yield block_ids[-1], content

    def send(block: tuple[str, bytes]) -> tuple[int, int]:
        block_id, content = block
        if block_id in there:
            return len(content), len(content)
        blob.stage_block(block_id, content, validate_content=True)
        return len(content), 0

    saved = 0
    for size, saved_bytes in map_in_threads(send, read_blocks(), ahead=_BLOCKS_AHEAD):
        on_bytes(size)
        saved += saved_bytes
    condition: dict[str, Any] = {"match_condition": MatchConditions.IfMissing}
    if etag:
        condition = {"etag": etag, "match_condition": MatchConditions.IfNotModified}
    try:
        blob.commit_block_list(
            [BlobBlock(block_id) for block_id in block_ids],
            metadata={SHA256: digest.hexdigest()},
            content_settings=ContentSettings(content_type=content_type),
            **condition,
        )
    except (ResourceExistsError, ResourceModifiedError) as error:
        raise ChangedError(name) from error
    return saved


def _staged_blocks(blob: BlobClient) -> set[str]:
    """Return the IDs of the blocks that have been sent but not committed."""
    try:
        _, uncommitted = blob.get_block_list("uncommitted")
    except HttpResponseError as error:
        if error.status_code == 404:
            return set()
        raise
    return {block.id for block in uncommitted}
