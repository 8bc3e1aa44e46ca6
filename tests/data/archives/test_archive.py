"""Safe reading and extraction of valid, hostile and damaged zip and tar archives."""

from __future__ import annotations

import gzip
import io
import os
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cifarml import load_dataset
from cifarml.data.archives.archive import extract_archive, is_archive, open_archive
from cifarml.data.archives.limits import ArchiveLimits
from cifarml.data.load import open_source
from cifarml.errors import ArchiveError, DataError, ImageError
from cifarml.progress import Progress
from tests.image_files import flat, image_contents, write_tar, write_zip

FILES = image_contents(["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"])
KINDS = {"a.zip": write_zip, "a.tar.gz": write_tar, "a.tar": write_tar}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(folder: Path, kind: str, files: Mapping[str, bytes]) -> Path:
    return KINDS[kind](folder / kind, files)


def assert_rejected(archive: Path, message: str, limits: ArchiveLimits | None = None) -> None:
    """Check that opening and extracting raise an error that names the archive, and write nothing."""
    parent = archive.parent / "parent"
    parent.mkdir()
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(ArchiveError, match=message) as caught:
        open_archive(archive, limits=limits)
    assert str(caught.value).startswith(str(archive))
    with pytest.raises(ArchiveError, match=message):
        extract_archive(archive, parent / "target", limits=limits)
    assert sorted(archive.parent.rglob("*")) == before


# Valid archives


def add_empty_folder(path: Path) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("empty/inside/", b"")
        return
    content = path.read_bytes()
    plain = gzip.decompress(content) if path.suffix == ".gz" else content
    stream = io.BytesIO(plain)
    with tarfile.open(fileobj=stream, mode="a") as archive:
        info = tarfile.TarInfo("empty/inside")
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
    path.write_bytes(gzip.compress(stream.getvalue()) if path.suffix == ".gz" else stream.getvalue())


@pytest.mark.parametrize("target", ["new", "deep/new", "empty", "日本 ü"])
def test_round_trip(tmp_path: Path, kind: str, target: str) -> None:
    files = FILES | {
        "Kätzchen/猫_1.png": b"x" * 70_000,
        "empty.png": b"",
        "a b/🐈.txt": b"\0",
        "in.zip": b"PK\3\4",
    }
    archive = write(tmp_path, kind, files)
    add_empty_folder(archive)
    (tmp_path / "empty").mkdir()
    steps: list[Progress] = []
    written = extract_archive(archive, tmp_path / target, on_progress=steps.append)
    assert {path.relative_to(tmp_path / target).as_posix(): path.read_bytes() for path in written} == files
    found = {path for path in (tmp_path / target).rglob("*") if path.is_file()}
    assert found == set(written)
    assert list((tmp_path / target / "empty/inside").iterdir()) == []
    assert [(step.done, step.total) for step in steps] == [(i, len(files)) for i in range(1, len(files) + 1)]
    assert {path.name for path in (tmp_path / target).parent.iterdir()} <= {
        kind,
        "new",
        "empty",
        "deep",
        "日本 ü",
    }


def test_format_is_detected_by_content(tmp_path: Path, kind: str) -> None:
    renamed = write(tmp_path, kind, FILES).rename(tmp_path / "data.bin")
    assert is_archive(renamed)
    with open_source("an archive", renamed) as tree:
        assert {name: tree.read(name) for name in reversed(tree.files)} == FILES
        assert tree.folders == {"cat", "dog"}


@pytest.mark.parametrize("existing", ["folder", "file", "link"])
def test_existing_target_is_not_overwritten(tmp_path: Path, kind: str, existing: str) -> None:
    target = tmp_path / "parent" / "target"
    target.parent.mkdir()
    if existing == "folder":
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    elif existing == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "elsewhere")
    before = sorted(target.parent.rglob("*"))
    with pytest.raises(DataError, match=r"already exists|can't write"):
        extract_archive(write(tmp_path, kind, FILES), target)
    assert sorted(target.parent.rglob("*")) == before
    assert not (tmp_path / "elsewhere").exists()


def test_target_with_too_long_a_name(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match="can't write"):
        extract_archive(write(tmp_path, kind, FILES), tmp_path / ("x" * 300))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError, OSError])
