"""Common interface to the files of a folder, an archive or a blob container."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final, Protocol, Self

from cifarml.errors import DataError, ImageError
from cifarml.imaging.formats import HEAD_BYTES

MAX_FILE_BYTES: Final = 512 * 2**20
"""Maximum size of a file to read; the largest official batch has 31 MB, a large photo 20 MB."""


class FileTree(Protocol):
    """Protocol for a read-only collection of files.

    Attributes:
        origin: Human-readable location of the files.
        files: Size of each file in bytes, by its name with `/` as separator; files are read fastest in this
            order.
        folders: Names of all folders, including empty ones.
        broken: Names of links to files that do not exist.
    """

    origin: str
    files: dict[str, int]
    folders: frozenset[str]
    broken: tuple[str, ...] = ()

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            ImageError: If the file can't be read.
        """

    def head(self, name: str) -> bytes:
        """Return the first bytes of a file, at least `HEAD_BYTES` of them if it has as many.

        Raises:
            ImageError: If the file can't be read.
        """
        return self.read(name)[:HEAD_BYTES]

    def key(self) -> str:
        """Return a hash of the files' metadata that changes when a file changes, or "" if unavailable."""
        return ""

    def close(self) -> None:
        """Close the underlying files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Folder(FileTree):
    """The files below a folder, sorted by name; links are followed, except those to a parent folder."""

    def __init__(self, path: Path) -> None:
        self.origin = str(path)
        self.files: dict[str, int] = {}
        self._found: dict[str, tuple[str, int]] = {}  # path and modification time
        folders: set[str] = set()
        self._broken: dict[str, str] = {}
        try:
            self._scan(path, "", folders, frozenset())
        except OSError as error:
            raise DataError(f"can't read the folder {path}: {error.strerror}") from error
        self.folders = frozenset(folders)
        self.broken = tuple(self._broken)

    def _scan(self, path: Path, prefix: str, folders: set[str], above: frozenset[tuple[int, int]]) -> None:
        here = path.stat()
        above |= {(here.st_dev, here.st_ino)}
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                # Escape bytes that are not UTF-8, so that the name can be printed.
                name = prefix + os.fsencode(entry.name).decode("utf-8", "backslashreplace")
                if entry.is_dir():
                    found = entry.stat()
                    if (found.st_dev, found.st_ino) not in above:
                        folders.add(name)
                        self._scan(Path(entry.path), f"{name}/", folders, above)
                elif entry.is_file():
                    found = entry.stat()
                    self.files[name] = found.st_size
                    self._found[name] = entry.path, found.st_mtime_ns
                elif entry.is_symlink():
                    self._broken[name] = entry.path

    def path(self, name: str) -> Path:
        """Return the path of a file or a broken link; its name is escaped if it is not UTF-8."""
        return Path(self._found[name][0] if name in self._found else self._broken[name])

    def read(self, name: str) -> bytes:
        """Return the content of a file; see `FileTree.read`."""
        try:
            with Path(self._found[name][0]).open("rb") as file:
                if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                    raise ImageError(f"larger than {MAX_FILE_BYTES:,} bytes")
                return file.read()
        except OSError as error:
            raise ImageError(f"can't be read: {error.strerror}") from error

    def head(self, name: str) -> bytes:
        """Return the first bytes of a file; see `FileTree.head`."""
        try:
            with Path(self._found[name][0]).open("rb") as file:
                return file.read(HEAD_BYTES)
        except OSError as error:
            raise ImageError(f"can't be read: {error.strerror}") from error

    def key(self) -> str:
        """Return the SHA-256 of all names, sizes and modification times."""
        digest = hashlib.sha256()
        for name, size in self.files.items():
            digest.update(f"{name}\0{size}\0{self._found[name][1]}\0".encode())
        digest.update("\0".join(self.broken).encode())
        return digest.hexdigest()

    def close(self) -> None:
        """Do nothing: no file stays open."""


class OneFile(FileTree):
    """A single file, under any name."""

    def __init__(self, path: Path, name: str, origin: str) -> None:
        self.origin = origin
        self.folders = frozenset()
        self._path = path
        try:
            about = path.stat()
        except OSError as error:
            raise DataError(f"can't read {origin}: {error.strerror}") from error
        self.files = {name: about.st_size}
        self._modified = about.st_mtime_ns

    def read(self, name: str) -> bytes:
        """Return the content of the file; see `FileTree.read`."""
        if self.files[name] > MAX_FILE_BYTES:
            raise ImageError(f"larger than {MAX_FILE_BYTES:,} bytes")
        return self._read(-1)

    def head(self, name: str) -> bytes:  # noqa: ARG002  # there is only one file
        """Return the first bytes of the file; see `FileTree.head`."""
        return self._read(HEAD_BYTES)

    def _read(self, size_bytes: int) -> bytes:
        try:
            with self._path.open("rb") as file:
                return file.read(size_bytes)
        except OSError as error:
            raise ImageError(f"can't be read: {error.strerror}") from error

    def key(self) -> str:
        """Return the SHA-256 of the path, size and modification time."""
        state = f"{self._path}\0{self.files}\0{self._modified}"
        return hashlib.sha256(state.encode("utf-8", "surrogateescape")).hexdigest()

    def close(self) -> None:
        """Do nothing: the file is not open."""
