"""Formats that are read, limits on hostile files, and errors that tell causes apart."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cifarml import images
from cifarml.errors import ImageError
from cifarml.images import MAX_PIXELS, decode_image, encode_image, image_size
from cifarml.imaging.formats import FORMATS
from tests.test_images import corners, encode, noise, quarters


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "JPEG2000", "AVIF", "HEIF"])
@pytest.mark.parametrize("size", [(32, 32), (64, 40)])
def test_further_formats_are_decoded(kind: str, size: tuple[int, int]) -> None:
    data = encode_as(corners(*size), kind)
    assert image_size(data) == size
    side = min(size)
    middle = corners(*size).crop(((size[0] - side) // 2, 0, (size[0] + side) // 2, side))
    expected = np.asarray(middle.resize((32, 32), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(decode_image(data).astype(int) - expected).mean() < (1 if kind in {"TIFF", "PPM"} else 12)


def encode_as(image: Image.Image, kind: str, **options: Any) -> bytes:
    if kind != "HEIF":
        return encode(image, kind, **options)
    from pillow_heif import from_pillow

    file = io.BytesIO()
    from_pillow(image).save(file, quality=90, **options)
    return file.getvalue()


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_tiff_compressions(compression: str) -> None:
    pixels = decode_image(encode(noise(), "TIFF", compression=compression))
    assert np.abs(pixels.astype(int) - np.asarray(noise())).mean() < (60 if compression == "jpeg" else 0.1)


@pytest.mark.parametrize("kind", ["TIFF", "AVIF"])
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (3, ["white", "blue", "lime", "red"]),
        (6, ["blue", "red", "white", "lime"]),
        (8, ["lime", "white", "red", "blue"]),
    ],
)
def test_orientation_is_applied_once(kind: str, orientation: int, expected: list[str]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (64, 48))
    image.paste(corners(48, 48), (8, 0))
    data = encode(image, kind, exif=exif)
    assert quarters(decode_image(data)) == expected
    assert quarters(decode_image(Image.open(io.BytesIO(data)))) == expected


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_heic_is_turned_by_its_decoder_only(orientation: int) -> None:
    from pillow_heif import HeifImageFile

    exif = Image.Exif()
    exif[0x0112] = orientation
    image = corners(32, 32)
    image.info["exif"] = exif.tobytes()
    data = encode_as(image, "HEIF")
    assert np.array_equal(decode_image(data), np.asarray(HeifImageFile(io.BytesIO(data))))  # type: ignore[no-untyped-call]


def test_first_page_of_a_tiff_is_decoded() -> None:
    pages = [Image.new("RGB", (40, 40), color) for color in ("red", "lime")]
    assert (
        decode_image(encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])) == (255, 0, 0)
    ).all()


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x20ftypqt  " + bytes(40), None),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL image"),
        (b"8BPS" + bytes(60), "Photoshop image"),
        (bytes(128) + b"DICM", "DICOM image"),
        (b"<?xml version='1.0'?>\n<!-- drawn -->\n<svg xmlns='x'>", "SVG drawing"),
        (b"II*\0\x10\0\0\0CR\2\0", "camera raw image"),
        (b"hello <svg>", None),
        (b"P3 players in the garden", None),
    ],
)
def test_other_formats_are_named(head: bytes, name: str | None) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(head)
    if name is None:
        assert caught.value.code == "not_an_image"
    else:
        assert caught.value.code == "unsupported_image"
        assert caught.value.message == f"{name}, which can't be read"
        assert caught.value.hint


def png_of(width: int, height: int) -> bytes:
    return encode(Image.new("1", (width, height)))


@pytest.mark.parametrize("size", [(12_000, 9_000), (16_320, 12_240)])
def test_photo_of_108_and_200_megapixels_takes_little_memory(size: tuple[int, int]) -> None:
    photo = encode(corners(*size).convert("L"), "JPEG", quality=60)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pixels = decode_image(photo)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert pixels.shape == (32, 32, 3)
    assert pixels[4, 4, 0] < 90 < pixels[4, 28, 0]
    assert grown < 60_000  # kB
    assert image_size(photo) == size


def with_jpeg_size(content: bytes, width: int, height: int) -> bytes:
    data = bytearray(content)
    start = next(i for i in range(len(data)) if content[i : i + 2] in {b"\xff\xc0", b"\xff\xc2"})
    data[start + 5 : start + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def test_jpeg_that_libjpeg_would_buffer_is_limited() -> None:
    """A progressive JPEG, or one with a scan per component, takes 6 bytes per pixel."""
    image = noise(64, 64)
    plain, progressive = encode(image, "JPEG"), encode(image, "JPEG", progressive=True)
    scans = bytearray(plain)
    at = scans.index(b"\xff\xda")
    scans[at + 2 : at + 14] = b"\0\x08\1\1\0\0\x3f\0" + bytes(4)
    for content in (progressive, bytes(scans)):
        with pytest.raises(ImageError, match="67,108,864") as caught:
            decode_image(with_jpeg_size(content, 12_000, 9_000))
        assert caught.value.code == "too_many_pixels"
    assert decode_image(with_jpeg_size(plain, 12_000, 9_000)).shape == (32, 32, 3)  # the rest is gray
    with pytest.raises(ImageError, match="268,435,456"):
        decode_image(with_jpeg_size(plain, 17_000, 17_000))


def test_tall_jpeg_that_can_not_be_reduced_is_refused() -> None:
    data = with_jpeg_size(encode(noise(64, 64), "JPEG"), 65_000, 1_100)
    assert decode_image(encode(noise(640, 480), "JPEG"), side=512).shape == (512, 512, 3)
    with pytest.raises(ImageError, match="more than the 67,108,864"):
        decode_image(data, side=512)


def test_jpeg2000_of_few_bytes_is_limited() -> None:
    data = bytearray(encode(Image.new("L", (64, 64)), "JPEG2000", no_jp2=True))
    at = data.index(b"\xff\x51")
    for field in (8, 12):  # Xsiz, Ysiz: ISO/IEC 15444-1, A.5.1
        data[at + field - 2 : at + field + 2] = (8000).to_bytes(4, "big")
    with pytest.raises(ImageError, match="33,554,432"):
        decode_image(bytes(data))


def test_tiff_with_huge_tiles_is_refused() -> None:
    import struct

    tags = [
        (256, 4, 1, 32),
        (257, 4, 1, 32),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (322, 4, 1, 46_336),
        (323, 4, 1, 46_336),
        (324, 4, 1, 200),
        (325, 4, 1, 100),
    ]
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    with pytest.raises(ImageError, match=r"46,336 x 46,336"):
        decode_image(b"II*\0\x08\0\0\0" + ifd + bytes(300))


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "AVIF", "JPEG2000", "HEIF"])
def test_truncated_files_are_damaged(kind: str) -> None:
    data = encode_as(noise(64, 64), kind)
    with pytest.raises(ImageError, match="damaged") as caught:
        decode_image(data[: len(data) // 2])
    assert caught.value.code == "damaged_image"


def test_bug_of_our_own_is_not_called_a_damaged_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing table stands for a mistake in our code."""
    monkeypatch.setattr(images, "_WITH_ALPHA", None)
    with pytest.raises(TypeError):
        decode_image(encode(noise(40, 40).convert("L")))


