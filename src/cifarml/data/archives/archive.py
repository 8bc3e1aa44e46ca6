"""Safe reading and extraction of untrusted zip and tar archives."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from cifarml.data.archives.limits import DAMAGED, ArchiveLimits, check_collisions
from cifarml.data.archives.tar_tree import GZIP_MAGIC, TarTree
from cifarml.data.archives.zip_tree import ZipTree
from cifarml.data.file_tree import FileTree
from cifarml.errors import ArchiveError, DataError, ImageError
from cifarml.progress import OnProgress, Progress, ignore_progress

_ZIP_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")


def is_archive(path: Path) -> bool:
    """Return whether a file is a zip, tar or tar.gz archive, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(512)
    return head.startswith((*_ZIP_MAGIC, GZIP_MAGIC)) or head[257:262] == b"ustar"


def open_archive(path: Path, *, limits: ArchiveLimits | None = None, origin: str = "") -> FileTree:
    """Open a .zip, .tar.gz or .tar for reading.

    All names, types and sizes are checked before any content is read. Path traversal, links, devices,
    encrypted files, duplicate names and archives beyond `limits` are rejected. Nested archives are treated
    as plain files and never opened.

    Args:
        path: The archive; its format is detected from its first bytes.
        limits: Maximum number and sizes of files; `ArchiveLimits()` if omitted.
        origin: Name of the archive in error messages; the path if omitted.

    Returns:
        The files of the archive, to be closed by the caller.

    Raises:
        ArchiveError: If the archive is damaged or unsafe.
        DataError: If the file is missing or can't be read.
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
        raise DataError(f"no such file: {origin}") from None
    except PermissionError as error:
        raise DataError(f"can't read {origin}: {error.strerror}") from error
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno:
            raise DataError(f"can't read {origin}: {error.strerror}") from error
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
    """Extract a .zip, .tar.gz or .tar into a new folder.

    The operation is atomic: files are written to a temporary folder next to the target, which is renamed
    when complete. An existing target must be empty.

    Returns:
        The paths of the extracted files.

    Raises:
        ArchiveError: If the archive is damaged or unsafe, or names collide on some file systems; `target` is
            not created.
        DataError: If the archive can't be read, or the folder can't be written.
    """
    with open_archive(archive, limits=limits) as tree:
        try:
            check_collisions((*tree.folders, *tree.files))
        except ArchiveError as error:
            raise ArchiveError(f"{archive}: {error.message}", error.hint) from error
        try:
            if target.exists() and not (target.is_dir() and not any(target.iterdir())):
                raise DataError(f"{target} already exists", hint="choose a new folder, or empty this one")
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
