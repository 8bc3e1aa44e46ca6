"""Fuzz tests: every damaged file gives a result or a cifarml error, without side effects."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cifarml import decode_image, load_dataset
from cifarml.data.archives.archive import extract_archive
from cifarml.data.archives.limits import ArchiveLimits
from cifarml.data.cifar10.official import load_official
from cifarml.data.file_tree import FileTree
from cifarml.data.load import open_source
from cifarml.errors import DataError, ImageError
from cifarml.settings import Settings
from tests.data.tables.test_tables import cifar100, write_parquet
from tests.image_files import image_contents, write_tar, write_zip
from tests.mutations import mutated, sample_images, save, with_right_checksums

NUM_IMAGES = 10_000
NUM_ARCHIVES = 2500
NUM_BATCHES = 4000
NUM_TABLES = 1200

# Images


def with_size(kind: str, content: bytes, width: int, height: int) -> bytes:
    """Return the image with another size in its header."""
    data = bytearray(content)
    match kind:
        case "PNG":
            data[16:24] = struct.pack(">II", width, height)
            return with_right_checksums(bytes(data))
        case "GIF":
            data[6:10] = struct.pack("<HH", width % 65536, height % 65536)
        case "BMP":
            data[18:26] = struct.pack("<ii", width, -height)
        case "JPEG":
            start = next(i for i in range(len(data)) if content[i : i + 2] in {b"\xff\xc0", b"\xff\xc2"})
            data[start + 5 : start + 9] = struct.pack(">HH", height % 65536, width % 65536)
    return bytes(data)


def damaged_images() -> Iterator[bytes]:
    rng = np.random.default_rng(2)
    samples = sample_images()
    for name, content in samples.items():
        for width, height in ((1, 1), (0, 0), (33, 1), (3000, 3000), (65535, 65535), (2**31 - 1, 2**31 - 1)):
            yield with_size(name.partition(",")[0], content, width, height)
    names = list(samples)
    for i in range(NUM_IMAGES):
        content = mutated(rng, samples[names[i % len(names)]])
        yield with_right_checksums(content) if names[i % len(names)].startswith("PNG") and i % 2 else content


def test_damaged_images() -> None:
    outcomes: Counter[str] = Counter()
    for content in damaged_images():
        try:
            image = decode_image(content)
        except ImageError:
            outcomes["error"] += 1
        else:
            assert image.shape == (32, 32, 3)
            assert image.dtype == np.uint8
            outcomes["image"] += 1
    assert outcomes.total() > NUM_IMAGES
    assert min(outcomes["image"], outcomes["error"]) > NUM_IMAGES // 5, outcomes


# Archives


def tar_with_right_checksums(content: bytes) -> bytes:
    """Fix the checksums of all header blocks, so that their damaged fields are parsed."""
    data = bytearray(content)
    for start in range(0, len(data) - 511, 512):
        block = data[start : start + 512]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    return bytes(data)


def damaged_archives(folder: Path) -> Iterator[bytes]:
    rng = np.random.default_rng(3)
    names = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/" + "ü" * 60 + ".png"]
    files = {name: content[:400] for name, content in image_contents(names).items()}
    whole = image_contents(["cat_1.png", "cat_2.png", "dog_1.png", "dog_2.png"])
    small = {name: save(Image.new("RGB", (32, 32), (i, 9, 9)), "PNG") for i, name in enumerate(whole)}
    plain_zip = write_zip(folder / "a.zip", small | files).read_bytes()
    good_zip = write_zip(folder / "b.zip", small).read_bytes()
    good_tar = write_tar(folder / "b.tar", small).read_bytes()[:8192]
    long_tar = write_tar(folder / "c.tar", small | files).read_bytes()
    for i in range(NUM_ARCHIVES):
        match i % 6:
            case 0:
                yield mutated(rng, plain_zip)
            case 1:
                yield mutated(rng, good_zip)
            case 2:
                yield mutated(rng, good_tar)
            case 3:
                yield mutated(rng, gzip.compress(good_tar, 1))
            case 4:
                yield gzip.compress(tar_with_right_checksums(mutated(rng, good_tar)), 1)
            case _:
                yield tar_with_right_checksums(mutated(rng, long_tar))


def attempt(outcomes: Counter[str], name: str, work: Callable[[], object]) -> None:
    try:
        work()
    except DataError:
        outcomes[f"{name}: error"] += 1
    else:
        outcomes[f"{name}: result"] += 1


def test_damaged_archives(tmp_path: Path, settings: Settings) -> None:
    outcomes: Counter[str] = Counter()
    (tmp_path / "made").mkdir()
    parent = tmp_path / "sentinel" / "parent"
    parent.mkdir(parents=True)
    archive = tmp_path / "sentinel" / "damaged"
    limits = ArchiveLimits(max_total_bytes=10**7)
    for i, content in enumerate(damaged_archives(tmp_path / "made")):
        archive.write_bytes(content)

        def read_all() -> None:
            with open_source("an archive", archive) as tree:
                for name in tree.files:
                    tree.read(name)

        attempt(outcomes, "read", read_all)
        attempt(outcomes, "load", lambda: load_dataset(archive, settings=settings, skip_bad=True))
        target = parent / str(i)
        attempt(outcomes, "extract", lambda at=target: extract_archive(archive, at, limits=limits))  # type: ignore[misc]
        extracted = {path.name for path in parent.iterdir()}
        assert extracted <= {target.name}
        assert {path.name for path in archive.parent.iterdir()} == {"damaged", "parent"}
        assert not any(path.is_symlink() for path in target.rglob("*"))
        if extracted:
            target.rename(tmp_path / "made" / target.name)
    for name in ("read", "load", "extract"):
        results, errors = outcomes[f"{name}: result"], outcomes[f"{name}: error"]
        assert results + errors == NUM_ARCHIVES
        assert min(results, errors) > NUM_ARCHIVES // 20, outcomes


# Official batches


class Memory(FileTree):
    """`FileTree` in memory."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.origin = "memory"
        self.contents = contents
        self.files = {name: len(content) for name, content in contents.items()}
        self.folders = frozenset()

    def read(self, name: str) -> bytes:
        return self.contents[name]

    def close(self) -> None:
        return None


