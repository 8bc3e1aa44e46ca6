"""Equality of the fast JPEG decoder with `decode_image`, for valid and damaged files."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from cifarml.data.archives.archive import open_archive
from cifarml.data.decode import _decode_small_jpeg, decode_images
from cifarml.errors import ImageError
from cifarml.images import decode_image
from cifarml.progress import Progress
from tests.image_files import write_zip


def noise(rng: np.random.Generator, mode: str, size: tuple[int, int] = (32, 32)) -> Image.Image:
    """Return noise on a smooth gradient, so that all DCT coefficients occur."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    ground = np.linspace(0, 255, size[0])[None, :, None] * np.linspace(0, 1, size[1])[:, None, None]
    pixels = (ground + rng.normal(0, rng.choice([2, 20, 80]), (size[1], size[0], channels))).clip(0, 255)
    return Image.fromarray(pixels.astype(np.uint8).squeeze(), mode if channels == 4 else None)


def encode(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def with_segment(content: bytes, marker: int, payload: bytes) -> bytes:
    """Return the JPEG with an additional segment after the first marker."""
    return content[:2] + bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload + content[2:]


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


EXTRAS: dict[str, dict[str, object]] = {
    "plain": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "restart markers": {"restart_marker_blocks": 1},
    "restart rows": {"restart_marker_rows": 1},
    "ICC": {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()},
    "EXIF": {"exif": exif(6)},
    "EXIF upright": {"exif": exif(1)},
    "XMP": {
        "xmp": b"<x:xmpmeta xmlns:x='adobe:ns:meta/' tiff:Orientation='3'/> http://ns.adobe.com/tiff/1.0/"
    },
    "comment": {"comment": b"Exif is only a word here"},
    "dpi": {"dpi": (300, 300)},
}
SEGMENTS = {
    "Adobe 0": (0xEE, b"Adobe\0\x64\0\0\0\0\0"),
    "Adobe 1": (0xEE, b"Adobe\0\x64\0\0\0\0\1"),
    "APP9": (0xE9, b"x"),
}


def good_jpegs() -> list[bytes]:
    rng = np.random.default_rng(7)
    found = [encode(noise(rng, "RGB", size)) for size in ((31, 32), (32, 33), (8, 8), (64, 64), (200, 150))]
    for mode, quality, subsampling in itertools.product(
        ("RGB", "L"), (1, 10, 50, 75, 90, 95, 100), (0, 1, 2)
    ):
        options = {"quality": quality, "subsampling": subsampling}
        plain = encode(noise(rng, mode), **options)
        found += [with_segment(plain, *segment) for segment in SEGMENTS.values()]
        found += [encode(noise(rng, mode), **options, **extra) for extra in EXTRAS.values()]
    for quality in (1, 50, 75, 100):
        found.append(encode(noise(rng, "CMYK"), quality=quality))
        found.append(encode(noise(rng, "RGB"), quality=quality, keep_rgb=True))
    return found


GOOD = good_jpegs()


def damaged_jpegs() -> list[bytes]:
    rng = np.random.default_rng(8)
    found = []
    for content in (GOOD[i] for i in rng.integers(0, len(GOOD), 1500)):
        data = bytearray(content)
        match int(rng.integers(0, 5)):
            case 0:
                data = data[: int(rng.integers(1, len(data)))]
            case 1:
                data[int(rng.integers(2, len(data)))] ^= 1 << int(rng.integers(0, 8))
            case 2:
                start = int(rng.integers(2, len(data)))
                data[start : start + 8] = rng.bytes(8)
            case 3:
                start = int(rng.integers(2, len(data)))
                del data[start : start + int(rng.integers(1, 20))]
            case _:
                data += rng.bytes(5)
        found.append(bytes(data))
    return found


def decode_one(content: bytes) -> npt.NDArray[np.uint8] | str:
    try:
        return decode_image(content)
    except ImageError as error:
        return error.message


def test_fast_decoder_is_bit_identical() -> None:
    num_fast = 0
    for content in GOOD:
        image = np.zeros((32, 32, 3), np.uint8)
        if _decode_small_jpeg(content, image):
            num_fast += 1
            assert np.array_equal(image, decode_image(content))
    assert num_fast > 300
    assert num_fast < len(GOOD), "some must need decode_image"


@pytest.mark.parametrize("kind", ["good", "damaged"])
def test_decode_images_equals_decode_image(tmp_path: Path, kind: str) -> None:
    files = {f"{i}.jpg": content for i, content in enumerate(GOOD if kind == "good" else damaged_jpegs())}
    steps: list[Progress] = []
    with open_archive(write_zip(tmp_path / "a.zip", files)) as tree:
        images, bad, _ = decode_images(tree, list(files), on_progress=steps.append)
    reasons = {each.name: each.reason for each in bad}
    for image, (name, content) in zip(images, files.items(), strict=True):
        expected = decode_one(content)
        if isinstance(expected, str):
            assert reasons.pop(name) == expected
            assert not image.any(), "a bad image is black"
        else:
            assert np.array_equal(image, expected), name
    assert not reasons
    if kind == "good":
        assert not bad
    else:
        assert 200 < len(bad) < len(files) - 200
        assert [each.name for each in bad] == sorted((p.name for p in bad), key=list(files).index)
    done = [step.done for step in steps]
    assert done == sorted(set(done))
    assert done[-1] == len(files)
    assert {step.total for step in steps} == {len(files)}
