"""Limits on the number, sizes and names of files in an archive."""

from __future__ import annotations

import dataclasses
import re
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable
from typing import Final

from cifarml.data.file_tree import MAX_FILE_BYTES
from cifarml.errors import ArchiveError

DAMAGED: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,
    LookupError,
)
"""Exceptions that the standard library raises on damaged archives."""


def describe_damage(error: Exception) -> str:
    """Return what is wrong with an archive: a failure to read the disk is not called damage."""
    if isinstance(error, OSError) and error.errno:
        return f"can't be read: {error.strerror}"
    return f"damaged in the archive: {error or type(error).__name__}"


@dataclasses.dataclass(frozen=True)
class ArchiveLimits:
    """Limits on an archive, against decompression bombs.

    Args:
        max_members: Maximum number of files and folders.
        max_total_bytes: Maximum unpacked size of all files.
        max_file_bytes: Maximum unpacked size of a single file.
        max_ratio: Maximum ratio of unpacked to packed size, enforced above 64 MiB unpacked.
    """

    max_members: int = 500_000
    max_total_bytes: int = 20 * 2**30
    max_file_bytes: int = MAX_FILE_BYTES
    max_ratio: float = 100

    def check_total(self, total_bytes: int, archive_bytes: int) -> None:
        """Raise ArchiveError if the unpacked size exceeds the limits."""
        if total_bytes > self.max_total_bytes:
            raise ArchiveError(f"it unpacks to more than {self.max_total_bytes:,} bytes")
        if total_bytes > max(64 * 2**20, archive_bytes * self.max_ratio):
            raise ArchiveError(f"it unpacks to more than {self.max_ratio:g} times its size (zip bomb)")


_UNSAFE: Final = re.compile(r"[\\:]|(?:^|/)\.{0,2}(?:/|$)")
"""A backslash, a colon, or a part of a path that is empty, ``.`` or ``..``."""


class MemberValidator:
    """Validates the names and sizes of archive members and collects them."""

    def __init__(self, archive_bytes: int, limits: ArchiveLimits) -> None:
        self.files: dict[str, int] = {}
        self.folders: set[str] = set()
        self._archive_bytes = archive_bytes
        self._limits = limits
        self._total_bytes = 0
        self._count = 0

    def add(self, raw_name: str, size_bytes: int, *, is_folder: bool) -> str:
        """Validate and record a member, and return its normalized name.

        Raises:
            ArchiveError: If its name is unsafe or a duplicate, or a limit is exceeded.
        """
        self._count += 1
        if self._count > self._limits.max_members:
            raise ArchiveError(f"it contains more than {self._limits.max_members:,} files")
        name = _safe_name(raw_name)
        if is_folder:
            self._add_folder(name)
            return name
        if not name:
            raise ArchiveError("it contains a file without a name")
        if not 0 <= size_bytes <= self._limits.max_file_bytes:
            raise ArchiveError(f"{name} would unpack to {size_bytes:,} bytes")
        self._total_bytes += size_bytes
        self._limits.check_total(self._total_bytes, self._archive_bytes)
        self._add_folder(name.rpartition("/")[0])
        self._reject_duplicate(name)
        self.files[name] = size_bytes
        return name

    def _add_folder(self, name: str) -> None:
        if name and name not in self.folders:
            self._add_folder(name.rpartition("/")[0])
            self._reject_duplicate(name)
            self.folders.add(name)

    def _reject_duplicate(self, name: str) -> None:
        if name in self.files or name in self.folders:
            raise ArchiveError(f"the name {name!r} is used twice, so its entries collide")


def check_collisions(names: Iterable[str]) -> None:
    """Raise ArchiveError if names are equal on case-insensitive or Unicode-normalizing file systems."""
    seen: dict[str, str] = {}
    for name in names:
        key = name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()
        if (other := seen.setdefault(key, name)) != name:
            raise ArchiveError(f"the names {other!r} and {name!r} collide")


def _safe_name(raw: str) -> str:
    name = raw.removeprefix("./").rstrip("/")
    if not name or name == ".":
        return ""
    long = len(name) > 63 and any(len(part.encode()) > 255 for part in name.split("/"))
    if long or not name.isprintable() or name.count("/") > 31 or _UNSAFE.search(name):
        raise ArchiveError(f"it contains a file with an unsafe name: {raw[:300]!r}")
    return name
