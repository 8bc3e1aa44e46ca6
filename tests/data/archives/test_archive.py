"""Archives: what is in comes out, and nothing else happens, whatever the archive says."""

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


def refuses(archive: Path, message: str, limits: ArchiveLimits | None = None) -> None:
    """Both ways in refuse it by name, and nothing is written."""
    parent = archive.parent / "parent"
    parent.mkdir()
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(ArchiveError, match=message) as caught:
        open_archive(archive, limits=limits)
    assert str(caught.value).startswith(str(archive))
    with pytest.raises(ArchiveError, match=message):
        extract_archive(archive, parent / "target", limits=limits)
    assert sorted(archive.parent.rglob("*")) == before


# What is in comes out


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


@pytest.mark.parametrize("target", ["new", "deep/new", "there", "日本 ü"])
def test_round_trip(tmp_path: Path, kind: str, target: str) -> None:
    files = FILES | {
        "Kätzchen/猫_1.png": b"x" * 70_000,
        "empty.png": b"",
        "a b/🐈.txt": b"\0",
        "in.zip": b"PK\3\4",
    }
    archive = write(tmp_path, kind, files)
    add_empty_folder(archive)
    (tmp_path / "there").mkdir()
    told: list[Progress] = []
    written = extract_archive(archive, tmp_path / target, on_progress=told.append)
    assert {path.relative_to(tmp_path / target).as_posix(): path.read_bytes() for path in written} == files
    found = {path for path in (tmp_path / target).rglob("*") if path.is_file()}
    assert found == set(written)
    assert list((tmp_path / target / "empty/inside").iterdir()) == []
    assert [(step.done, step.total) for step in told] == [(i, len(files)) for i in range(1, len(files) + 1)]
    assert {path.name for path in (tmp_path / target).parent.iterdir()} <= {
        kind,
        "new",
        "there",
        "deep",
        "日本 ü",
    }


def test_every_archive_is_known_by_its_content(tmp_path: Path, kind: str) -> None:
    renamed = write(tmp_path, kind, FILES).rename(tmp_path / "data.bin")
    assert is_archive(renamed)
    with open_source("an archive", renamed) as tree:
        assert {name: tree.read(name) for name in reversed(tree.files)} == FILES
        assert tree.folders == {"cat", "dog"}


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_an_existing_target_is_left_alone(tmp_path: Path, kind: str, there: str) -> None:
    target = tmp_path / "parent" / "target"
    target.parent.mkdir()
    if there == "folder":
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    elif there == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "elsewhere")
    before = sorted(target.parent.rglob("*"))
    with pytest.raises(DataError, match=r"already exists|can't write"):
        extract_archive(write(tmp_path, kind, FILES), target)
    assert sorted(target.parent.rglob("*")) == before
    assert not (tmp_path / "elsewhere").exists()


def test_a_target_that_no_file_system_takes(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match="can't write"):
        extract_archive(write(tmp_path, kind, FILES), tmp_path / ("x" * 300))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError, OSError])
def test_an_interrupted_call_leaves_nothing(tmp_path: Path, kind: str, stop: type[BaseException]) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done == 2:
            raise stop

    target = tmp_path / "parent" / "target"
    with pytest.raises((stop, DataError)):
        extract_archive(write(tmp_path, kind, FILES), target, on_progress=interrupt)
    assert list(target.parent.iterdir()) == []


