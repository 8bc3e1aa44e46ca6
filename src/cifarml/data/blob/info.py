"""What is known of a blob without reading it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

__all__ = ["SHA256", "BlobInfo"]

SHA256: Final = "sha256"
"""Name of the metadata that holds the hash of a blob's content."""

_HASH: Final = re.compile(r"[0-9a-f]{64}")
_FOLDER: Final = "hdi_isfolder"
"""Metadata of the empty blobs that stand for folders in accounts with a hierarchical namespace."""


@dataclass(frozen=True)
class BlobInfo:
    """A blob, as the service lists it.

    Args:
        name: Its name in the container.
        size_bytes: Its size.
        etag: Changes whenever the blob does.
        modified: When it was written last.
        sha256: Hash of its content, hexadecimal, where whoever wrote it has stored one.
        md5: MD5 of its content, where the service has one.
        is_folder: It is only the mark of a folder.
    """

    name: str
    size_bytes: int
    etag: str
    modified: datetime | None = None
    sha256: str | None = None
    md5: bytes | None = None
    is_folder: bool = False

    @classmethod
    def of(cls, properties: Any) -> Self:
        """Read the SDK's BlobProperties."""
        md5 = properties.content_settings.content_md5
        return cls.make(
            name=properties.name,
            size_bytes=properties.size,
            etag=properties.etag,
            modified=properties.last_modified,
            md5=bytes(md5) if md5 else None,
            metadata=properties.metadata or {},
        )

    @classmethod
    def make(
        cls,
        *,
        name: str,
        size_bytes: int,
        etag: str,
        modified: datetime | None,
        md5: bytes | None,
        metadata: Mapping[str, str],
    ) -> Self:
        """Read what the service says of a blob."""
        metadata = {key.lower(): value for key, value in metadata.items()}
        sha256 = str(metadata.get(SHA256, "")).lower()
        return cls(
            name=name,
            size_bytes=size_bytes,
            etag=f'"{etag.strip(chr(34))}"',  # quoted in answers, bare in lists
            modified=modified,
            sha256=sha256 if _HASH.fullmatch(sha256) else None,
            md5=md5,
            is_folder=metadata.get(_FOLDER) == "true",
        )

    def matches(self, content: bytes) -> bool:
        """Tell whether this is the blob's content, as far as its hash tells."""
        if self.sha256:
            return hashlib.sha256(content).hexdigest() == self.sha256
        return self.md5 in {None, hashlib.md5(content, usedforsecurity=False).digest()}