RunLimited = Callable[[str], "subprocess.CompletedProcess[str]"]


def run(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_out_of_memory_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "wide.png").write_bytes(encode(Image.new("RGB", (8000, 8000))))
    code = """
import resource, sys
from cifarml.errors import ImageError
from cifarml.images import decode_image
decode_image(bytes(open(sys.argv[1], "rb").read())[:0] or __import__("numpy").zeros((32, 32), "uint8"))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 60 * 2**20,) * 2)
try:
    decode_image(sys.argv[1])
except ImageError as error:
    print(error.code, error.message)
"""
    done = run(code, str(tmp_path / "wide.png"))
    assert done.stdout.startswith("out_of_memory"), done.stderr
    assert "not enough memory" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hidden", "kind", "name"),
    [("PIL._avif", "AVIF", "AVIF image"), ("PIL._webp", "WEBP", "WebP image")],
)
def test_missing_codec_is_told_apart(tmp_path: Path, hidden: str, kind: str, name: str) -> None:
    (tmp_path / "image").write_bytes(encode(noise(), kind))
    code = f"""
import sys, warnings
sys.modules["{hidden}"] = None
from cifarml.errors import ImageError
from cifarml.images import decode_image
warnings.simplefilter("ignore")
try:
    decode_image(sys.argv[1])
except ImageError as error:
    print(error.code, error.message, error.hint, sep="|")
"""
    done = run(code, str(tmp_path / "image"))
    code_, message, hint = done.stdout.strip().split("|")
    assert code_ == "unsupported_image", done.stderr
    assert name in message
    assert "pip install" in hint


@pytest.mark.slow
def test_heic_without_its_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(encode_as(noise(), "HEIF"))
    code = """
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "pillow_heif" else super().find_spec(name, path, target)
sys.meta_path[:] = [Without if each is PathFinder else each for each in sys.meta_path]
from cifarml.errors import ImageError
from cifarml.images import SUFFIXES, decode_image
assert ".heic" not in SUFFIXES and ".avif" in SUFFIXES
try:
    decode_image(sys.argv[1])
except ImageError as error:
    print(error.code, error.message, error.hint, sep="|")
"""
    done = run(code, str(tmp_path / "IMG_1.HEIC"))
    code_, message, hint = done.stdout.strip().split("|")
    assert code_ == "unsupported_image", done.stderr
    assert message.endswith("IMG_1.HEIC: HEIC (iPhone) image, which can't be read")
    assert hint.startswith("pip install 'cifarml[heic]'")


def test_pillow_is_not_changed() -> None:
    """Neither a format is registered nor a limit raised for other code in the process."""
    assert Image.MAX_IMAGE_PIXELS == 89_478_485
    decode_image(encode_as(noise(), "HEIF"))
    assert "HEIF" not in Image.OPEN
    assert "HEIF" not in FORMATS
    assert MAX_PIXELS < Image.MAX_IMAGE_PIXELS
    assert encode_image(encode_as(noise(), "HEIF"))[4:8] == b"ftyp"