@pytest.mark.slow
def test_control_c_in_another_process_leaves_nothing(tmp_path: Path, kind: str) -> None:
    archive = write(tmp_path, kind, FILES)
    code = """
import sys, time
from pathlib import Path
from cifarml.data.archives.archive import extract_archive
def tell(progress):
    if progress.done == 2:
        print("two", flush=True)
        time.sleep(200)
extract_archive(Path(sys.argv[1]), Path(sys.argv[2]), on_progress=tell)
"""
    target = tmp_path / "parent" / "target"
    command = [sys.executable, "-c", code, str(archive), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"two\n"
        assert len(list(target.parent.iterdir())) == 1, "the test sees what is to vanish"
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
    "cat\\x.png",
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
    refuses(write(tmp_path, kind, FILES | {name: b"x"}), "unsafe name|without a name")


def test_nul_in_a_zip_name(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", FILES | {"dog/3.png_.exe": b"x"})
    archive.write_bytes(archive.read_bytes().replace(b"3.png_.exe", b"3.png\0.exe"))
    refuses(archive, "unsafe name")


@pytest.mark.parametrize("encoding", ["utf-8", "cp437"])
def test_bytes_that_are_no_text_in_names(tmp_path: Path, encoding: str) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(
        archive, "w", format=tarfile.GNU_FORMAT, encoding=encoding, errors="surrogateescape"
    ) as tar:
        tar.addfile(tarfile.TarInfo("cat/\udcff\udcfe.png" if encoding == "utf-8" else "cat/é.png"))
    refuses(archive, "unsafe name")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("cat/1.png", "cat/1.png"),
        ("Cat.png", "cat.png"),
        ("Cat/1.png", "cat/2.png"),
        ("caf\u00e9.png", "cafe\u0301.png"),
        ("straße.png", "STRASSE.png"),
        ("cat", "cat/1.png"),
        ("cat/1.png", "cat"),
        ("./cat.png", "cat.png"),
    ],
    ids=ascii,
)
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_names_that_collide(tmp_path: Path, kind: str, first: str, second: str) -> None:
    archive = tmp_path / kind
    if kind == "a.zip":
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(first, b"1")
            file.writestr(second, b"2")
    else:
        with tarfile.open(archive, "w:gz" if kind.endswith("gz") else "w") as tar:
            tar.addfile(tarfile.TarInfo(first))
            tar.addfile(tarfile.TarInfo(second))
    refuses(archive, "collide")


# Links, devices and other things that are no files


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
def test_tar_members_that_are_no_files(tmp_path: Path, member: bytes, links_to: str) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        info = tarfile.TarInfo("cat/9.png")
        info.type, info.linkname = member, links_to
        tar.addfile(info)
        tar.addfile(tarfile.TarInfo("cat/9.png/through.png"))
    refuses(archive, "link, a device or a sparse file")


def test_sparse_by_extended_header(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("cat/9.png")
        info.pax_headers = {"GNU.sparse.map": "0,1,100,1", "GNU.sparse.size": "999999999999"}
        tar.addfile(info)
    refuses(archive, "sparse")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_zip_members_that_are_no_files(tmp_path: Path, mode: int) -> None:
    info = zipfile.ZipInfo("cat/9.png")
    info.external_attr = (mode | 0o777) << 16
    info.create_system = 3
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    refuses(tmp_path / "a.zip", "link or a device")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_methods(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("cat/1.png", b"x" * 100)
    refuses(tmp_path / "a.zip", "compression method")


def test_encrypted(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", FILES)
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(content)
    refuses(archive, "password")


def test_archives_inside_are_files_like_others(tmp_path: Path, kind: str) -> None:
    inner = write(tmp_path, kind, {"../evil.png": b"x"}).read_bytes()
    archive = write_zip(tmp_path / "outer.zip", flat() | {f"more/{kind}": inner})
    assert len(load_dataset(archive)) == 20
    extract_archive(archive, tmp_path / "out")
    assert (tmp_path / "out" / "more" / kind).read_bytes() == inner


# Bombs and lies


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ArchiveLimits(max_members=3), "more than 3 files"),
        (ArchiveLimits(max_total_bytes=5000), "more than 5,000 bytes"),
        (ArchiveLimits(max_file_bytes=300), "would unpack to"),
    ],
)
def test_limits(tmp_path: Path, kind: str, limits: ArchiveLimits, message: str) -> None:
    refuses(write(tmp_path, kind, FILES), f"{message}|bytes at once", limits)


@pytest.mark.parametrize("size", [100 * 2**30, 2**62, -512, -1])
@pytest.mark.parametrize("packed", [False, True])
def test_tar_that_lies_about_a_size(tmp_path: Path, size: int, packed: bool) -> None:
    info = tarfile.TarInfo("cat/1.png")
    info.size = size
    content = info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)
    (tmp_path / "a.tar").write_bytes(gzip.compress(content) if packed else content)
    refuses(tmp_path / "a.tar", "would unpack to|unpacks to more")


def gigabytes_of_zeros(head: bytes = b"") -> bytes:
    """A gzip of 2 GiB of zeros in 2 MB, made quickly: one compressed MiB, again and again."""
    mebibyte = gzip.compress(bytes(2**20))
    return gzip.compress(head) + mebibyte * 2048