def test_interrupted_extraction_leaves_no_files(tmp_path: Path, kind: str, stop: type[BaseException]) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done == 2:
            raise stop

    target = tmp_path / "parent" / "target"
    with pytest.raises((stop, DataError)):
        extract_archive(write(tmp_path, kind, FILES), target, on_progress=interrupt)
    assert list(target.parent.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_leaves_no_files(tmp_path: Path, kind: str) -> None:
    archive = write(tmp_path, kind, FILES)
    code = """
import sys, time
from pathlib import Path
from cifarml.data.archives.archive import extract_archive
def report(progress):
    if progress.done == 2:
        print("two", flush=True)
        time.sleep(200)
extract_archive(Path(sys.argv[1]), Path(sys.argv[2]), on_progress=report)
"""
    target = tmp_path / "parent" / "target"
    command = [sys.executable, "-c", code, str(archive), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"two\n"
        assert len(list(target.parent.iterdir())) == 1, "the temporary folder exists"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert list(target.parent.iterdir()) == []


# Names

UNSAFE_NAMES = [
    "/etc/x.png",
    "../x.png",
    "cat/../../x.png",
    "cat/./x.png",
    "cat//x.png",
    "cat/..",
    "..\\x.png",
    "cat\\..\\x.png",
    "\\\\server\\x.png",
    "\\x.png",
    "C:\\x.png",
    "C:/x.png",
    "C:x.png",
    "cat/x.png:stream",
    "cat/\x1b[2Jx.png",
    "cat/x\ny.png",
    "cat/\u202egnp.x",
    "cat/" + "x" * 256,
    "猫" * 100,
    "/".join("x" * 40),
]


@pytest.mark.parametrize("name", UNSAFE_NAMES, ids=lambda name: ascii(name)[:30])
def test_unsafe_names(tmp_path: Path, kind: str, name: str) -> None:
    assert_rejected(write(tmp_path, kind, FILES | {name: b"x"}), "unsafe name|without a name")


def test_nul_in_a_zip_name(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", FILES | {"dog/3.png_.exe": b"x"})
    archive.write_bytes(archive.read_bytes().replace(b"3.png_.exe", b"3.png\0.exe"))
    assert_rejected(archive, "unsafe name")


@pytest.mark.parametrize("encoding", ["utf-8", "cp437"])
def test_undecodable_names(tmp_path: Path, encoding: str) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(
        archive, "w", format=tarfile.GNU_FORMAT, encoding=encoding, errors="surrogateescape"
    ) as tar:
        tar.addfile(tarfile.TarInfo("cat/\udcff\udcfe.png" if encoding == "utf-8" else "cat/é.png"))
    assert_rejected(archive, "unsafe name")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("cat/1.png", "cat/1.png"),
        ("cat", "cat/1.png"),
        ("cat/1.png", "cat"),
        ("./cat.png", "cat.png"),
    ],
    ids=ascii,
)
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_duplicate_names(tmp_path: Path, kind: str, first: str, second: str) -> None:
    assert_rejected(write_two(tmp_path / kind, kind, first, second), "collide")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Cat.png", "cat.png"),
        ("Cat/1.png", "cat/2.png"),
        ("caf\u00e9.png", "cafe\u0301.png"),
        ("straße.png", "STRASSE.png"),
    ],
    ids=ascii,
)
def test_names_that_collide_on_some_file_systems(tmp_path: Path, kind: str, first: str, second: str) -> None:
    archive = write_two(tmp_path / kind, kind, first, second)
    with open_archive(archive) as tree:  # reading in place is safe
        assert set(tree.files) == {first, second}
    with pytest.raises(ArchiveError, match="collide"):
        extract_archive(archive, tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == [kind]


def test_backslashes_in_a_zip(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {"cat\\": b"", "cat\\1.png": b"1", "dog\\a\\2.png": b"2"})
    written = extract_archive(archive, tmp_path / "target")
    assert {path.relative_to(tmp_path).as_posix() for path in written} == {
        "target/cat/1.png",
        "target/dog/a/2.png",
    }


def test_backslashes_in_a_tar(tmp_path: Path) -> None:
    assert_rejected(write_tar(tmp_path / "a.tar", FILES | {"cat\\x.png": b"x"}), "unsafe name")


def write_two(archive: Path, kind: str, first: str, second: str) -> Path:
    if kind == "a.zip":
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(first, b"1")
            file.writestr(second, b"2")
    else:
        with tarfile.open(archive, "w:gz" if kind.endswith("gz") else "w") as tar:
            tar.addfile(tarfile.TarInfo(first))
            tar.addfile(tarfile.TarInfo(second))
    return archive


# Links, devices and other special members


@pytest.mark.parametrize(
    "member",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
        b"Z",
    ],
)
@pytest.mark.parametrize("links_to", ["/etc/passwd", "cat/1.png", "../../x"])
def test_special_tar_members(tmp_path: Path, member: bytes, links_to: str) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        info = tarfile.TarInfo("cat/9.png")
        info.type, info.linkname = member, links_to
        tar.addfile(info)
        tar.addfile(tarfile.TarInfo("cat/9.png/through.png"))
    assert_rejected(archive, "link, a device or a sparse file")


