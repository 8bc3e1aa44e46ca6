"""Thousands of damaged files: each ends in a result or in one of our errors, and nothing else happens."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifarml import decode_image, load_dataset
from cifarml.data.archives.archive import ArchiveLimits, extract_archive
from cifarml.data.cifar10.official import load_official
from cifarml.data.load import open_source
from cifarml.errors import DataError, ImageError
from cifarml.settings import Settings
from tests.image_files import image_contents, write_tar, write_zip

NUM_IMAGES = 10_000
NUM_ARCHIVES = 2500
NUM_BATCHES = 4000

Damage = Callable[[np.random.Generator, bytearray], bytearray]


def place(rng: np.random.Generator, data: bytearray) -> int:
    """A position, every other time near the start or the end, where formats keep what matters."""
    where = int(rng.integers(0, 4))
    near = min(64, len(data))
    if where == 0:
        return int(rng.integers(0, near))
    return len(data) - 1 - int(rng.integers(0, near)) if where == 1 else int(rng.integers(0, len(data)))


def flip_bits(rng: np.random.Generator, data: bytearray) -> bytearray:
    for _ in range(int(rng.integers(1, 6))):
        data[place(rng, data)] ^= 1 << int(rng.integers(0, 8))
    return data


def splice(rng: np.random.Generator, data: bytearray) -> bytearray:
    """Copy a piece over another."""
    source, target, size = place(rng, data), place(rng, data), int(rng.integers(1, 64))
    data[target : target + size] = data[source : source + size]
    return data


def truncate(rng: np.random.Generator, data: bytearray) -> bytearray:
    return data[: int(rng.integers(0, len(data)))]


def insert(rng: np.random.Generator, data: bytearray) -> bytearray:
    target = place(rng, data)
    data[target:target] = rng.bytes(int(rng.integers(1, 40)))
    return data


def remove(rng: np.random.Generator, data: bytearray) -> bytearray:
    target = place(rng, data)
    del data[target : target + int(rng.integers(1, 40))]
    return data


def swap(rng: np.random.Generator, data: bytearray) -> bytearray:
    """Swap two neighbouring pieces, as if chunks had changed places."""
    first, second, third = sorted(place(rng, data) for _ in range(3))
    return data[:first] + data[second:third] + data[first:second] + data[third:]


def extreme_number(rng: np.random.Generator, data: bytearray) -> bytearray:
    """Write a number that is as large or small as can be, as sizes and counts might be."""
    form = str(rng.choice(["<H", ">H", "<I", ">I", "<Q", "B"]))
    limit = 2 ** (8 * struct.calcsize(form))
    values = [0, 1, 0x7F, limit - 1, limit // 2, limit // 2 - 1, min(10**6, limit - 1)]
    target = place(rng, data)
    number = struct.pack(form, values[int(rng.integers(0, len(values)))])
    data[target : target + len(number)] = number
    return data


DAMAGES: tuple[Damage, ...] = (flip_bits, splice, truncate, insert, remove, swap, extreme_number)


def mutated(rng: np.random.Generator, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 3))):
        if data:
            data = DAMAGES[int(rng.integers(0, len(DAMAGES)))](rng, data)
    return bytes(data)


# Images


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def sample_images() -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    rgb = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
    smooth = Image.linear_gradient("L").resize((60, 40))
    rgba = Image.merge("RGBA", [smooth] * 4)
    wide = Image.fromarray(rng.integers(0, 65536, (32, 32), np.uint16))
    palette = smooth.quantize(16)
    frames = [smooth.rotate(angle) for angle in (90, 180)]
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "PNG": save(rgb, "PNG"),
        "PNG, 60x40": save(rgba, "PNG"),
        "PNG, 16 bits": save(wide, "PNG"),
        "PNG, palette": save(palette, "PNG", transparency=3),
        "PNG, EXIF": save(smooth, "PNG", exif=exif),
        "PNG, animated": save(smooth, "PNG", save_all=True, append_images=frames),
        "JPEG": save(rgb, "JPEG"),
        "JPEG, gray": save(smooth, "JPEG"),
        "JPEG, progressive": save(rgb, "JPEG", progressive=True, exif=exif),
        "JPEG, CMYK": save(rgb.convert("CMYK"), "JPEG"),
        "JPEG, large": save(smooth.resize((300, 200)).convert("RGB"), "JPEG", exif=exif),
        "WebP": save(rgb, "WEBP"),
        "WebP, lossless": save(rgba, "WEBP", lossless=True, exif=exif),
        "WebP, animated": save(smooth, "WEBP", save_all=True, append_images=frames),
        "GIF": save(palette, "GIF", transparency=3),
        "GIF, animated": save(smooth, "GIF", save_all=True, append_images=frames),
        "BMP": save(rgb, "BMP"),
        "BMP, palette": save(palette, "BMP"),
        "BMP, one bit": save(smooth.convert("1"), "BMP"),
    }


def with_right_checksums(png: bytes) -> bytes:
    """Mend the checksums of a PNG, so that damage reaches what lies behind them."""
    out, position = png[:8], 8
    while position + 12 <= len(png):
        size = min(int.from_bytes(png[position : position + 4], "big"), len(png) - position - 12)
        chunk = png[position + 4 : position + 8 + size]
        out += size.to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        position += 12 + size
    return out


def with_size(kind: str, content: bytes, width: int, height: int) -> bytes:
    """Claim another size in the header."""
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
    """Mend the checksums of all blocks that look like headers, so that damage reaches their fields."""
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
        there = {path.name for path in parent.iterdir()}
        assert there <= {target.name}
        assert {path.name for path in archive.parent.iterdir()} == {"damaged", "parent"}
        assert not any(path.is_symlink() for path in target.rglob("*"))
        if there:
            target.rename(tmp_path / "made" / target.name)
    for name in ("read", "load", "extract"):
        results, errors = outcomes[f"{name}: result"], outcomes[f"{name}: error"]
        assert results + errors == NUM_ARCHIVES
        assert min(results, errors) > NUM_ARCHIVES // 20, outcomes


# Official batches


class Memory:
    """Files in memory, as load_official reads them."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.origin = "memory"
        self.contents = contents
        self.files = {name: len(content) for name, content in contents.items()}
        self.folders: frozenset[str] = frozenset()

    def read(self, name: str) -> bytes:
        return self.contents[name]

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        pass


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
        elif i % 4 == 1:  # around the pixels, where the instructions are
            content = mutated(rng, pieces[0]) + pieces[1] + pieces[2]
        else:
            content = pieces[0] + pieces[1] + mutated(rng, pieces[2])
        attempt(outcomes, "batch", lambda at=content: load_official(Memory(files | {name: at})))  # type: ignore[misc]
    assert outcomes.total() == NUM_BATCHES // 2
    assert outcomes["batch: error"] > NUM_BATCHES // 10
    assert outcomes["batch: result"] > NUM_BATCHES // 200, outcomes


def test_there_are_enough_cases() -> None:
    assert NUM_IMAGES + NUM_ARCHIVES + NUM_BATCHES >= 5_000
