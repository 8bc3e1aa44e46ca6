"""Files with 16 bits per channel that use fewer."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cifarml.errors import ImageError
from cifarml.images import decode_described, decode_image
from cifarml.imaging.depth import used_bits
from tests.test_images import encode, png


def ramp(maximum: int) -> npt.NDArray[np.uint16]:
    return np.linspace(0, maximum, 32 * 32).reshape(32, 32).astype(np.uint16)


@pytest.mark.parametrize(
    ("maximum", "bits"),
    [
        (0, 8),
        (255, 8),
        (256, 10),
        (1023, 10),
        (4095, 12),
        (4096, 14),
        (16_383, 14),
        (16_384, 16),
        (65_535, 16),
    ],
)
def test_used_bits(maximum: int, bits: int) -> None:
    assert used_bits(maximum) == bits


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_gray_uses_its_range(kind: str, bits: int, compression: str | None) -> None:
    wide = ramp(2**bits - 1)
    options = {"compression": compression} if kind == "TIFF" else {}
    found = decode_described(encode(Image.fromarray(wide), kind, **options))
    assert found.bits == bits
    assert np.array_equal(
        found.pixels, np.repeat((wide.astype(int) * 255 // (2**bits - 1))[..., None], 3, axis=2)
    )


def color_png(wide: npt.NDArray[np.uint16], color_type: int) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)
    return png(struct.pack(">IIBBBBB", wide.shape[1], wide.shape[0], 16, color_type, 0, 0, 0), rows)


def color_tiff(wide: npt.NDArray[np.uint16], order: str) -> bytes:
    data = wide.astype(f"{order}u2").tobytes()
    tags = [
        (256, 4, 1, wide.shape[1]),
        (257, 4, 1, wide.shape[0]),
        (258, 3, 3, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 14),
        (277, 3, 1, 3),
        (278, 4, 1, wide.shape[0]),
        (279, 4, 1, len(data)),
    ]
    ifd = struct.pack(f"{order}H", len(tags))
    for tag, form, count, value in tags:
        short = form == 3 and count == 1
        ifd += struct.pack(f"{order}HHI", tag, form, count) + struct.pack(
            f"{order}{'HH' if short else 'I'}", *([value, 0] if short else [value])
        )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 14 + len(data))
    return head + struct.pack(f"{order}HHH", 16, 16, 16) + data + ifd + bytes(4)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("kind", ["PNG", "II", "MM"])
def test_color_uses_its_range(kind: str, bits: int) -> None:
    gray = ramp(2**bits - 1)
    wide = np.stack([gray, gray[::-1], gray.T], axis=2)
    data = color_png(wide, 2) if kind == "PNG" else color_tiff(wide, "<" if kind == "II" else ">")
    found = decode_described(data)
    assert found.bits == bits
    assert np.array_equal(found.pixels, wide.astype(int) * 255 // (2**bits - 1))


def test_alpha_keeps_its_own_range() -> None:
    gray = ramp(4095)
    alpha = np.full_like(gray, 65535)
    alpha[:16] = 0
    for wide, color_type in (
        (np.stack([gray, alpha], axis=2), 4),
        (np.stack([gray, gray, gray, alpha], axis=2), 6),
    ):
        found = decode_described(color_png(wide, color_type))
        assert found.bits == 12
        assert (found.pixels[:16] == 255).all()
        assert np.array_equal(found.pixels[16:, :, 0], gray[16:].astype(int) * 255 // 4095)


def test_full_range_of_color_is_unchanged() -> None:
    gray = ramp(65_535)
    found = decode_described(color_png(np.stack([gray] * 3, axis=2), 2))
    assert found.bits == 8  # Pillow has reduced it
    assert np.array_equal(found.pixels[..., 0], gray >> 8)


def test_white_is_zero() -> None:
    data = bytearray(encode(Image.fromarray(ramp(4095)), "TIFF"))
    at = data.index(struct.pack("<HHI", 262, 3, 1))
    data[at + 8] = 0
    assert np.array_equal(decode_image(bytes(data))[..., 0], 255 - ramp(4095).astype(int) * 255 // 4095)


def test_declared_range_is_kept() -> None:
    """A PGM names its largest value, so a dark one stays dark."""
    dark = (ramp(1000)).astype(">u2").tobytes()
    pixels = decode_image(b"P5 32 32 4095\n" + dark)
    assert abs(int(pixels.max()) - 1000 * 255 // 4095) <= 1


def test_the_same_file_gives_the_same_pixels_from_any_input() -> None:
    image = Image.fromarray(ramp(3000))
    data = encode(image)
    expected = decode_image(data)
    assert np.array_equal(decode_image(image), expected)
    assert expected.max() > 180


@pytest.mark.parametrize(
    "array",
    [np.full((40, 40), 0.5, np.float32), np.full((40, 40), -5, np.int32), np.full((40, 40), 10**6, np.int32)],
)
def test_values_without_a_range_are_refused(array: npt.NDArray[Any]) -> None:
    with pytest.raises(ImageError, match="no fixed range") as caught:
        decode_image(encode(Image.fromarray(array), "TIFF"))
    assert caught.value.code == "unsupported_image"