def test_sparse_file_in_pax_header(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("cat/9.png")
        info.pax_headers = {"GNU.sparse.map": "0,1,100,1", "GNU.sparse.size": "999999999999"}
        tar.addfile(info)
    assert_rejected(archive, "sparse")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_special_zip_members(tmp_path: Path, mode: int) -> None:
    info = zipfile.ZipInfo("cat/9.png")
    info.external_attr = (mode | 0o777) << 16
    info.create_system = 3
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert_rejected(tmp_path / "a.zip", "link or a device")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unsupported_compression_methods(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("cat/1.png", b"x" * 100)
    assert_rejected(tmp_path / "a.zip", "compression method")


def test_encrypted_zip(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", FILES)
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(content)
    assert_rejected(archive, "password")


def test_nested_archives_are_not_opened(tmp_path: Path, kind: str) -> None:
    inner = write(tmp_path, kind, {"../evil.png": b"x"}).read_bytes()
    archive = write_zip(tmp_path / "outer.zip", flat() | {f"more/{kind}": inner})
    assert len(load_dataset(archive)) == 20
    extract_archive(archive, tmp_path / "out")
    assert (tmp_path / "out" / "more" / kind).read_bytes() == inner


# Decompression bombs and false sizes


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ArchiveLimits(max_members=3), "more than 3 files"),
        (ArchiveLimits(max_total_bytes=5000), "more than 5,000 bytes"),
        (ArchiveLimits(max_file_bytes=300), "would unpack to"),
    ],
)
def test_limits(tmp_path: Path, kind: str, limits: ArchiveLimits, message: str) -> None:
    assert_rejected(write(tmp_path, kind, FILES), f"{message}|bytes at once", limits)


@pytest.mark.parametrize("size", [100 * 2**30, 2**62, -512, -1])
@pytest.mark.parametrize("packed", [False, True])
def test_tar_with_false_size(tmp_path: Path, size: int, packed: bool) -> None:
    info = tarfile.TarInfo("cat/1.png")
    info.size = size
    content = info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)
    (tmp_path / "a.tar").write_bytes(gzip.compress(content) if packed else content)
    assert_rejected(tmp_path / "a.tar", "would unpack to|unpacks to more")


def gigabytes_of_zeros(head: bytes = b"") -> bytes:
    """Return a gzip file of 2 MB that unpacks to 2 GiB of zeros."""
    mebibyte = gzip.compress(bytes(2**20))
    return gzip.compress(head) + mebibyte * 2048


@pytest.mark.parametrize("claimed", [2**31, 400 * 2**20, 0])
def test_gzip_bomb(tmp_path: Path, claimed: int) -> None:
    info = tarfile.TarInfo("cat/1.png")
    info.size = claimed
    (tmp_path / "a.tar.gz").write_bytes(gigabytes_of_zeros(info.tobuf()))
    tracemalloc.start()
    assert_rejected(tmp_path / "a.tar.gz", "would unpack to|unpacks to more")
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("member", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [60 * 2**20, 2**40, -512])
def test_oversized_tar_header(tmp_path: Path, member: bytes, size: int) -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = member, size
    with gzip.open(tmp_path / "a.tar.gz", "wb", 1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(min(max(size, 0), 60 * 2**20)))
    assert_rejected(tmp_path / "a.tar.gz", "at once")


def test_too_many_global_tar_headers(tmp_path: Path) -> None:
    """tarfile copies global headers to every member: 10,000 headers and 10,000 members would take 10 GB."""
    with tarfile.open(tmp_path / "a.tar", "w", pax_headers={f"x{i}": "" for i in range(10_000)}) as tar:
        for i in range(10_000):
            tar.addfile(tarfile.TarInfo(f"cat_{i}.png"))
    tracemalloc.start()
    assert_rejected(tmp_path / "a.tar", "global pax header")
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()


