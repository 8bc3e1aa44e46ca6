"""Named files to read images from: a folder or an archive, seen alike."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final, Protocol, Self

from cifarml.errors import DataError, ImageError

MAX_FILE_BYTES: Final = 512 * 2**20
"""No single file is read that is larger: the longest official batch has 31 MB, a large photo 20 MB."""


class FileTree(Protocol):
    """Files by name, wherever they are stored. Reading them in the order of ``files`` is fastest.

    Attributes:
        origin: Where they are stored, for people to read.
        files: Size in bytes of each file by its name, parts separated by ``/``.
        folders: Names of all folders, empty ones included.
    """

    origin: str
    files: dict[str, int]
    folders: frozenset[str]

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            ImageError: If it can't be read.
        """

    def key(self) -> str:
        """Return a hash that changes whenever a file does; empty if that takes reading the files."""
        return ""

    def close(self) -> None:
        """Close the underlying files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Folder(FileTree):
    """The files below a folder, in the order of their names; links are followed, but not in circles."""

    def __init__(self, path: Path) -> None:
        self.origin = str(path)
        self.files: dict[str, int] = {}
        self._found: dict[str, tuple[str, int]] = {}  # path and time of change
        folders: set[str] = set()
        try:
            self._scan(path, "", folders, frozenset())
        except OSError as error:
            raise DataError(f"can't read the folder {path}: {error.strerror}") from error
        self.folders = frozenset(folders)

    def _scan(self, path: Path, prefix: str, folders: set[str], above: frozenset[tuple[int, int]]) -> None:
        here = path.stat()
        above |= {(here.st_dev, here.st_ino)}
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                # A name that is not UTF-8 is shown with escapes, so that it can be printed.
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

    def read(self, name: str) -> bytes:
        """Return the content of a file; see FileTree."""
        try:
            with Path(self._found[name][0]).open("rb") as file:
                if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                    raise ImageError(f"larger than {MAX_FILE_BYTES:,} bytes")
                return file.read()
        except OSError as error:
            raise ImageError(f"can't be read: {error.strerror}") from error

    def key(self) -> str:
        """Return a SHA-256 of names, sizes and times of change, without reading the files."""
        digest = hashlib.sha256()
        for name, size in self.files.items():
            digest.update(f"{name}\0{size}\0{self._found[name][1]}\0".encode())
        return digest.hexdigest()

    def close(self) -> None:
        """Do nothing: no file stays open."""
