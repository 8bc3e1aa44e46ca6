"""Client for a container of Azure Blob Storage: list, download, upload, delete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

from cifarml.data.blob.address import BlobAddress
from cifarml.data.blob.client import open_access
from cifarml.data.blob.download import download_blob, has_content, read_small
from cifarml.data.blob.errors import overwrite_error, translate_errors
from cifarml.data.blob.info import BlobInfo, ChangedError
from cifarml.data.blob.transfer_progress import TransferProgress, map_in_threads
from cifarml.data.blob.upload import Upload, upload_blob
from cifarml.errors import CloudError, DataError
from cifarml.progress import OnProgress, ignore_progress
from cifarml.settings import Settings, load_settings


class BlobStore:
    """Client for a container of Azure Blob Storage, usable as a context manager.

    Authenticates with `DefaultAzureCredential` (`az login`, managed identity), or with
    AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_KEY if one of them is set. The
    first request is sent by the first method call. Failed requests are retried with exponential backoff.

    Args:
        address: `az://CONTAINER` or `https://ACCOUNT.blob.core.windows.net/CONTAINER`; a blob name after the
            container is ignored.
        settings: Storage account and credentials; default: from the environment.
        on_progress: Called during transfers, and before a request is retried.
        timeout_s: Read timeout of a request, in seconds.
        retry_wait_s: Seconds before the first retry, doubled for each further one.

    Raises:
        DataError: If the address is invalid.
        SettingsError: If no account is set, or a secret is malformed.

    Example:
        ```python
        from pathlib import Path

        from cifarml import BlobStore

        with BlobStore("az://2000picscifar10") as store:
            store.upload({"2000pics_cifar10.zip": Path("2000pics_cifar10.zip")})
            store.download([("2000pics_cifar10.zip", Path("copy.zip"))])
            print([blob.name for blob in store.list_blobs()])
        ```
    """

    def __init__(
        self,
        address: str | BlobAddress,
        *,
        settings: Settings | None = None,
        on_progress: OnProgress = ignore_progress,
        timeout_s: float = 60,
        retry_wait_s: float = 0.8,
    ) -> None:
        self.address = BlobAddress.parse(address) if isinstance(address, str) else address
        settings = settings or load_settings()
        self._locks = settings.cache_dir / "locks"
        self._on_progress = on_progress
        self._progress = TransferProgress(on_progress, "contacting Azure Storage")
        self._access = open_access(
            self.address, settings, on_wait=self._on_wait, timeout_s=timeout_s, retry_wait_s=retry_wait_s
        )
        self._container = self._access.service.get_container_client(self._access.container)

    @property
    def url(self) -> str:
        """URL of the container, without secrets."""
        return self._access.url

    def list_blobs(self, prefix: str = "") -> list[BlobInfo]:
        """List the blobs whose names start with a prefix.

        Args:
            prefix: Start of the names; default: all blobs.

        Returns:
            The properties of the blobs, sorted by name.

        Raises:
            CloudError: If the container does not exist, or the service refuses the request.
        """
        with translate_errors(self._access, f"list {self.url}/{prefix}"):
            listed = self._container.list_blobs(name_starts_with=prefix or None, include=["metadata"])
            blobs = [BlobInfo.of(properties) for properties in listed]
        return sorted((blob for blob in blobs if not blob.is_folder), key=lambda blob: blob.name)

    def find(self, name: str) -> BlobInfo | None:
        """Look up a blob by its name.

        Args:
            name: Name in the container.

        Returns:
            The properties of the blob, or None if it does not exist.

        Raises:
            CloudError: If the container does not exist, or the service refuses the request.
        """
        with translate_errors(self._access, f"look up {self.address.at(name)}"):
            try:
                info = BlobInfo.of(self._container.get_blob_client(name).get_blob_properties())
            except ResourceNotFoundError as error:
                if getattr(error, "error_code", "") == "BlobNotFound":
                    return None
                raise
        return None if info.is_folder else info

    def find_all(self, name: str) -> tuple[str | None, list[BlobInfo]]:
        """Find the blob with a name, or all blobs in the folder with that name.

        Args:
            name: Name of a blob or folder; empty for the whole container.

        Returns:
            The common prefix of the names (None for a single blob), and the blobs.

        Raises:
            CloudError: If neither exists, or the service refuses the request.
        """
        blob = self.find(name) if name and not name.endswith("/") else None
        if blob:
            return None, [blob]
        prefix = name.rstrip("/") + "/" if name else ""
        blobs = self.list_blobs(prefix)
        if not blobs:
            raise self._missing_error(name, " or under it")
        return prefix, blobs

    def read(self, blobs: Sequence[BlobInfo], keep: Callable[[BlobInfo, bytes], None]) -> None:
        """Read blobs of at most 4 MiB each into memory, concurrently.

        Args:
            blobs: Items of `list_blobs`.
            keep: Called with each blob and its verified content, from several threads.

        Raises:
            CloudError: If a blob can't be read, or has changed since it was listed.
        """
        progress = self._start_progress("downloading", [blob.size_bytes for blob in blobs])

        def read(blob: BlobInfo) -> None:
            with translate_errors(self._access, f"read {self.address.at(blob.name)}"):
                content = read_small(self._container, blob)
            keep(blob, content)
            progress.add(blob.size_bytes, 1)

        for _ in map_in_threads(read, blobs):
            pass

    def download(self, blobs: Iterable[tuple[str | BlobInfo, Path]]) -> int:
        """Download blobs to files, concurrently; skip files that already have the same content.

        Each file is created atomically after its hash was verified. An interrupted download of a large blob
        leaves `<file>.<tag>.partial`, which the next call resumes.

        Args:
            blobs: Pairs of a blob (its name or an item of `list_blobs`) and the path of its file.

        Returns:
            Number of bytes downloaded.

        Raises:
            CloudError: If a blob can't be read, or does not match its hash; finished files are kept.
            DataError: If a file can't be written.
        """
        wanted = [
            (blob if isinstance(blob, BlobInfo) else self._find_one(blob), path) for blob, path in blobs
        ]
        progress = self._start_progress("downloading", [info.size_bytes for info, _ in wanted])

        def fetch(pair: tuple[BlobInfo, Path]) -> int:
            info, path = pair
            lock = self._locks / hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]
            with translate_errors(self._access, f"read {self.address.at(info.name)}"):
                fetched_bytes = download_blob(
                    self._container,
                    info,
                    partial(self._find_one, info.name),
                    path,
                    lock=lock,
                    on_bytes=progress.add,
                )
            progress.add(0, 1)
            return fetched_bytes

        return sum(map_in_threads(fetch, wanted))

    def upload(self, files: dict[str, Path], *, overwrite: bool = False) -> Upload:
        """Upload files to blobs, concurrently; skip blobs that already have the same content.

        Creates the container, without public access, if it does not exist. Stores the SHA-256 of each file in
        the blob's metadata. An interrupted upload of a large file is resumed by the next call.

        Args:
            files: Path of the file for each blob name.
            overwrite: Replace blobs with different content; by default, they are an error.

        Returns:
            The blobs, and the bytes sent and already present.

        Raises:
            CloudError: If the service refuses a request, or can't be reached; uploaded data is kept.
            DataError: If a blob has different content, or a file can't be read.
        """
        try:
            sizes = {name: path.stat().st_size for name, path in files.items()}
            progress = self._start_progress("uploading", list(sizes.values()))
            there = self._find_existing(list(files))
            compared = map_in_threads(lambda name: has_content(files[name], there[name]), there)
            same = dict(zip(there, compared, strict=True))
            other = [str(self.address.at(name)) for name, is_same in same.items() if not is_same]
            if other and not overwrite:
                raise overwrite_error(other)

            def send(name: str) -> int:
                if same.get(name):
                    progress.add(sizes[name], 1)
                    return sizes[name]
                etag = there[name].etag if name in there else None
                saved_bytes = self._upload_file(name, files[name], etag, progress.add)
                progress.add(0, 1)
                return saved_bytes

            saved_bytes = sum(map_in_threads(send, files))
        except OSError as error:
            raise DataError(
                f"can't read {error.filename}: {error.strerror or error}", "try again; uploaded data is kept"
            ) from error
        num_sent = sum(not same.get(name) for name in files)
        return Upload(tuple(files), num_sent, sum(sizes.values()) - saved_bytes, saved_bytes)

    def delete(self, name: str) -> None:
        """Delete a blob.

        Args:
            name: Name in the container.

        Raises:
            CloudError: If it does not exist, or the service refuses the request.
        """
        with translate_errors(self._access, f"delete {self.address.at(name)}"):
            self._container.delete_blob(name)

    def _find_one(self, name: str) -> BlobInfo:
        info = self.find(name)
        if info is None:
            raise self._missing_error(name)
        return info

    def _missing_error(self, name: str, besides: str = "") -> CloudError:
        return CloudError(
            f"no blob exists at {self.address.at(name)}{besides}",
            f"list the blobs: cifarml data list {self.address.at('')}",
            code="BlobNotFound",
        )

    def _find_existing(self, names: list[str]) -> dict[str, BlobInfo]:
        """Return the blobs that exist; create the container if it does not exist."""
        try:
            if len(names) == 1:
                info = self.find(names[0])
                return {info.name: info} if info else {}
            prefix = os.path.commonprefix(names)  # noqa: RUF071 - of names, not of paths
            listed = {info.name: info for info in self.list_blobs(prefix)}
            return {name: listed[name] for name in names if name in listed}
        except CloudError as error:
            if error.code != "ContainerNotFound":
                raise
        with translate_errors(self._access, f"create container {self._access.container}"):
            try:
                self._container.create_container()
            except ResourceExistsError as error:  # or ContainerBeingDeleted
                if getattr(error, "error_code", "") != "ContainerAlreadyExists":
                    raise
        return {}

    def _upload_file(self, name: str, path: Path, etag: str | None, on_bytes: Callable[[int], None]) -> int:
        """Upload one file; return the number of bytes that were already staged."""
        with translate_errors(self._access, f"write {self.address.at(name)}"):
            try:
                blob = self._container.get_blob_client(name)
                return upload_blob(blob, path, etag=etag, on_bytes=on_bytes)
            except ChangedError:
                # Another process was faster, or the response to a successful attempt was lost.
                info = self.find(name)
                if info is None or not has_content(path, info):
                    raise overwrite_error([str(self.address.at(name))]) from None
                return 0

    def _start_progress(self, task: str, sizes: Sequence[int]) -> TransferProgress:
        self._progress = TransferProgress(self._on_progress, task, sum(sizes), len(sizes))
        return self._progress

    def _on_wait(self, wait_s: float, reason: str) -> None:
        self._progress.wait(wait_s, reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._access.service.close()