@pytest.mark.parametrize("claimed", [2**31, 400 * 2**20, 0])
def test_gzip_bomb(tmp_path: Path, claimed: int) -> None:
    info = tarfile.TarInfo("cat/1.png")
    info.size = claimed
    (tmp_path / "a.tar.gz").write_bytes(gigabytes_of_zeros(info.tobuf()))
    tracemalloc.start()
    refuses(tmp_path / "a.tar.gz", "would unpack to|unpacks to more")
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("member", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [60 * 2**20, 2**40, -512])
def test_tar_header_that_is_a_bomb(tmp_path: Path, member: bytes, size: int) -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = member, size
    with gzip.open(tmp_path / "a.tar.gz", "wb", 1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(min(max(size, 0), 60 * 2**20)))
    refuses(tmp_path / "a.tar.gz", "at once")


def test_tar_headers_that_multiply(tmp_path: Path) -> None:
    """Each member gets a copy of the common header, so 10,000 entries and 10,000 members would take 10 GB."""
    with tarfile.open(tmp_path / "a.tar", "w", pax_headers={f"x{i}": "" for i in range(10_000)}) as tar:
        for i in range(10_000):
            tar.addfile(tarfile.TarInfo(f"cat_{i}.png"))
    tracemalloc.start()
    refuses(tmp_path / "a.tar", "common header")
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()


def test_a_few_common_headers_are_usual(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", pax_headers={"comment": "0123456789abcdef"}) as tar:
        tar.addfile(tarfile.TarInfo("cat_1.png"))
    with open_archive(tmp_path / "a.tar") as tree:
        assert list(tree.files) == ["cat_1.png"]


@pytest.mark.parametrize("member", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_tar_headers_of_headers_of_headers(tmp_path: Path, member: bytes) -> None:
    info = tarfile.TarInfo("long")
    info.type = member
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) * 50_000)
    refuses(tmp_path / "a.tar", "damaged archive")


def zip_with(tmp_path: Path, change: Callable[[bytearray, int], None]) -> Path:
    """A zip of FILES and a deflated megabyte whose entry in the table of contents is changed."""
    archive = write_zip(tmp_path / "a.zip", FILES | {"cat/3.png": bytes(2**20)})
    content = bytearray(archive.read_bytes())
    change(content, content.rindex(b"PK\1\2"))
    archive.write_bytes(content)
    return archive


@pytest.mark.parametrize("size", [2**32 - 2, 600 * 2**20, 300 * 2**20])
def test_zip_that_claims_too_much(tmp_path: Path, size: int) -> None:
    def claim(content: bytearray, entry: int) -> None:
        struct.pack_into("<L", content, entry + 24, size)

    refuses(zip_with(tmp_path, claim), "would unpack to|unpacks to more")


@pytest.mark.parametrize("size", [1, 2**20 - 1, 2**20 + 1, 2**25])
def test_zip_that_lies_about_a_size_is_one_bad_image(tmp_path: Path, size: int) -> None:
    def claim(content: bytearray, entry: int) -> None:
        struct.pack_into("<L", content, entry + 24, size)

    with open_archive(zip_with(tmp_path, claim)) as tree:
        with pytest.raises(ImageError, match="archive"):
            tree.read("cat/3.png")
        assert {name: tree.read(name) for name in FILES} == FILES


def test_zip_that_unpacks_to_more_than_it_says_takes_no_memory(tmp_path: Path) -> None:
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
    """As in the bombs by D. Fifield: many entries, all of them of the same bytes."""
    plain = write_zip(tmp_path / "plain.zip", {"000.png": os.urandom(5000)}).read_bytes()
    start = plain.index(b"PK\1\2")
    entry = plain[start : plain.index(b"PK\5\6")]
    table = b"".join(entry.replace(b"000.png", b"%03d.png" % i) for i in range(300))
    plain = plain[:start] + table + end_record(len(table), start)
    (tmp_path / "a.zip").write_bytes(plain)
    refuses(tmp_path / "a.zip", "overlap")


