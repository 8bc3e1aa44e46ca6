"""Small blobs in the cache, all in one SQLite file: a file for each costs more than fetching it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Final

from cifarml.data.blob.info import BlobInfo
from cifarml.errors import DataError

__all__ = ["KeptBlobs"]

_logger = logging.getLogger(__name__)

_AT_ONCE: Final = 256
_WAIT_S: Final = 60
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS blobs (
    container TEXT NOT NULL, name TEXT NOT NULL, etag TEXT NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (container, name)
)
"""
_THIS: Final = "FROM blobs WHERE container = ? AND name = ? AND etag = ?"


class KeptBlobs:
    """What small blobs of a container held when they were read last; what has changed is replaced.

    Usable from several threads and processes. A damaged file is thrown away: all of it can be had again.

    Args:
        path: The SQLite file; made where it is missing.
        container: URL of the container.

    Raises:
        DataError: If the file can't be made or written.
    """

    def __init__(self, path: Path, container: str) -> None:
        self._path, self._container = path, container
        self._lock = Lock()
        self._waiting: list[tuple[str, str, str, bytes]] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = self._open()
        except (OSError, sqlite3.OperationalError) as error:
            raise self._refused(error) from error
        except sqlite3.DatabaseError:
            self._start_over()

    def _open(self) -> sqlite3.Connection:
        with ExitStack() as undo:
            database = sqlite3.connect(self._path, timeout=_WAIT_S, check_same_thread=False)
            undo.callback(database.close)
            database.execute("PRAGMA synchronous = OFF")  # a loss of power may cost the cache, no more
            database.execute(_TABLE)
            undo.pop_all()
        return database

    def _start_over(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
            self._database = self._open()
        except (OSError, sqlite3.Error) as error:
            raise self._refused(error) from error

    def missing(self, blobs: Iterable[BlobInfo]) -> list[BlobInfo]:
        """Return those blobs that are not here as they are now.

        Raises:
            DataError: If the file can't be read.
        """
        query = "SELECT name, etag FROM blobs WHERE container = ?"
        here: set[tuple[str, str]] = set()
        with self._lock:
            try:
                here = set(self._database.execute(query, (self._container,)))
            except sqlite3.OperationalError as error:
                raise self._refused(error) from error
            except sqlite3.DatabaseError:
                self._database.close()
                self._start_over()
        return [blob for blob in blobs if (blob.name, blob.etag) not in here]

    def add(self, blob: BlobInfo, content: bytes) -> None:
        """Keep a blob, in place of what it held before.

        Raises:
            DataError: If it can't be written.
        """
        with self._lock:
            self._waiting.append((self._container, blob.name, blob.etag, content))
            if len(self._waiting) >= _AT_ONCE:
                self._write()

    def read(self, blob: BlobInfo) -> bytes | None:
        """Return a blob's content; None where it is not here, or damaged, and then it is forgotten."""
        row = (self._container, blob.name, blob.etag)
        with self._lock:
            try:
                found = self._database.execute(f"SELECT content {_THIS}", row).fetchone()
                if found and blob.matches(found[0]):
                    return bytes(found[0])
                with self._database:
                    self._database.execute(f"DELETE {_THIS}", row)
            except sqlite3.Error as error:
                _logger.info("%s: %s", self._path, error)
        return None

    def _write(self) -> None:
        try:
            with self._database:
                self._database.executemany("REPLACE INTO blobs VALUES (?, ?, ?, ?)", self._waiting)
        except sqlite3.Error as error:
            raise self._refused(error) from error
        self._waiting.clear()

    def _refused(self, error: Exception) -> DataError:
        return DataError(
            f"can't write {self._path}: {error}", "is the disk full? Or move it: CIFARML_CACHE_DIR"
        )

    def flush(self) -> None:
        """Write what waits to be written.

        Raises:
            DataError: If it can't be written.
        """
        with self._lock:
            self._write()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()
