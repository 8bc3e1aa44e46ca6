"""Clients for many small blobs: ``python -m tests.benchmarks.blob_clients CLIENT CONTAINER FOLDER COUNT``.

Prints wall-clock seconds and CPU seconds of the process, imports excluded. The peers run in an environment
without cifarml, so this module imports only the standard library at the top.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

THREADS = 8
BATCH = 32
CONNECTION = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")


class Timer:
    """Timer of wall-clock and CPU seconds."""

    def start(self) -> None:
        """Start the timer, after all imports."""
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __str__(self) -> str:
        return f"{time.perf_counter() - self._wall} {time.process_time() - self._cpu}"


timer = Timer()


def sdk_read(container: str, folder: str) -> int:
    """Read with azure-storage-blob: one client shared by 8 threads, unverified, into memory."""
    from azure.storage.blob import ContainerClient

    timer.start()
    with (
        ContainerClient.from_connection_string(CONNECTION, container) as client,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        names = [blob.name for blob in client.list_blobs(name_starts_with=f"{folder}/")]
        contents = list(pool.map(lambda name: client.download_blob(name).readall(), names))
    return len(contents)


def adlfs_read(container: str, folder: str) -> int:
    """Read with adlfs, unverified, into memory.

    Its ``cat`` reads one blob at a time, and ``_cat`` with a list of names first checks that each exists, so
    this is its fastest call. ``omit`` ignores the error for the folder itself, which it also tries to read.
    """
    import adlfs  # type: ignore[import-not-found]

    async def read() -> int:
        files = adlfs.AzureBlobFileSystem(connection_string=CONNECTION, asynchronous=True)
        path = f"{container}/{folder}"
        return len(await files._cat(path, recursive=True, on_error="omit", batch_size=BATCH))

    timer.start()
    return asyncio.run(read())


def our_read(container: str, folder: str) -> int:
    """Read with BlobStore: 8 threads, verified by hash, into memory."""
    from cifarml.data.blob.store import BlobStore

    timer.start()
    contents: list[bytes] = []
    with BlobStore(f"az://{container}") as store:
        store.read(store.list_blobs(f"{folder}/"), lambda _, content: contents.append(content))
    return len(contents)


def sdk_write(container: str, folder: str) -> int:
    """Write with azure-storage-blob: one client shared by 8 threads."""
    from azure.storage.blob import ContainerClient

    timer.start()
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    with (
        ContainerClient.from_connection_string(CONNECTION, container) as client,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        client.create_container()
        list(pool.map(lambda path: client.upload_blob(f"images/{path.name}", path.read_bytes()), paths))
    return len(paths)


def our_write(container: str, folder: str) -> int:
    """Write with upload_path: 8 threads, with hashes, without overwriting other content."""
    from cifarml.data.blob.transfer import upload_path

    timer.start()
    return upload_path(folder, f"az://{container}/images")[1].num_sent


CLIENTS = {client.__name__: client for client in (our_read, sdk_read, adlfs_read, our_write, sdk_write)}

if __name__ == "__main__":
    _, name, container, folder, count = sys.argv
    done = CLIENTS[name](container, folder)
    print(timer)
    assert done == int(count), done