def test_few_global_tar_headers(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", pax_headers={"comment": "0123456789abcdef"}) as tar:
        tar.addfile(tarfile.TarInfo("cat_1.png"))
    with open_archive(tmp_path / "a.tar") as tree:
        assert list(tree.files) == ["cat_1.png"]


@pytest.mark.parametrize("member", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_chained_tar_headers(tmp_path: Path, member: bytes) -> None:
    info = tarfile.TarInfo("long")
    info.type = member
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) * 50_000)
    assert_rejected(tmp_path / "a.tar", "damaged archive")


def zip_with(tmp_path: Path, change: Callable[[bytearray, int], None]) -> Path:
    """Return a zip of FILES and a deflated megabyte with a changed entry in the central directory."""
    archive = write_zip(tmp_path / "a.zip", FILES | {"cat/3.png": bytes(2**20)})
    content = bytearray(archive.read_bytes())
    change(content, content.rindex(b"PK\1\2"))
    archive.write_bytes(content)
    return archive


@pytest.mark.parametrize("size", [2**32 - 2, 600 * 2**20, 300 * 2**20])
def test_zip_entry_with_too_large_a_size(tmp_path: Path, size: int) -> None:
    def claim(content: bytearray, entry: int) -> None:
        struct.pack_into("<L", content, entry + 24, size)

    assert_rejected(zip_with(tmp_path, claim), "would unpack to|unpacks to more")


@pytest.mark.parametrize("size", [1, 2**20 - 1, 2**20 + 1, 2**25])
def test_zip_entry_with_false_size_is_one_bad_image(tmp_path: Path, size: int) -> None:
    def claim(content: bytearray, entry: int) -> None:
        struct.pack_into("<L", content, entry + 24, size)

    with open_archive(zip_with(tmp_path, claim)) as tree:
        with pytest.raises(ImageError, match="archive"):
            tree.read("cat/3.png")
        assert {name: tree.read(name) for name in FILES} == FILES


def test_zip_entry_larger_than_declared_takes_no_memory(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {"cat/1.png": bytes(200 * 2**20)})
    content = bytearray(archive.read_bytes())
    for magic, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        struct.pack_into("<L", content, content.index(magic) + offset, 1000)
    archive.write_bytes(content)
    tracemalloc.start()
    with open_archive(archive) as tree, pytest.raises(ImageError):
        tree.read("cat/1.png")
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    tracemalloc.stop()


def end_record(table_bytes: int, offset: int) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, table_bytes, offset, 0)


def test_overlapping_zip_entries(tmp_path: Path) -> None:
    """A zip bomb by D. Fifield's method: many entries share the same bytes."""
    plain = write_zip(tmp_path / "plain.zip", {"000.png": os.urandom(5000)}).read_bytes()
    start = plain.index(b"PK\1\2")
    entry = plain[start : plain.index(b"PK\5\6")]
    table = b"".join(entry.replace(b"000.png", b"%03d.png" % i) for i in range(300))
    plain = plain[:start] + table + end_record(len(table), start)
    (tmp_path / "a.zip").write_bytes(plain)
    assert_rejected(tmp_path / "a.zip", "overlap")


