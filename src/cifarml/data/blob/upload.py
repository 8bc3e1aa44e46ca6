"""Upload a file to a blob: conditional on the etag, and resumable."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceModifiedError
from azure.storage.blob import BlobBlock, BlobClient, ContentSettings

from cifarml.data.blob.info import SHA256, ChangedError
from cifarml.data.blob.transfer_progress import map_in_threads

_SMALL_BYTES: Final = 4 * 2**20
"""Largest file that is sent in one request."""

_BLOCK_BYTES: Final = 8 * 2**20
_BLOCKS_AHEAD: Final = 6
"""Blocks in memory: 48 MiB."""
_MAX_BLOCKS: Final = 50_000
"""Limit of a block blob: https://learn.microsoft.com/azure/storage/blobs/scalability-targets"""


class Upload(NamedTuple):
    """Result of an upload.

    Attributes:
        names: All blobs, including those that were already up to date.
        num_sent: Number of blobs that were sent.
        sent_bytes: Bytes that were sent.
        saved_bytes: Bytes that were already present.
    """

    names: tuple[str, ...]
    num_sent: int
    sent_bytes: int
    saved_bytes: int


def upload_blob(blob: BlobClient, path: Path, *, etag: str | None, on_bytes: Callable[[int], None]) -> int:
    """Upload a file in one request, or in blocks if it is large; return the bytes that were already staged.

    A block's ID contains its position and the hash of its content, so that an interrupted upload resumes. The
    blob appears when all blocks are committed.

    Args:
        blob: Client of the blob.
        path: The file.
        etag: Expected etag of the blob to replace; None to create a blob.
        on_bytes: Called with the number of bytes sent or skipped.

    Raises:
        ChangedError: If the blob exists with another etag.
        AzureError: If the service refuses a request, or can't be reached.
        OSError: If the file can't be read.
    """
    content_type = mimetypes.guess_type(blob.blob_name)[0] or "application/octet-stream"
    options: dict[str, Any] = {"content_settings": ContentSettings(content_type=content_type)}
    options["match_condition"] = MatchConditions.IfNotModified if etag else MatchConditions.IfMissing
    if etag:
        options["etag"] = etag
    try:
        if path.stat().st_size > _SMALL_BYTES:
            return _upload_blocks(blob, path, options, on_bytes)
        content = path.read_bytes()
        metadata = {SHA256: hashlib.sha256(content).hexdigest()}
        blob.upload_blob(content, overwrite=bool(etag), metadata=metadata, validate_content=True, **options)
        on_bytes(len(content))
    except (ResourceExistsError, ResourceModifiedError) as error:
        if getattr(error, "error_code", "") not in {"BlobAlreadyExists", "ConditionNotMet"}:
            raise
        raise ChangedError from error
    return 0


def _upload_blocks(
    blob: BlobClient, path: Path, options: dict[str, Any], on_bytes: Callable[[int], None]
) -> int:
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
    blocks = [BlobBlock(block_id) for block_id in block_ids]
    blob.commit_block_list(blocks, metadata={SHA256: digest.hexdigest()}, **options)
    return saved


def _staged_blocks(blob: BlobClient) -> set[str]:
    """Return the IDs of the uncommitted blocks."""
    try:
        _, uncommitted = blob.get_block_list("uncommitted")
    except HttpResponseError as error:
        if error.status_code == 404:
            return set()
        raise
    return {block.id for block in uncommitted}
