"""A container of Azure Blob Storage: list, download, upload."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

from cifarml.data.blob.address import BlobAddress
from cifarml.data.blob.client import open_access
from cifarml.data.blob.download import (
    PART_BYTES,
    download_blob,
    download_small,
    has_content,
    read_small,
)
from cifarml.data.blob.errors import overwrite_error, translate_errors
from cifarml.data.blob.http import ChangedError, Wire
from cifarml.data.blob.info import BlobInfo
from cifarml.data.blob.transfer_progress import Tally, in_threads
from cifarml.data.blob.upload import SMALL_BYTES, upload_large, upload_small
from cifarml.errors import CloudError, DataError
from cifarml.progress import OnProgress, ignore_progress
from cifarml.settings import Settings, load_settings

__all__ = ["BlobStore", "Upload"]


class Upload(NamedTuple):
    """What an upload did.

    Attributes:
        names: The blobs, whether sent now or there already.
        num_sent: How many were sent.
        sent_bytes: How much was sent.
        saved_bytes: How much was there already and was not sent again.
    """

    names: tuple[str, ...]
    num_sent: int
    sent_bytes: int
    saved_bytes: int


class BlobStore:
    """One container of Azure Blob Storage, with azure-storage-blob behind it.

    Signs in with DefaultAzureCredential (``az login``), or with AZURE_STORAGE_CONNECTION_STRING,
    AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_KEY where one of them is set. Nothing is sent before the
    first call of a method.

    Args:
        address: ``az://CONTAINER`` or ``https://ACCOUNT.blob.core.windows.net/CONTAINER``; what follows
            the container does not matter here.
        settings: Which account, and how to sign in; from the environment when left out.
        on_progress: Called while bytes go and come, and when the service lets us wait.
        timeout_s: How long to wait for the next bytes of an answer.
        retry_wait_s: How long to wait before a second try; doubled for each further one.

    Raises:
        DataError: If the address is none.
        SettingsError: If no account is set, or its secret is malformed.

    Example:
        >>> store = BlobStore("az://2000picscifar10")  # doctest: +SKIP
        >>> store.upload({"2000pics_cifar10.zip": Path("2000pics_cifar10.zip")})  # doctest: +SKIP
        >>> [blob.name for blob in store.list_blobs()]  # doctest: +SKIP
        ['2000pics_cifar10.zip']
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
        self._settings = settings or load_settings()
        self._on_progress = on_progress
        self._tally = Tally(on_progress, "asking Azure Storage")
        waits: dict[str, Any] = {
            "on_wait": self._on_wait,
            "timeout_s": timeout_s,
            "retry_wait_s": retry_wait_s,
        }
        self._access = open_access(self.address, self._settings, **waits)
        self._container = self._access.service.get_container_client(self._access.container)
        self._wire = Wire(self._access, **waits)

    @property
    def url(self) -> str:
        """URL of the container, without any secret."""
        return self._access.url

    @property
    def auth_method(self) -> str:
        """How requests are authenticated, for people to read; never a secret."""
        return self._access.auth_method

    def list_blobs(self, prefix: str = "") -> list[BlobInfo]:
        """List the blobs whose names begin with ``prefix``, sorted by name.

        Raises:
            CloudError: If the container is not there, or the service refuses.
        """
        found = (blob for blob in self._wire.list_blobs(prefix) if not blob.is_folder)
        return sorted(found, key=lambda blob: blob.name)

    def find(self, name: str) -> BlobInfo | None:
        """Look a blob up by its name; None where there is none.

        Raises:
            CloudError: If the container is not there, or the service refuses.
        """
        with translate_errors(self._access, f"look at {self.address.at(name)}"):
            try:
                info = BlobInfo.of(self._container.get_blob_client(name).get_blob_properties())
            except ResourceNotFoundError as error:
                if getattr(error, "error_code", "") == "BlobNotFound":
                    return None
                raise
        return None if info.is_folder else info

    def find_all(self, name: str) -> tuple[str | None, list[BlobInfo]]:
        """Find the blob of that name, or else all blobs in the folder of that name.

        Returns:
            What the names of all of them begin with, or None where it is the blob itself; and the blobs.

        Raises:
            CloudError: If there is neither, or the service refuses.
        """
        blob = self.find(name) if name and not name.endswith("/") else None
        if blob:
            return None, [blob]
        prefix = name.rstrip("/") + "/" if name else ""
        blobs = self.list_blobs(prefix)
        if not blobs:
            raise self._missing(name, ", and none under it")
        return prefix, blobs

    def read(self, blobs: Sequence[BlobInfo], keep: Callable[[BlobInfo, bytes], None]) -> None:
        """Read blobs of at most 4 MiB each, several at a time.

        Args:
            blobs: What :meth:`list_blobs` gave.
            keep: Called with each blob and its content, checked, from several threads.

        Raises:
            CloudError: If one can't be had, or has changed since it was listed; others were kept.
        """
        total_bytes = sum(blob.size_bytes for blob in blobs)
        tally = self._tally = Tally(self._on_progress, "downloading", total_bytes, len(blobs))

        def read(blob: BlobInfo) -> None:
            try:
                keep(blob, read_small(self._wire, blob))
            except ChangedError:
                raise CloudError(
                    f"can't read {self.address.at(blob.name)}: it changed, or does not match its hash",
                    "try again, or upload it again: cifarml data upload FILE",
                ) from None
            tally.add(blob.size_bytes, 1)

        in_threads(read, blobs)

    def download(self, blobs: Iterable[tuple[str | BlobInfo, Path]]) -> int:
        """Bring blobs into files, several at a time; files with the same content stay as they are.

        A file appears only when it is whole and its hash is right. Interrupted, a large one leaves
        ``<file>.<tag>.partial``, which the next call takes up.

        Args:
            blobs: A name, or what :meth:`list_blobs` gave, and the file for it.

        Returns:
            How many bytes were fetched.

        Raises:
            CloudError: If one can't be had, or does not match its hash; those that came are kept.
            DataError: If a file can't be written.
        """
        wanted = [(blob if isinstance(blob, BlobInfo) else self._now(blob), path) for blob, path in blobs]
        total_bytes = sum(info.size_bytes for info, _ in wanted)
        tally = self._tally = Tally(self._on_progress, "downloading", total_bytes, len(wanted))

        def fetch(pair: tuple[BlobInfo, Path]) -> int:
            info, path = pair
            if has_content(path, info):
                tally.add(info.size_bytes, 1)
                return 0
            if info.size_bytes <= PART_BYTES:
                with suppress(ChangedError):  # then ask what it is now, below
                    download_small(self._wire, info, path)
                    tally.add(info.size_bytes, 1)
                    return info.size_bytes
            lock = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]
            fetched = download_blob(
                self._wire,
                info,
                lambda: self._now(info.name),
                path,
                lock=self._settings.cache_dir / "locks" / lock,
                on_bytes=tally.add,
            )
            tally.add(0, 1)
            return fetched

        try:
            for folder in {path.parent for _, path in wanted}:
                folder.mkdir(parents=True, exist_ok=True)
            if len(wanted) == 1:
                return fetch(wanted[0])
            return sum(in_threads(fetch, wanted))
        except OSError as error:
            name = error.filename or "the files"
            raise DataError(
                f"can't write {name}: {error.strerror or error}", "what has arrived is kept; try again"
            ) from error

    def upload(self, files: dict[str, Path], *, overwrite: bool = False) -> Upload:
        """Write files to blobs, several at a time; what is there with the same content is not sent again.

        The container is made, private, where it is missing. The SHA-256 of each file is kept beside it.
        Interrupted, a large file goes on where it was.

        Args:
            files: For each name of a blob, the file.
            overwrite: Replace blobs that hold other content; otherwise nothing is sent if there are any.

        Returns:
            What was done.

        Raises:
            CloudError: If the service refuses, or can't be reached; what was sent is kept.
            DataError: If a blob holds other content, or a file can't be read.
        """
        try:
            sizes = {name: path.stat().st_size for name, path in files.items()}
            tally = self._tally = Tally(self._on_progress, "uploading", sum(sizes.values()), len(files))
            there = self._there(list(files))
            same = dict(
                in_threads(
                    lambda name: (name, has_content(files[name], there[name])),
                    [name for name in files if name in there],
                )
            )
            other = [str(self.address.at(name)) for name, is_same in same.items() if not is_same]
            if other and not overwrite:
                raise overwrite_error(other)

            def send(name: str) -> tuple[int, int]:
                if same.get(name):
                    tally.add(sizes[name], 1)
                    return 0, sizes[name]
                old = there.get(name)
                saved = self._send(files[name], name, sizes[name], old.etag if old else None, tally)
                tally.add(0, 1)
                return sizes[name] - saved, saved

            done = in_threads(send, files) if len(files) > 1 else [send(name) for name in files]
        except OSError as error:
            raise DataError(
                f"can't read {error.filename}: {error.strerror or error}", "what was sent is kept; try again"
            ) from error
        sent, saved = [sum(figures) for figures in zip(*done, strict=True)] if done else (0, 0)
        return Upload(tuple(files), sum(not same.get(name) for name in files), sent, saved)

    def delete(self, name: str) -> None:
        """Delete a blob.

        Raises:
            CloudError: If it is not there, or the service refuses.
        """
        with translate_errors(self._access, f"delete {self.address.at(name)}"):
            self._container.delete_blob(name)

    def _on_wait(self, wait_s: float, reason: str) -> None:
        self._tally.wait(wait_s, reason)

    def _now(self, name: str) -> BlobInfo:
        info = self.find(name)
        if info is None:
            raise self._missing(name)
        return info

    def _missing(self, name: str, besides: str = "") -> CloudError:
        return CloudError(
            f"there is no blob {self.address.at(name)}{besides}",
            f"see what is there: cifarml data list {self.address.at('')}",
            code="BlobNotFound",
        )

    def _there(self, names: list[str]) -> dict[str, BlobInfo]:
        """Return those of the blobs that are there; make the container if it is not."""
        try:
            if len(names) == 1:
                info = self.find(names[0])
                return {info.name: info} if info else {}
            common = names[0] if names else ""
            while not all(name.startswith(common) for name in names):
                common = common[:-1]
            return {info.name: info for info in self.list_blobs(common)}
        except CloudError as error:
            if error.code != "ContainerNotFound":
                raise
        with translate_errors(self._access, f"make the container {self._access.container}"):
            try:
                self._container.create_container()
            except ResourceExistsError as error:
                if (
                    getattr(error, "error_code", "") != "ContainerAlreadyExists"
                ):  # such as ContainerBeingDeleted
                    raise
        return {}

    def _send(self, path: Path, name: str, size_bytes: int, etag: str | None, tally: Tally) -> int:
        """Write one file; return how many of its bytes were there already."""
        saved = 0
        try:
            if size_bytes <= SMALL_BYTES:
                upload_small(self._wire, path, name, etag=etag)
                tally.add(size_bytes)
            else:
                with translate_errors(self._access, f"write {self.address.at(name)}"):
                    blob = self._container.get_blob_client(name)
                    saved = upload_large(blob, path, etag=etag, on_bytes=tally.add)
        except ChangedError:
            # Somebody else was quicker; or we were, and the answer to a first try was lost.
            info = self.find(name)
            if info is None or not has_content(path, info):
                raise overwrite_error([str(self.address.at(name))]) from None
        return saved

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()
        self._access.service.close()
