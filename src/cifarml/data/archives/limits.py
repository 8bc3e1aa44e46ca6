"""What an archive may hold: how much of it, and under which names."""

from __future__ import annotations

import dataclasses
import re
import struct
import tarfile
import unicodedata
import zipfile
import zlib
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
"""What the standard library raises on damaged archives."""


@dataclasses.dataclass(frozen=True)
class ArchiveLimits:
    """Limits on an archive: files and folders in it, their unpacked size in all and each.

    ``max_ratio`` is the unpacked size over the size of the archive; it only counts above 64 MiB unpacked.
    """

    max_members: int = 500_000
    max_total_bytes: int = 20 * 2**30
    max_file_bytes: int = MAX_FILE_BYTES
    max_ratio: float = 100

    def check_total(self, total_bytes: int, archive_bytes: int) -> None:
        """Raise ArchiveError if that much may not come out of an archive of that size."""
        if total_bytes > self.max_total_bytes:
            raise ArchiveError(f"it unpacks to more than {self.max_total_bytes:,} bytes")
        if total_bytes > max(64 * 2**20, archive_bytes * self.max_ratio):
            raise ArchiveError(f"it unpacks to more than {self.max_ratio:g} times its size, as a bomb would")


_UNSAFE: Final = re.compile(r"[\\:]|(?:^|/)\.{0,2}(?:/|$)")
"""A backslash, a colon, or a part of a path that is empty, ``.`` or ``..``."""


class MemberValidator:
    """Collects the members of an archive, checking each name and size."""

    def __init__(self, archive_bytes: int, limits: ArchiveLimits) -> None:
        self.files: dict[str, int] = {}
        self.folders: set[str] = set()
        self._names: dict[str, str] = {}
        self._archive_bytes = archive_bytes
        self._limits = limits
        self._total_bytes = 0
        self._count = 0

    def add(self, raw_name: str, size_bytes: int, *, is_folder: bool) -> str:
        """Take a member up and return its name, or raise ArchiveError."""
        self._count += 1
        if self._count > self._limits.max_members:
            raise ArchiveError(f"it holds more than {self._limits.max_members:,} files")
        name = _safe_name(raw_name)
        if is_folder:
            self._add_folder(name)
            return name
        if not name:
            raise ArchiveError("it holds a file without a name")
        if not 0 <= size_bytes <= self._limits.max_file_bytes:
            raise ArchiveError(f"{name} would unpack to {size_bytes:,} bytes")
        self._total_bytes += size_bytes
        self._limits.check_total(self._total_bytes, self._archive_bytes)
        self._add_folder(name.rpartition("/")[0])
        self._reject_name_collision(name)
        self.files[name] = size_bytes
        return name

    def _add_folder(self, name: str) -> None:
        if name and name not in self.folders:
            self._add_folder(name.rpartition("/")[0])
            self._reject_name_collision(name)
            self.folders.add(name)

    def _reject_name_collision(self, name: str) -> None:
        """Reject names that are the same on some file systems."""
        key = name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()
        if key in self._names:
            raise ArchiveError(f"the names {self._names[key]!r} and {name!r} in it collide")
        self._names[key] = name


def _safe_name(raw: str) -> str:
    name = raw.removeprefix("./").rstrip("/")
    if not name or name == ".":
        return ""
    long = len(name) > 63 and any(len(part.encode()) > 255 for part in name.split("/"))
    if long or not name.isprintable() or name.count("/") > 31 or _UNSAFE.search(name):
        raise ArchiveError(f"it holds a file with an unsafe name: {raw[:300]!r}")
    return name
