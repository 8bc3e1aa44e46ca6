"""MLflow's SQLite file: made where there is none, opened, and written to all at once or not at all.

MLflow makes the tables and shows what is in them. We read and write them with plain SQL: MLflow's own
client takes seconds to import, and can't write a version with its run and alias in one transaction.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from cifarml.errors import RegistryError
from cifarml.settings import hush_mlflow

__all__ = ["Database"]

_FILE: Final = "mlflow.db"
_TIMEOUT_S: Final = 60
_HINTS: Final = {
    "locked": "another program is writing to it; try again when it is done",
    "full": "make room on that disk, and try again",
    "disk I/O": "make room on that disk, and try again",
    "no such": "is it MLflow's? Move it away, or set CIFARML_REGISTRY_DIR to another folder",
    "readonly": "make it writable, or set CIFARML_REGISTRY_DIR to another folder",
    "": "fetch it from a backup, or move it away to begin anew; the models' files beside it stay as they are",
}


class Database:
    """The file ``mlflow.db`` in a folder. Nothing is made before something is written.

    Args:
        folder: Where it lies, and the lock beside it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / _FILE
        self._lock = FileLock(folder / ".lock", timeout=_TIMEOUT_S)

    @property
    def exists(self) -> bool:
        """Whether anything was ever written."""
        return self.path.exists()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open it to read; the columns of a row are found by name.

        Raises:
            RegistryError: If it can't be read.
        """
        with self._translated("read"), closing(self._connect()) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open one transaction: all that the block writes is kept at its end, or nothing at all.

        Raises:
            RegistryError: If it can't be written; then nothing was.
        """
        if not self.exists:
            with self.locked():
                self._create()
        with self._translated("write"), closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection  # where an error ends the block, closing takes all of it back
            connection.execute("COMMIT")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder alone, against other processes; a process that dies lets it go.

        Raises:
            RegistryError: If another one holds it for a minute, or the folder can't be written.
        """
        with self._translated("write"):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout:
                raise RegistryError(
                    f"another process has been writing to the registry in {self.folder} for a minute",
                    hint="wait for it, or end it, and try again",
                ) from None
            try:
                yield
            finally:
                self._lock.release()

    def _connect(self) -> sqlite3.Connection:
        uri = f"{self.path.resolve().as_uri()}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=_TIMEOUT_S, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _create(self) -> None:
        """Have MLflow make its tables elsewhere, and put them in place whole."""
        if self.exists:
            return
        with tempfile.TemporaryDirectory() as folder:
            made, partial = Path(folder, _FILE), self.folder / f".{_FILE}.partial"
            _create_tables(made, artifacts=self.folder / "artifacts")
            shutil.copyfile(made, partial)
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(self.path)

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            hint = next(hint for part, hint in _HINTS.items() if part in str(error))
            raise RegistryError(f"can't {verb} {self.path}: {error}", hint) from error
        except OSError as error:
            raise RegistryError(
                f"can't {verb} the registry in {self.folder}: {error.strerror or error}",
                hint="give it room and rights there, or set CIFARML_REGISTRY_DIR to another folder",
            ) from error


def _create_tables(path: Path, artifacts: Path) -> None:
    """Make an MLflow database. It takes MLflow seconds, and is done once on a machine."""
    hush_mlflow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SQLAlchemy complains of the way MLflow uses it
        from mlflow.exceptions import MlflowException
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
        from sqlalchemy.exc import SQLAlchemyError

        loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)  # what goes wrong is in our own error
        try:
            store: Any = SqlAlchemyStore
            store(f"sqlite:///{path}", str(artifacts)).engine.dispose()
        except (MlflowException, SQLAlchemyError) as error:
            raise RegistryError(
                f"MLflow can't make its tables in {path.parent}: {error}",
                hint="give that disk some room, and try again",
            ) from error
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
