"""SQLite cache of small blobs; one file per blob would be slower than downloading it again."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from threading import RLock
from typing import Final

from cifarml.data.blob.info import BlobInfo
from cifarml.errors import DataError

_logger = logging.getLogger(__name__)

_BATCH: Final = 256
_WAIT_S: Final = 60
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS blobs (
    container TEXT NOT NULL, name TEXT NOT NULL, etag TEXT NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (container, name)
)
"""
_FROM_BLOB: Final = "FROM blobs WHERE container = ? AND name = ? AND etag = ?"


class BlobCache:
    """Cache of a container's small blobs, keyed by name and etag.

    Safe for concurrent use by threads and processes. A corrupt file is deleted, and its blobs are downloaded
    again. The methods raise DataError if the file can't be read or written.
    """

    def __init__(self, path: Path, container: str) -> None:
        self._path, self._container = path, container
        self._lock = RLock()
        self._unwritten: list[tuple[str, str, str, bytes]] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = self._open_database()
        except (OSError, sqlite3.OperationalError) as error:
            raise self._error(error) from error
        except sqlite3.DatabaseError:
            self._start_over()

    def _open_database(self) -> sqlite3.Connection:
        with ExitStack() as undo:
            database = sqlite3.connect(self._path, timeout=_WAIT_S, check_same_thread=False)
            undo.callback(database.close)
            database.execute("PRAGMA synchronous = OFF")  # a power failure can corrupt only the cache
            database.execute(_TABLE)
            undo.pop_all()
        return database

    def _start_over(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
            self._database = self._open_database()
        except (OSError, sqlite3.Error) as error:
            raise self._error(error) from error

    def missing(self, blobs: Iterable[BlobInfo]) -> list[BlobInfo]:
        """Return the blobs that are not cached with their current etag."""
        query = "SELECT name, etag FROM blobs WHERE container = ?"
        here: set[tuple[str, str]] = set()
        with self._lock:
            try:
                here = set(self._database.execute(query, (self._container,)))
            except sqlite3.OperationalError as error:
                raise self._error(error) from error
            except sqlite3.DatabaseError:
                self._database.close()
                self._start_over()
        return [blob for blob in blobs if (blob.name, blob.etag) not in here]

    def add(self, blob: BlobInfo, content: bytes) -> None:
        """Cache a blob's content, replacing any previous one."""
        with self._lock:
            self._unwritten.append((self._container, blob.name, blob.etag, content))
            if len(self._unwritten) >= _BATCH:
                self.flush()

    def read(self, blob: BlobInfo) -> bytes | None:
        """Return a blob's content; None if it is missing or corrupt (a corrupt entry is removed)."""
        row = (self._container, blob.name, blob.etag)
        with self._lock:
            try:
                found = self._database.execute(f"SELECT content {_FROM_BLOB}", row).fetchone()
                if found and blob.matches(found[0]):
                    return bytes(found[0])
                with self._database:
                    self._database.execute(f"DELETE {_FROM_BLOB}", row)
            except sqlite3.Error as error:
                _logger.info("%s: %s", self._path, error)
        return None

    def _error(self, error: Exception) -> DataError:
        return DataError(f"can't write {self._path}: {error}", "free disk space, or set CIFARML_CACHE_DIR")

    def flush(self) -> None:
        """Write the buffered blobs to the file."""
        with self._lock:
            try:
                with self._database:
                    self._database.executemany("REPLACE INTO blobs VALUES (?, ?, ?, ?)", self._unwritten)
            except sqlite3.Error as error:
                raise self._error(error) from error
            self._unwritten.clear()

    def close(self) -> None:
        """Close the database; blobs that were not flushed are lost."""
        with self._lock:
            self._database.close()