@pytest.mark.parametrize("zip64", [False, True])
def test_huge_zip_central_directory(tmp_path: Path, zip64: bool) -> None:
    """600,000 entries in 28 MB are rejected before zipfile creates objects for them."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", *[0] * 16)
    table = entry * 600_000
    head = b"PK\3\4" + bytes(26)
    size, offset = (0xFFFFFFFF, 0xFFFFFFFF) if zip64 else (len(table), len(head))
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(table), len(head))
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(head) + len(table), 1)
    between = large + locator if zip64 else b""
    (tmp_path / "a.zip").write_bytes(head + table + between + end_record(size, offset))
    tracemalloc.start()
    assert_rejected(tmp_path / "a.zip", "more than 500,000 files")
    assert tracemalloc.get_traced_memory()[1] < 2 * len(table)
    tracemalloc.stop()


@pytest.mark.parametrize("limit", [10, 4])
def test_zip64_central_directory_is_limited(tmp_path: Path, limit: int) -> None:
    archive = tmp_path / "a.zip"
    content = write_zip(archive, FILES).read_bytes()
    start, end = content.index(b"PK\1\2"), content.rindex(b"PK\5\6")
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 4, 4, end - start, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    archive.write_bytes(content[:end] + large + locator + end_record(0xFFFFFFFF, 0xFFFFFFFF))
    with open_archive(archive, limits=ArchiveLimits(max_members=limit)) as tree:
        assert {name: tree.read(name) for name in tree.files} == FILES
    with pytest.raises(ArchiveError, match=r"more than 3 files|central directory"):
        open_archive(archive, limits=ArchiveLimits(max_members=3))


def test_oversized_central_directory_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\3\4" + bytes(5000) + end_record(4_000_000_000, 0))
    assert_rejected(tmp_path / "a.zip", "central directory")


# Damaged archives


@pytest.mark.parametrize("part", [i / 20 for i in range(20)])
def test_truncated_archives(tmp_path: Path, kind: str, part: float) -> None:
    archive = write(tmp_path, kind, FILES)
    content = archive.read_bytes()
    if kind == "a.tar":
        content = content[: content.rindex(b"IEND")]  # the rest is padding
    archive.write_bytes(content[: int(len(content) * part)])
    assert_rejected(archive, "damaged archive")


def test_tar_truncated_between_two_files(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", FILES)
    archive.write_bytes(archive.read_bytes()[:9216])
    before = archive.read_bytes()
    starts = [before.index(name.encode()) for name in FILES if name.encode() in before]
    archive.write_bytes(before[: starts[-1]])
    assert_rejected(archive, "no readable header at byte")


@pytest.mark.parametrize("offset", [0, 124, 148, 156])
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_tar_header(tmp_path: Path, offset: int, packed: bool) -> None:
    content = bytearray(write_tar(tmp_path / "a.tar", FILES).read_bytes())
    content[content.index(b"dog/1.png") + offset] ^= 4
    (tmp_path / "a.tar").write_bytes(gzip.compress(content) if packed else content)
    assert_rejected(tmp_path / "a.tar", "no readable header at byte")


@pytest.mark.parametrize("position", [-8, -7, -4, -1])
def test_wrong_gzip_checksum(tmp_path: Path, position: int) -> None:
    content = bytearray(write_tar(tmp_path / "a.tar.gz", FILES).read_bytes())
    content[position] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(content)
    assert_rejected(tmp_path / "a.tar.gz", "damaged archive")


def test_wrong_zip_checksum_is_one_bad_image(tmp_path: Path) -> None:
    files = flat()
    archive = write_zip(tmp_path / "a.zip", files)
    content = bytearray(archive.read_bytes())
    entry = content.rindex(b"cat_3.png") - 46
    struct.pack_into("<L", content, entry + 16, 12345)
    archive.write_bytes(content)
    with pytest.raises(
        ImageError, match=r"1 of 20 images can't be read:\n  cat_3.png: damaged in the archive"
    ):
        load_dataset(archive)
    dataset = load_dataset(archive, skip_bad=True)
    assert set(dataset.sources) == set(files) - {"cat_3.png"}
    assert [bad.name for bad in dataset.skipped] == ["cat_3.png"]
    with pytest.raises(ArchiveError, match=r"cat_3\.png"):
        extract_archive(archive, tmp_path / "parent" / "out")
    assert list((tmp_path / "parent").iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"PK\3\4", b"PK\5\6", b"\x1f\x8b", b"x" * 1000, b"\x1f\x8b\x08" + bytes(7)]
)
def test_invalid_archives(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    assert_rejected(tmp_path / "a.zip", "damaged archive")


def test_missing_archive_and_folder(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none.zip", "no such file"), (tmp_path, "directory")):
        with pytest.raises(DataError, match=message):
            open_archive(path)
        with pytest.raises(DataError, match=message):
            extract_archive(path, tmp_path / "out")


@pytest.mark.parametrize("source", ["a\0b", "x" * 300, "x/" * 5000], ids=["NUL", "long name", "long path"])
def test_invalid_paths(source: str) -> None:
    with pytest.raises(DataError, match="can't read"):
        load_dataset(source)


@pytest.mark.parametrize("files", [{}, {"readme.txt": b"x"}])
def test_archive_without_images(tmp_path: Path, kind: str, files: dict[str, bytes]) -> None:
    archive = write(tmp_path, kind, files)
    with pytest.raises(DataError, match=r"no images|neither a folder nor"):
        load_dataset(archive)
