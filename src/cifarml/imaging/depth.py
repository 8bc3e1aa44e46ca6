"""Scaling of pixels with 16 bits per channel to 8 bits, by the range of values that an image uses.

A file of 16 bits often holds 10, 12 or 14 bits from a sensor. Scaled by 65,535, such an image would be almost
black.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cifarml.errors import ImageError
from cifarml.imaging.opening import load

_DEPTHS: Final = (8, 10, 12, 14, 16)
_BLOCK_ROWS: Final = 256
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_LOW_BYTE: Final = {"L": "B", "B": "L", "N": "B" if np.little_endian else "L"}
"""Last letter of the raw mode that unpacks the other byte of each 16-bit value."""


class Scaled(NamedTuple):
    """Image with 8 bits per channel, and the bits per channel that the file uses, 8 to 16."""

    image: Image.Image
    bits: int


def used_bits(maximum: int) -> int:
    """Return the smallest of 8, 10, 12, 14 and 16 bits that holds a value.

    Example:
        >>> used_bits(3000)
        12
    """
    return next(bits for bits in _DEPTHS if maximum < 2**bits)


def may_be_deep(head: bytes) -> bool:
    """Return whether a file that begins with these 25 bytes or more can have 16 bits per channel."""
    if head.startswith(b"\x89PNG"):
        return head[24:25] == b"\x10"
    return head.startswith((b"II", b"MM"))  # TIFF


def describe_bits(counts: Mapping[int, int]) -> tuple[str, ...]:
    """Describe how images of more than 8 bits were scaled, by the number of images for each depth."""
    return tuple(
        f"{count:,} image{' has' if count == 1 else 's have'} {bits} bits per channel, "
        f"scaled from 0..{2**bits - 1:,} to 0..255"
        for bits, count in sorted(counts.items())
    )


def scale_gray(image: Image.Image) -> Scaled:
    """Scale a loaded image of mode I or I;16 to mode L.

    The smallest of 8, 10, 12, 14 and 16 bits that holds the largest value becomes the range, so that the
    result depends on nothing but the file, and images from one sensor keep their relative brightness. Formats
    that declare their range (PPM, JPEG 2000) are scaled by their decoder already.

    Raises:
        ImageError: If values are negative or have more than 16 bits.
    """
    wide = np.asarray(image)
    low, high = int(wide.min()), int(wide.max())
    if low < 0 or high > 65535:
        raise ImageError(
            f"values from {low:,} to {high:,} have no fixed range",
            hint="save it with 8 or 16 bits per channel",
            code="unsupported_image",
        )
    bits = used_bits(high) if image.format in {None, "PNG", "TIFF"} else 16
    narrow = _scale(wide, bits)
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts 8 bits only
        narrow = 255 - narrow
    return Scaled(Image.fromarray(narrow), bits)


def scale_color(image: Image.Image, reopen: Callable[[], Image.Image]) -> Scaled | None:
    """Scale a PNG or TIFF with 16 bits in each of several channels, unless it uses all of them.

    Pillow reads the high byte of each value. If the high bytes leave room, the file is decoded again
    for the low bytes.

    Args:
        image: The file, not loaded.
        reopen: Opens the file again.

    Returns:
        The image in mode RGB or RGBA, or None if Pillow's own conversion is right.
    """
    raw_mode = _raw_mode(image)
    if not raw_mode:
        return None
    if raw_mode.startswith("LA"):
        image = _reopen(reopen, "RGBA")  # the four bytes of gray and alpha
        load(image)
        planes = np.asarray(image)
        high, low, alpha = planes[..., :1], planes[..., 1:2], planes[..., 2:3]
    else:
        load(image)
        planes = np.asarray(image)
        high, low, alpha = planes[..., :3], None, planes[..., 3:]
    if high.max() >= 2 ** (_DEPTHS[-2] - 8):
        return None
    if low is None:
        low_image = _reopen(reopen, raw_mode[:-1] + _LOW_BYTE[raw_mode[-1]])
        load(low_image)
        low = np.asarray(low_image)[..., :3]
    wide = high.astype(np.uint16) << 8 | low
    bits = used_bits(int(wide.max()))
    narrow = _scale(wide, bits)
    if narrow.shape[2] == 1:
        narrow = np.repeat(narrow, 3, axis=2)
    return Scaled(Image.fromarray(np.concatenate([narrow, alpha], axis=2)), bits)


def _raw_mode(image: Image.Image) -> str:
    """Return how Pillow unpacks an image with 16 bits in several channels, such as RGB;16B, or ""."""
    for tile in getattr(image, "tile", ()):
        raw_mode = tile[3][0] if isinstance(tile[3], tuple) else tile[3]
        if str(raw_mode).startswith(("RGB;16", "RGBA;16", "RGBX;16", "LA;16")):
            return str(raw_mode)
    return ""


def _reopen(reopen: Callable[[], Image.Image], raw_mode: str) -> Image.Image:
    """Open an image, with another raw mode."""
    image = reopen()
    image.tile = [  # type: ignore[attr-defined]
        each._replace(args=(raw_mode, *each.args[1:]) if isinstance(each.args, tuple) else raw_mode)
        for each in image.tile  # type: ignore[attr-defined]
    ]
    return image


def _scale(wide: npt.NDArray[np.generic], bits: int) -> npt.NDArray[np.uint8]:
    """Scale values of this many bits to 8 bits, in blocks of rows to save memory."""
    narrow = np.empty(wide.shape, np.uint8)
    for start in range(0, len(wide), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        narrow[rows] = wide[rows].astype(np.uint32) * 255 // (2**bits - 1)
    return narrow
