"""SQLite cache of small blobs."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from cifarml.data.blob.blob_cache import BlobCache
from cifarml.data.blob.info import BlobInfo
from cifarml.errors import DataError


def blob(name: str, etag: str = "1", size_bytes: int = 3) -> BlobInfo:
    return BlobInfo(name, size_bytes, etag, md5=None, sha256=None)


def test_cache_keyed_by_container_name_and_etag(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "small.sqlite"
    blobs = [blob(f"{number}.png") for number in range(1000)]
    with closing(BlobCache(path, "https://a/c")) as cache:
        assert cache.missing(blobs) == blobs
        for one in blobs[:700]:
            cache.add(one, one.name.encode())
        cache.flush()
    with closing(BlobCache(path, "https://a/c")) as cache, closing(BlobCache(path, "https://a/d")) as other:
        assert cache.missing(blobs) == blobs[700:]
        assert other.missing(blobs) == blobs
        assert cache.read(blobs[5]) == b"5.png"
        assert other.read(blobs[5]) is None
        newer = blob("5.png", "2")
        assert cache.missing([newer]) == [newer]
        cache.add(newer, b"new")
        cache.flush()
        assert cache.read(newer) == b"new"
        assert cache.read(blobs[5]) is None  # replaced
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM blobs").fetchone() == (700,)
    database.close()


def test_corrupt_content_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "small.sqlite"
    checked = BlobInfo("x", 3, "1", sha256="ab" * 32)
    with closing(BlobCache(path, "https://a/c")) as cache:
        cache.add(checked, b"abc")
        cache.flush()
        assert cache.missing([checked]) == []
        assert cache.read(checked) is None
        assert cache.missing([checked]) == [checked]


@pytest.mark.parametrize("damage", ["text", "middle", "truncated", "empty"])
def test_corrupt_file_is_recreated(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "small.sqlite"
    blobs = [blob(f"{number}.png") for number in range(300)]
    with closing(BlobCache(path, "https://a/c")) as cache:
        for one in blobs:
            cache.add(one, one.name.encode() * 100)
        cache.flush()
    content = path.read_bytes()
    damaged = {
        "text": b"not a database",
        "middle": content[:4096] + b"\xff" * (len(content) - 4096),
        "truncated": content[: len(content) // 2],
        "empty": b"",
    }
    path.write_bytes(damaged[damage])
    with closing(BlobCache(path, "https://a/c")) as cache:
        for one in cache.missing(blobs):
            cache.add(one, one.name.encode())
        cache.flush()
        cache.missing(blobs)
    with closing(BlobCache(path, "https://a/c")) as cache:
        assert not [one for one in blobs if (cache.read(one) or b"")[:4] not in {one.name.encode()[:4], b""}]


def test_concurrent_writes_from_threads(tmp_path: Path) -> None:
    path = tmp_path / "small.sqlite"

    def write(first: int) -> None:
        with closing(BlobCache(path, "https://a/c")) as cache:
            for number in range(first, first + 300):
                cache.add(blob(str(number)), b"abc")
            cache.flush()

    threads = [threading.Thread(target=write, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with closing(BlobCache(path, "https://a/c")) as cache:
        assert cache.missing([blob(str(number)) for number in range(600)]) == []


def test_unwritable_or_full_disk_raises(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't write") as caught:
        BlobCache(tmp_path / "file" / "small.sqlite", "https://a/c")
    assert "CIFARML_CACHE_DIR" in str(caught.value.hint)
    with closing(BlobCache(tmp_path / "x", "https://a/c")) as cache:
        cache._database.execute("PRAGMA max_page_count = 4")  # simulates a full disk
        cache.add(blob("x", size_bytes=100_000), b"x" * 100_000)
        with pytest.raises(DataError, match="full"):
            cache.flush()