@pytest.mark.parametrize("name", ["data_batch_1", "batches.meta"])
def test_damaged_batches(name: str) -> None:
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (4, 3072), np.uint8)
    batch = {b"labels": [0, 1, 2, 0], b"data": images, b"filenames": [b"a", b"b", b"c", b"d"]}
    files = {"data_batch_1": pickle.dumps(batch, 4)}
    files["batches.meta"] = pickle.dumps({b"label_names": [b"cat", b"dog", b"emu"]}, 3)
    outcomes: Counter[str] = Counter()
    pieces = files["data_batch_1"].partition(images.tobytes())
    for i in range(NUM_BATCHES // 2):
        if name == "batches.meta" or i % 4 == 0:
            content = mutated(rng, files[name])
        elif i % 4 == 1:  # before the pixels, in the opcodes
            content = mutated(rng, pieces[0]) + pieces[1] + pieces[2]
        else:
            content = pieces[0] + pieces[1] + mutated(rng, pieces[2])
        attempt(outcomes, "batch", lambda at=content: load_official(Memory(files | {name: at})))  # type: ignore[misc]
    assert outcomes.total() == NUM_BATCHES // 2
    assert outcomes["batch: error"] > NUM_BATCHES // 10
    assert outcomes["batch: result"] > NUM_BATCHES // 200, outcomes


# Tables


@pytest.mark.parametrize("kind", ["parquet", "npz", "csv", "CIFAR-100"])
def test_damaged_tables(kind: str, tmp_path: Path, settings: Settings) -> None:
    rng = np.random.default_rng(6)
    images = image_contents(f"{i}.png" for i in range(20))
    parquet = write_parquet(tmp_path / "good.parquet", 20).read_bytes()
    files = {
        "npz": {"x.npy": npy(rng.integers(0, 256, (20, 28, 28), np.uint8)), "y.npy": npy(np.arange(20) % 2)},
        "csv": images | {"labels.csv": b"id,label\n" + b"".join(b"%d,%d\n" % (i, i % 2) for i in range(20))},
        "CIFAR-100": cifar100("", binary=False),
    }.get(kind, {})
    damaged = [name for name in files if not name.endswith(".png")]
    outcomes: Counter[str] = Counter()
    for i in range(NUM_TABLES // 4):
        path = tmp_path / "damaged"
        if kind == "parquet":
            path.write_bytes(b"PAR1" + mutated(rng, parquet)[4:])
        else:
            name = damaged[i % len(damaged)]
            write_zip(path, files | {name: mutated(rng, files[name])})
        attempt(outcomes, "load", lambda at=path: load_dataset(at, settings=settings, skip_bad=True))  # type: ignore[misc]
    assert outcomes.total() == NUM_TABLES // 4
    assert min(outcomes["load: result"], outcomes["load: error"]) > NUM_TABLES // 100, outcomes


def npy(array: npt.NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_number_of_cases() -> None:
    assert NUM_IMAGES + NUM_ARCHIVES + NUM_BATCHES >= 5_000