@pytest.mark.parametrize("zip64", [False, True])
def test_a_huge_zip_table(tmp_path: Path, zip64: bool) -> None:
    """600,000 entries in 28 MB: refused before zipfile makes objects of them."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", *[0] * 16)
    table = entry * 600_000
    head = b"PK\3\4" + bytes(26)
    size, offset = (0xFFFFFFFF, 0xFFFFFFFF) if zip64 else (len(table), len(head))
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(table), len(head))
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(head) + len(table), 1)
    between = large + locator if zip64 else b""
    (tmp_path / "a.zip").write_bytes(head + table + between + end_record(size, offset))
    tracemalloc.start()
    refuses(tmp_path / "a.zip", "more than 500,000 files")
    assert tracemalloc.get_traced_memory()[1] < 2 * len(table)
    tracemalloc.stop()


@pytest.mark.parametrize("limit", [10, 4])
def test_a_zip64_table_counts_like_any_other(tmp_path: Path, limit: int) -> None:
    archive = tmp_path / "a.zip"
    content = write_zip(archive, FILES).read_bytes()
    start, end = content.index(b"PK\1\2"), content.rindex(b"PK\5\6")
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 4, 4, end - start, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    archive.write_bytes(content[:end] + large + locator + end_record(0xFFFFFFFF, 0xFFFFFFFF))
    with open_archive(archive, limits=ArchiveLimits(max_members=limit)) as tree:
        assert {name: tree.read(name) for name in tree.files} == FILES
    with pytest.raises(ArchiveError, match=r"more than 3 files|table of contents"):
        open_archive(archive, limits=ArchiveLimits(max_members=3))


def test_a_table_larger_than_any_needs_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\3\4" + bytes(5000) + end_record(4_000_000_000, 0))
    refuses(tmp_path / "a.zip", "table of contents")


# Damage


@pytest.mark.parametrize("part", [i / 20 for i in range(20)])
def test_every_truncated_archive_is_damaged(tmp_path: Path, kind: str, part: float) -> None:
    archive = write(tmp_path, kind, FILES)
    content = archive.read_bytes()
    if kind == "a.tar":
        content = content[: content.rindex(b"IEND")]  # what follows is padding
    archive.write_bytes(content[: int(len(content) * part)])
    refuses(archive, "damaged archive")


def test_a_tar_that_ends_between_two_files(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", FILES)
    archive.write_bytes(archive.read_bytes()[:9216])
    before = archive.read_bytes()
    starts = [before.index(name.encode()) for name in FILES if name.encode() in before]
    archive.write_bytes(before[: starts[-1]])
    refuses(archive, "no readable header at byte")


@pytest.mark.parametrize("offset", [0, 124, 148, 156])
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_tar_header_in_the_middle(tmp_path: Path, offset: int, packed: bool) -> None:
    content = bytearray(write_tar(tmp_path / "a.tar", FILES).read_bytes())
    content[content.index(b"dog/1.png") + offset] ^= 4
    (tmp_path / "a.tar").write_bytes(gzip.compress(content) if packed else content)
    refuses(tmp_path / "a.tar", "no readable header at byte")


@pytest.mark.parametrize("position", [-8, -7, -4, -1])
def test_a_gzip_whose_checksum_is_wrong(tmp_path: Path, position: int) -> None:
    content = bytearray(write_tar(tmp_path / "a.tar.gz", FILES).read_bytes())
    content[position] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(content)
    refuses(tmp_path / "a.tar.gz", "damaged archive")


def test_a_wrong_checksum_in_a_zip_is_one_bad_image(tmp_path: Path) -> None:
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
def test_what_only_looks_like_an_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    refuses(tmp_path / "a.zip", "damaged archive")


def test_what_can_not_be_read(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none.zip", "there is no file"), (tmp_path, "directory")):
        with pytest.raises(DataError, match=message):
            open_archive(path)
        with pytest.raises(DataError, match=message):
            extract_archive(path, tmp_path / "out")


@pytest.mark.parametrize("source", ["a\0b", "x" * 300, "x/" * 5000], ids=["NUL", "long name", "long path"])
def test_names_that_no_file_has(source: str) -> None:
    with pytest.raises(DataError, match="can't read"):
        load_dataset(source)


@pytest.mark.parametrize("files", [{}, {"readme.txt": b"x"}])
def test_an_archive_without_images(tmp_path: Path, kind: str, files: dict[str, bytes]) -> None:
    archive = write(tmp_path, kind, files)
    with pytest.raises(DataError, match=r"no images|neither a folder nor"):
        load_dataset(archive)
