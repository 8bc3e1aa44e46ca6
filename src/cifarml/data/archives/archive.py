"""Zip and tar archives, read and unpacked without trusting them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from cifarml.data.archives.limits import DAMAGED, ArchiveLimits
from cifarml.data.archives.tar_tree import GZIP_MAGIC, TarTree
from cifarml.data.archives.zip_tree import ZipTree
from cifarml.data.file_tree import FileTree
from cifarml.errors import ArchiveError, DataError, ImageError
from cifarml.progress import OnProgress, Progress, ignore_progress

_ZIP_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")


def is_archive(path: Path) -> bool:
    """Tell by its content whether a file is a zip, tar or tar.gz."""
    with path.open("rb") as file:
        head = file.read(512)
    return head.startswith((*_ZIP_MAGIC, GZIP_MAGIC)) or head[257:262] == b"ustar"


def open_archive(path: Path, *, limits: ArchiveLimits | None = None, origin: str = "") -> FileTree:
    """Open a .zip, .tar.gz or .tar for reading.

    Every name, type and size in it is checked before anything is read: paths that leave the archive,
    links, devices, encrypted or twice-named files, and more than ``limits`` allow, are refused.
    Archives within the archive are files like others and never opened. Errors name ``origin``, by default
    the path.

    Raises:
        ArchiveError: If it is damaged or unsafe.
        DataError: If it can't be read.
    """
    origin = origin or str(path)
    try:
        with path.open("rb") as file:
            head = file.read(4)
        kind = ZipTree if head in _ZIP_MAGIC else TarTree
        tree = kind(path, limits or ArchiveLimits())
    except ArchiveError as error:
        raise ArchiveError(f"{origin}: {error.message}", error.hint) from error
    except FileNotFoundError:
        raise DataError(f"there is no file {origin}") from None
    except PermissionError as error:
        raise DataError(f"can't read {origin}: {error.strerror}") from error
    except DAMAGED as error:
        raise ArchiveError(f"{origin}: damaged archive: {error or type(error).__name__}") from error
    tree.origin = origin
    return tree


def extract_archive(
    archive: Path,
    target: Path,
    *,
    limits: ArchiveLimits | None = None,
    on_progress: OnProgress = ignore_progress,
) -> list[Path]:
    """Unpack a .zip, .tar.gz or .tar into a new folder.

    The files are written beside the folder and it appears only when all are there, so an interrupted
    call leaves no half-filled folder. A target that exists must be empty.

    Returns:
        The files written.

    Raises:
        ArchiveError: If the archive is damaged or unsafe; nothing is left in ``target``.
        DataError: If the archive can't be read, or the folder can't be written.
    """
    with open_archive(archive, limits=limits) as tree:
        try:
            if target.exists() and not (target.is_dir() and not any(target.iterdir())):
                raise DataError(f"{target} already exists", hint="name a new folder, or empty this one")
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
                work = Path(temporary, "files")
                work.mkdir()
                for folder in sorted(tree.folders):
                    (work / folder).mkdir(parents=True, exist_ok=True)
                for done, name in enumerate(tree.files, 1):
                    try:
                        content = tree.read(name)
                    except ImageError as error:
                        raise ArchiveError(f"{archive}: {name}: {error.message}") from error
                    (work / name).write_bytes(content)
                    on_progress(Progress("unpacking", done, len(tree.files), unit="files"))
                if target.exists():
                    target.rmdir()
                work.rename(target)
        except OSError as error:
            raise DataError(f"can't write {target}: {error.strerror or error}") from error
        return [target / name for name in tree.files]
