"""`FileTree` of a tar or tar.gz archive."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, cast

from cifarml.data.archives.limits import DAMAGED, ArchiveLimits, MemberValidator, describe_damage
from cifarml.data.file_tree import FileTree
from cifarml.errors import ArchiveError, ImageError
from cifarml.imaging.formats import HEAD_BYTES

GZIP_MAGIC: Final = b"\x1f\x8b"
_MAX_HEADER_BYTES: Final = 256 * 2**10
_MAX_GLOBAL_ENTRIES: Final = 100


class TarTree(FileTree):
    """The files of a .tar or .tar.gz; a backward seek in a .tar.gz decompresses it from the start."""

    def __init__(self, path: Path, limits: ArchiveLimits) -> None:
        self.origin = str(path)
        size_bytes = path.stat().st_size
        self._file = path.open("rb")
        try:
            packed = self._file.read(2) == GZIP_MAGIC
            self._file.seek(0)
            stream = gzip.GzipFile(fileobj=self._file) if packed else self._file
            self._stream = _LimitedStream(cast("IO[bytes]", stream), size_bytes, limits)
            self._stream.max_read_bytes = _MAX_HEADER_BYTES  # opening reads headers only
            self._tar = tarfile.open(fileobj=cast("IO[bytes]", self._stream), mode="r:")  # noqa: SIM115
            members = MemberValidator(size_bytes, limits)
            self._infos = {members.add(i.name, i.size, is_folder=i.isdir()): i for i in self._check_headers()}
            self._check_end()
            self._stream.max_read_bytes = limits.max_file_bytes
        except BaseException:  # close the file, then re-raise
            self._file.close()
            raise
        self.files = members.files
        self.folders = frozenset(members.folders)

    def _check_headers(self) -> Iterator[tarfile.TarInfo]:
        for info in self._tar:
            if len(self._tar.pax_headers) > _MAX_GLOBAL_ENTRIES:  # tarfile copies them for every member
                raise ArchiveError("its global pax header is too large")
            info.pax_headers = {}
            if not (info.isdir() or (info.isreg() and not info.issparse())):
                raise ArchiveError(f"it contains a link, a device or a sparse file: {info.name!r}")
            yield info

    def _check_end(self) -> None:
        """Raise if the archive has no end-of-archive block, since tarfile stops silently at a damaged header.

        Reading to the end makes gzip verify its checksum.
        """
        self._stream.seek(self._tar.offset)
        if self._stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ArchiveError(f"damaged archive: no readable header at byte {self._tar.offset:,}")
        while self._stream.read(_MAX_HEADER_BYTES):
            pass

    def read(self, name: str) -> bytes:
        """Return the content of a file; see `FileTree.read`."""
        info = self._infos[name]
        try:
            file = self._tar.extractfile(info)
            content = file.read() if file else b""
        except DAMAGED as error:
            raise ImageError(describe_damage(error)) from error
        if len(content) != info.size:
            raise ImageError("truncated in the archive")
        return content

    def head(self, name: str) -> bytes:
        """Return the first bytes of a file; see `FileTree.head`."""
        try:
            file = self._tar.extractfile(self._infos[name])
            return file.read(HEAD_BYTES) if file else b""
        except DAMAGED as error:
            raise ImageError(describe_damage(error)) from error

    def close(self) -> None:
        """Close the archive."""
        self._tar.close()
        self._file.close()


class _LimitedStream:
    """Seekable stream that raises ArchiveError instead of reading beyond the limits."""

    def __init__(self, stream: IO[bytes], archive_bytes: int, limits: ArchiveLimits) -> None:
        self._stream = stream
        self._archive_bytes = archive_bytes
        self._limits = limits
        self.max_read_bytes = limits.max_file_bytes

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.max_read_bytes:
            raise ArchiveError(f"it requires reading {size:,} bytes at once")
        self._limits.check_total(self.tell() + size, self._archive_bytes)
        return self._stream.read(size)

    def seek(self, position: int) -> int:
        self._limits.check_total(position, self._archive_bytes)
        return self._stream.seek(position)

    def tell(self) -> int:
        return self._stream.tell()
