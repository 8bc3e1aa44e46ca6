"""The cache of small blobs."""

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


def test_kept_blobs(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "small.sqlite"
    blobs = [blob(f"{number}.png") for number in range(1000)]
    with closing(BlobCache(path, "https://a/c")) as kept:
        assert kept.missing(blobs) == blobs
        for one in blobs[:700]:
            kept.add(one, one.name.encode())
        kept.flush()
    with closing(BlobCache(path, "https://a/c")) as kept, closing(BlobCache(path, "https://a/d")) as other:
        assert kept.missing(blobs) == blobs[700:]
        assert other.missing(blobs) == blobs
        assert kept.read(blobs[5]) == b"5.png"
        assert other.read(blobs[5]) is None
        newer = blob("5.png", "2")
        assert kept.missing([newer]) == [newer]
        kept.add(newer, b"new")
        kept.flush()
        assert kept.read(newer) == b"new"
        assert kept.read(blobs[5]) is None  # replaced
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM blobs").fetchone() == (700,)
    database.close()


def test_what_is_damaged_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "small.sqlite"
    checked = BlobInfo("x", 3, "1", sha256="ab" * 32)
    with closing(BlobCache(path, "https://a/c")) as kept:
        kept.add(checked, b"abc")
        kept.flush()
        assert kept.missing([checked]) == []
        assert kept.read(checked) is None
        assert kept.missing([checked]) == [checked]


@pytest.mark.parametrize("damage", ["text", "middle", "truncated", "empty"])
def test_a_damaged_file_is_thrown_away(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "small.sqlite"
    blobs = [blob(f"{number}.png") for number in range(300)]
    with closing(BlobCache(path, "https://a/c")) as kept:
        for one in blobs:
            kept.add(one, one.name.encode() * 100)
        kept.flush()
    content = path.read_bytes()
    damaged = {
        "text": b"not a database",
        "middle": content[:4096] + b"\xff" * (len(content) - 4096),
        "truncated": content[: len(content) // 2],
        "empty": b"",
    }
    path.write_bytes(damaged[damage])
    with closing(BlobCache(path, "https://a/c")) as kept:
        for one in kept.missing(blobs):
            kept.add(one, one.name.encode())
        kept.flush()
        kept.missing(blobs)
    with closing(BlobCache(path, "https://a/c")) as kept:
        assert not [one for one in blobs if (kept.read(one) or b"")[:4] not in {one.name.encode()[:4], b""}]


def test_many_threads_write(tmp_path: Path) -> None:
    path = tmp_path / "small.sqlite"

    def write(first: int) -> None:
        with closing(BlobCache(path, "https://a/c")) as kept:
            for number in range(first, first + 300):
                kept.add(blob(str(number)), b"abc")
            kept.flush()

    threads = [threading.Thread(target=write, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with closing(BlobCache(path, "https://a/c")) as kept:
        assert kept.missing([blob(str(number)) for number in range(600)]) == []


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't write") as caught:
        BlobCache(tmp_path / "file" / "small.sqlite", "https://a/c")
    assert "CIFARML_CACHE_DIR" in str(caught.value.hint)
    with closing(BlobCache(tmp_path / "x", "https://a/c")) as kept:
        kept._database.execute("PRAGMA max_page_count = 4")  # as full as a disk can be
        kept.add(blob("x", size_bytes=100_000), b"x" * 100_000)
        with pytest.raises(DataError, match="full"):
            kept.flush()
