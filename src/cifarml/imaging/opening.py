"""Opening of untrusted image files with Pillow: allowed decoders, limits and errors."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, cast

from PIL import Image, UnidentifiedImageError, features
from PIL.JpegImagePlugin import JpegImageFile

from cifarml.errors import ImageError
from cifarml.imaging import formats
from cifarml.imaging.formats import FORMAT_NAMES, FORMATS, HEAD_BYTES, Kind, identify

MAX_PIXELS: Final = 8192 * 8192
"""Limit of an image that is decoded at full size; larger ones are refused before (decompression bombs)."""

MAX_JPEG_PIXELS: Final = 16384 * 16384
"""Limit of a JPEG that libjpeg reduces while it decodes: photos of 200 megapixels, in a few megabytes."""

MAX_JPEG2000_PIXELS: Final = 2**25
"""Limit of a JPEG 2000, whose decoder takes 18 bytes and 150 ns per pixel, even of a file of 1 kB."""

_PILLOW_FEATURES: Final = {
    formats.JPEG: "jpg",
    formats.PNG: "zlib",
    formats.WEBP: "webp",
    formats.AVIF: "avif",
    formats.JPEG2000: "jpg_2000",
    formats.TIFF: "libtiff",
}
_NO_DECODER: Final = re.compile(r"(decoder|encoder) \S+ not available")
_START_OF_SCAN: Final = 0xDA
_TILE_WIDTH, _TILE_LENGTH = 322, 323


@contextmanager
def decoding() -> Iterator[None]:
    """Translate every exception of a decoder into an `ImageError`.

    Malformed files make decoders raise almost anything, so that nothing but calls of a decoder belongs into
    the block: an exception of other code would be reported as a damaged image.
    """
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MAX_PIXELS:,} pixels", code="too_many_pixels") from None
    except Exception as error:
        if _NO_DECODER.search(str(error)):
            raise ImageError(
                f"this installation of Pillow can't decode it: {error}",
                hint="install Pillow's own wheel: pip install --force-reinstall --only-binary :all: pillow",
                code="unsupported_image",
            ) from error
        raise ImageError(f"damaged image: {error or type(error).__name__}") from error


def open_file(content: bytes) -> Image.Image:
    """Open an image file without decoding it.

    Raises:
        ImageError: If the file is not an image, or is damaged, or its format is not supported.
    """
    if not content:
        raise ImageError("the file is empty (0 bytes)", code="not_an_image")
    head = content[:HEAD_BYTES]
    kind = identify(head)
    if kind is None:  # no decoder is tried
        message = f"not a {FORMAT_NAMES} image; begins with {head[:12]!r}"
        raise ImageError(message, code="not_an_image")
    if not kind.is_read:
        raise ImageError(f"{kind.name}, which can't be read", kind.to_hint(), code="unsupported_image")
    with decoding():
        try:
            if kind is formats.HEIC:
                return _open_heic(content)
            if kind is formats.JPEG:  # Image.open would refuse more than 179 megapixels
                return JpegImageFile(io.BytesIO(content))
            return Image.open(io.BytesIO(content), formats=FORMATS)
        except UnidentifiedImageError:
            raise _unidentified(kind) from None


def _open_heic(content: bytes) -> Image.Image:
    from pillow_heif import HeifImageFile  # the extra `heic`; it is not registered, so Pillow stays as it is

    return cast("Image.Image", HeifImageFile(io.BytesIO(content)))  # type: ignore[no-untyped-call]


def _unidentified(kind: Kind) -> ImageError:
    if (feature := _PILLOW_FEATURES.get(kind)) and not features.check(feature):
        return ImageError(
            f"{kind.name}, which this installation of Pillow can't decode",
            hint="install Pillow's own wheel: pip install --force-reinstall --only-binary :all: pillow",
            code="unsupported_image",
        )
    return ImageError(f"damaged image: a {kind.name} with an invalid header, or of an unsupported variant")


def load(image: Image.Image) -> None:
    """Decode an opened image.

    Raises:
        ImageError: If it is damaged.
    """
    with decoding():
        image.load()


def convert(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image to another mode; damaged files can have palettes or colors that make this fail.

    Raises:
        ImageError: If it is damaged.
    """
    with decoding():
        return image.convert(mode)


def check_size(image: Image.Image) -> None:
    """Raise ImageError if an image has no pixels, or more than `MAX_PIXELS`."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise too_many_pixels(width, height)
    if not width * height:
        raise ImageError(f"the image has no pixels ({width} x {height})", code="not_an_image")


def too_many_pixels(width: int, height: int, allowed: int = MAX_PIXELS) -> ImageError:
    """Return the error for an image that is too large."""
    message = f"{width:,} x {height:,} pixels, more than the {allowed:,} allowed in this format"
    return ImageError(message, "save it as a baseline JPEG, or smaller", code="too_many_pixels")


def pixel_limit(content: bytes) -> int:
    """Return how many pixels an image file may have, by its format."""
    kind = identify(content[:HEAD_BYTES])
    if kind is formats.JPEG and not _is_buffered(content):
        return MAX_JPEG_PIXELS
    return MAX_JPEG2000_PIXELS if kind is formats.JPEG2000 else MAX_PIXELS


def reduce_file(image: Image.Image, content: bytes, side: int) -> None:
    """Make libjpeg reduce a JPEG by 2, 4 or 8 while it decodes, if twice the side remains; check its size.

    This is faster, and takes a fraction of the memory: a few rows, and the reduced image.

    Raises:
        ImageError: If the image has too many pixels.
    """
    width, height = image.size
    if width * height > MAX_JPEG2000_PIXELS and width * height > (allowed := pixel_limit(content)):
        raise too_many_pixels(width, height, allowed)
    if isinstance(image, JpegImageFile):
        if min(image.size) >= 4 * side:
            with decoding():
                image.draft(image.mode, (2 * side, 2 * side))
    elif tags := getattr(image, "tag_v2", None):  # a TIFF, whose tiles can be larger than the image
        tile = tags.get(_TILE_WIDTH), tags.get(_TILE_LENGTH)
        if all(isinstance(length, int) for length in tile) and tile[0] * tile[1] > MAX_PIXELS:
            raise too_many_pixels(*tile)
    check_size(image)


def _is_buffered(content: bytes) -> bool:
    """Return whether libjpeg stores all coefficients of a JPEG, since it consists of several scans.

    They are in memory at full size then: 6 bytes per pixel. The first scan of any other JPEG contains all
    components (ITU-T T.81, B.2.3).
    """
    at, components = 2, 0
    while at + 10 <= len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == _START_OF_SCAN:
            return content[at + 4] < components
        if marker in {0xC0, 0xC1}:  # sequential; the others are progressive, lossless or hierarchical
            components = content[at + 9]
        elif 0xC2 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            return True
        at += 1 if marker == 0xFF else 2 + length
    return True
