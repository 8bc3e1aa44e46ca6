"""Upload and download files and folders to and from Azure Blob Storage."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from cifarml.data.archives.limits import ArchiveLimits, MemberValidator
from cifarml.data.blob.address import BlobAddress
from cifarml.data.blob.download import has_content
from cifarml.data.blob.errors import overwrite_error
from cifarml.data.blob.info import BlobInfo
from cifarml.data.blob.store import BlobStore
from cifarml.data.blob.upload import Upload
from cifarml.data.file_tree import Folder
from cifarml.errors import ArchiveError, DataError
from cifarml.paths import expand_home
from cifarml.progress import OnProgress, ignore_progress
from cifarml.settings import Settings, load_settings

_LIMITS: Final = ArchiveLimits(max_total_bytes=2**60, max_file_bytes=2**60, max_ratio=float("inf"))


class Download(NamedTuple):
    """Result of a download.

    Attributes:
        paths: All files, including those that were already up to date.
        fetched_bytes: Bytes downloaded by this call.
        saved_bytes: Bytes that were already present.
    """

    paths: tuple[Path, ...]
    fetched_bytes: int
    saved_bytes: int


def upload_path(
    path: str | Path,
    destination: str = "",
    *,
    overwrite: bool = False,
    settings: Settings | None = None,
    on_progress: OnProgress = ignore_progress,
) -> tuple[BlobAddress, Upload]:
    """Upload a file, or all files of a folder except hidden ones.

    The destination is ``az://CONTAINER/NAME``; a name that ends in ``/`` is a folder for the file.
    Default: the container of the settings, with the name of the file or folder.

    Returns:
        The address for :func:`cifarml.load_dataset`, and the result of the upload.

    Raises:
        DataError: If there is nothing to upload, or a blob exists with different content.
        CloudError: If Azure Storage refuses a request, or can't be reached.
    """
    settings = settings or load_settings()
    address = BlobAddress.parse(destination or f"az://{settings.storage_container}")
    try:
        path = expand_home(path).resolve(strict=True)
        is_folder = path.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name; circular links
        raise DataError(
            f"can't read {str(path)[:300]!r}: {getattr(error, 'strerror', None) or error}"
        ) from error
    if is_folder:
        address = address.at(address.name.rstrip("/") if address.name.strip("/") else path.name)
        found = [name for name in Folder(path).files if not any(p.startswith(".") for p in name.split("/"))]
        files = {f"{address.name}/{name}": path / name for name in found}
    else:
        if not address.name or address.name.endswith("/"):
            address = address.at(address.name + path.name)
        files = {address.name: path}
    if not files:
        raise DataError(f"no files to upload in {path}", "hidden files are not uploaded")
    for name in files:
        address.at(name)  # raises if the name is invalid
    with BlobStore(address, settings=settings, on_progress=on_progress) as store:
        return address, store.upload(files, overwrite=overwrite)


def download_path(
    source: str,
    target: str | Path,
    *,
    overwrite: bool = False,
    settings: Settings | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Download:
    """Download a blob to a file, or all blobs of a folder to a folder.

    The target is created if it does not exist. A single blob keeps its name in an existing folder.

    Raises:
        DataError: If a file exists with different content or can't be written, or a name is unsafe.
        CloudError: If the blob does not exist, or Azure Storage refuses a request or can't be reached.
    """
    address, target = BlobAddress.parse(source), expand_home(target)
    with BlobStore(address, settings=settings, on_progress=on_progress) as store:
        wanted = _plan_downloads(store, address, target)
        if not overwrite:
            other = [str(path) for blob, path in wanted if path.exists() and not has_content(path, blob)]
            if other:
                raise overwrite_error(other)
        fetched_bytes = store.download(wanted)
        total_bytes = sum(blob.size_bytes for blob, _ in wanted)
        return Download(tuple(path for _, path in wanted), fetched_bytes, total_bytes - fetched_bytes)


def _plan_downloads(store: BlobStore, address: BlobAddress, target: Path) -> list[tuple[BlobInfo, Path]]:
    prefix, blobs = store.find_all(address.name)
    if prefix is None:
        blob = blobs[0]
        return [(blob, target / blob.name.rpartition("/")[2] if target.is_dir() else target)]
    members = MemberValidator(1, _LIMITS)  # a blob may have a name that is unsafe as a path
    try:
        return [
            (blob, target / members.add(blob.name[len(prefix) :], blob.size_bytes, is_folder=False))
            for blob in blobs
        ]
    except ArchiveError as error:
        raise DataError(f"can't download {address} to a folder: {error.message}") from error
