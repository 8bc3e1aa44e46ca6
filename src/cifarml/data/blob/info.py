"""Properties of a blob."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

SHA256: Final = "sha256"
"""Metadata key of the SHA-256 of a blob's content."""

_HASH: Final = re.compile(r"[0-9a-f]{64}")
_FOLDER: Final = "hdi_isfolder"
"""Metadata key of the empty blobs that represent folders in accounts with a hierarchical namespace."""


class ChangedError(Exception):
    """A blob's etag or content differs from the expected one, or the blob no longer exists."""


@dataclass(frozen=True)
class BlobInfo:
    """Properties of a blob.

    Args:
        name: Name in the container.
        size_bytes: Size of the content.
        etag: Entity tag: changes with every write.
        modified: Time of the last write.
        sha256: Hexadecimal SHA-256 of the content, if the metadata contain one.
        md5: MD5 of the content, if the service has one.
        is_folder: Whether the blob only represents a folder.
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
        """Convert the SDK's BlobProperties."""
        metadata = {key.lower(): value for key, value in (properties.metadata or {}).items()}
        sha256 = str(metadata.get(SHA256, "")).lower()
        md5 = properties.content_settings.content_md5
        return cls(
            name=properties.name,
            size_bytes=properties.size,
            etag=f'"{properties.etag.strip(chr(34))}"',  # quoted in headers, bare in listings
            modified=properties.last_modified,
            sha256=sha256 if _HASH.fullmatch(sha256) else None,
            md5=bytes(md5) if md5 else None,
            is_folder=metadata.get(_FOLDER) == "true",
        )

    def new_digest(self) -> Any:
        """Return an empty hashlib digest of the algorithm of `hash`."""
        return hashlib.sha256() if self.sha256 else hashlib.md5(usedforsecurity=False)

    @property
    def hash(self) -> str | None:
        """Hexadecimal SHA-256 or MD5 of the content, if one is known."""
        return self.sha256 or (self.md5.hex() if self.md5 else None)

    def matches(self, content: bytes) -> bool:
        """Return whether content matches the blob's hash; True if the blob has no hash."""
        digest = self.new_digest()
        digest.update(content)
        return self.hash in {None, digest.hexdigest()}
