"""Image files to pixels: the one decoder, used in training, scoring and prediction alike."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from cifarml.cifar10 import IMAGE_SIZE
from cifarml.errors import ImageError

__all__ = ["DECODER_VERSION", "FORMATS", "MAX_PIXELS", "SUFFIXES", "decode_image", "image_size"]

DECODER_VERSION: Final = 1
"""Raised when the same file would give other pixels, so that no cache keeps the old ones."""

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""The only file formats that are ever opened, by Pillow's names."""

SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"})
"""File names that are taken for images, in lower case."""

MAX_PIXELS: Final = 8192 * 8192
"""Larger images are refused before they are decoded."""

_ORIENTATION_TAG: Final = 0x0112
_TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WITH_ORIENTATION: Final = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})
_WITH_ALPHA: Final = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})


def decode_image(data: bytes, *, side: int = IMAGE_SIZE) -> npt.NDArray[np.uint8]:
    """Decode an image file to the pixels that the network sees.

    The first frame is turned upright (EXIF), its centred square is brought to 32x32 with an
    antialiasing filter (Lanczos), and what is transparent becomes white. A 32x32 image without
    transparency keeps its pixels.

    Args:
        data: The bytes of a PNG, JPEG, WebP, GIF or BMP file of at most 67,108,864 pixels.
        side: Bring the square to so many pixels instead: for people, who see more than the network.

    Returns:
        uint8, shape (32, 32, 3) or (side, side, 3), red-green-blue.

    Raises:
        ImageError: If the bytes are no such image, are damaged, or hold too many pixels.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (640, 480), "red").save(file, "JPEG")
        >>> decode_image(file.getvalue()).shape
        (32, 32, 3)
    """
    with _translated(data):
        return _decode(data, side)


def image_size(data: bytes) -> tuple[int, int]:
    """Return width and height of an image file, in pixels as stored, without decoding it.

    Args:
        data: As for :func:`decode_image`.

    Raises:
        ImageError: As :func:`decode_image` does.
    """
    with _translated(data), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return image.size


@contextmanager
def _translated(data: bytes) -> Iterator[None]:
    """Turn whatever Pillow raises into an ImageError."""
    if not data:
        raise ImageError("the file is empty (0 bytes)", code="not_an_image")
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        message = f"not a PNG, JPEG, WebP, GIF or BMP image; begins with {data[:12]!r}"
        raise ImageError(message, code="not_an_image") from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MAX_PIXELS:,} pixels", code="too_many_pixels") from None
    except Exception as error:  # Pillow's decoders raise almost anything on hostile bytes
        raise ImageError(f"damaged image: {error or type(error).__name__}") from error


def _decode(data: bytes, side: int) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            message = f"{width:,} x {height:,} pixels, more than the {MAX_PIXELS:,} allowed"
            raise ImageError(message, code="too_many_pixels")
        shorter = min(width, height)
        if image.format == "JPEG" and shorter >= 4 * side:
            # Let libjpeg shrink a photo by 2, 4 or 8 while it decodes: quicker, and a fraction of the memory.
            image.draft(image.mode, (2 * side, 2 * side))
            width, height = image.size
            shorter = min(width, height)
        upright = None
        if not _WITH_ORIENTATION.isdisjoint(image.info):
            upright = _TRANSPOSE.get(image.getexif().get(_ORIENTATION_TAG, 1))
        pixels = _to_rgb_or_rgba(image)
        if pixels.size != (side, side):
            left, top = (width - shorter) / 2, (height - shorter) / 2
            # Pillow resizes RGBA with premultiplied alpha, so hidden colours don't bleed into the edges.
            pixels = pixels.resize(
                (side, side),
                Image.Resampling.LANCZOS,
                box=(left, top, left + shorter, top + shorter),
                reducing_gap=3.0,
            )
        if upright is not None:
            pixels = pixels.transpose(upright)
        if pixels.mode == "RGBA":
            white = Image.new("RGBA", pixels.size, "white")
            pixels = Image.alpha_composite(white, pixels).convert("RGB")
        return np.frombuffer(pixels.tobytes(), np.uint8).reshape(side, side, 3)


def _to_rgb_or_rgba(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would cut off at 255 instead of scaling
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray((wide // 257).astype(np.uint8)).convert("RGB")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("RGB")
