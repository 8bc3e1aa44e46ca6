"""Image decoding, shared by training, scoring and prediction so that they see identical pixels."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from cifarml.cifar10 import IMAGE_SIZE
from cifarml.errors import ImageError
from cifarml.imaging.depth import Scaled, scale_color, scale_gray
from cifarml.imaging.formats import SUFFIXES as SUFFIXES  # noqa: PLC0414  # other modules import it here
from cifarml.imaging.opening import MAX_PIXELS as MAX_PIXELS  # noqa: PLC0414
from cifarml.imaging.opening import (
    check_size,
    convert,
    decoding,
    load,
    open_file,
    reduce_file,
    too_many_pixels,
)
from cifarml.paths import expand_home

DECODER_VERSION: Final = 2
"""Increment it when the same file would decode to different pixels; it is part of every cache key."""

ImageLike: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | npt.NDArray[np.uint8]
)
"""Any supported representation of an image.

- The path or the bytes of a PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000 or PPM file, or, with the extra
  `heic`, a HEIC file.
- A binary file object, which is read from its current position to its end.
- A `PIL.Image.Image`.
- A uint8 array of shape (H, W), (H, W, 3) or (H, W, 4): grayscale, RGB or RGBA.

Example:
    ```python
    decode_image("ship.png")
    decode_image(Path("ship.png").read_bytes())
    decode_image(np.zeros((480, 640, 3), np.uint8))
    ```
"""

_ACCEPTED: Final = (
    "a path, bytes, a binary file object, a PIL.Image.Image, or a numpy uint8 array of shape (H, W), "
    "(H, W, 3) or (H, W, 4)"
)
_MAX_FILE_BYTES: Final = 2**29
"""Exceeds the size of an uncompressed image of :data:`MAX_PIXELS` pixels."""

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


class DecodedImage(NamedTuple):
    """Pixels of an image, uint8 of shape (side, side, 3), and the bits per channel that it used, 8 to 16."""

    pixels: npt.NDArray[np.uint8]
    bits: int


class _Opened(NamedTuple):
    """An image, with the content of its file unless it was passed as pixels."""

    image: Image.Image
    content: bytes | None


def decode_image(image: ImageLike, *, side: int = IMAGE_SIZE) -> npt.NDArray[np.uint8]:
    """Decode an image to the pixels that the network receives.

    Only the first frame is decoded. It is rotated according to its EXIF orientation, center-cropped to a
    square and resized to 32x32 with an antialiasing (Lanczos) filter; transparent pixels become white. The
    pixels of a 32x32 image without transparency are unchanged.

    Args:
        image: A path, the bytes of an image file, a binary file object, a `PIL.Image.Image` or a uint8
            array; see `ImageLike`. At most 67,108,864 pixels; a baseline JPEG 268,435,456.
        side: Height and width of the result in pixels, for example to display the image.

    Returns:
        RGB pixels, uint8, shape (32, 32, 3) or (side, side, 3).

    Raises:
        ImageError: If the image can't be read, is not a supported image, is damaged, or has too many pixels.

    Example:
        ```python
        pixels = decode_image("photo.jpg")
        assert pixels.shape == (32, 32, 3)
        ```
    """
    return decode_described(image, side=side).pixels


def decode_described(image: ImageLike, *, side: int = IMAGE_SIZE) -> DecodedImage:
    """Decode an image like :func:`decode_image`, and return how many bits per channel it used.

    Raises:
        ImageError: If the image can't be decoded; see :func:`decode_image`.
    """
    with _open_image(image) as opened:
        return _to_pixels(opened, side)


def image_size(image: ImageLike) -> tuple[int, int]:
    """Return the stored width and height of an image, in pixels, without decoding it.

    Raises:
        ImageError: If the image can't be read; see :func:`decode_image`.
    """
    with _open_image(image) as (opened, _):
        return opened.size


def encode_image(image: ImageLike) -> bytes:
    r"""Encode an image for a request: a file is returned unchanged, pixels as an upright PNG.

    Raises:
        ImageError: If the image can't be read, or pixels are not an image. The content of files is not
            checked.

    Example:
        >>> encode_image(np.zeros((32, 32), np.uint8))[:4]
        b'\x89PNG'
    """
    source = _read_source(image)
    if isinstance(source, bytes):
        return source
    with _open_image(source) as opened:
        check_size(opened.image)
        pixels, file = _to_rgb_or_rgba(opened).image, io.BytesIO()
        if (upright := _orientation(opened.image)) is not None:
            pixels = pixels.transpose(upright)
        Image.fromarray(np.asarray(pixels)).save(file, "PNG")  # without metadata, such as its location
        return file.getvalue()


def _read_source(image: ImageLike) -> bytes | Image.Image:
    """Return the content of an image file, or a PIL image if the input consists of pixels."""
    if isinstance(image, bytes):  # the most frequent case
        return image
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return _read_path(image)
    if isinstance(image, Image.Image):
        if image.mode in {"I", "F"}:
            raise ImageError(
                f"a PIL image of mode {image.mode!r} has no fixed value range",
                hint='scale it to 0 to 255 and convert it: image.convert("L")',
            )
        return image
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if hasattr(image, "read"):
        return _read_file_object(image)
    raise ImageError(f"expected an image as {_ACCEPTED}; got {type(image).__name__}", code="not_an_image")


def _read_path(path: str | os.PathLike[str]) -> bytes:
    try:
        path = expand_home(path)
        if path.is_dir():
            hint = "load a folder of labelled images with load_dataset"
            raise ImageError(f"can't read {_shorten_path(path)}: it is a folder", hint, code="not_an_image")
        if path.exists() and not path.is_file():  # reading a pipe might never end
            raise ImageError(f"can't read {_shorten_path(path)}: not a regular file", code="not_an_image")
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size  # without it, read would allocate the maximum
            content = file.read(min(size_bytes, _MAX_FILE_BYTES) + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"can't read {_shorten_path(path)}: {reason}", code="not_an_image") from error
    return _check_file_size(content)


def _read_file_object(file: IO[bytes]) -> bytes:
    try:
        content = file.read(_MAX_FILE_BYTES + 1)
    except (OSError, ValueError, TypeError) as error:  # closed, or not opened for reading
        raise ImageError(f"can't read the file object: {error}", code="not_an_image") from error
    if not isinstance(content, bytes):
        raise ImageError(
            f"expected a binary file object; its read() returned {type(content).__name__}",
            hint='open the file with mode "rb"',
            code="not_an_image",
        )
    if not content:
        raise ImageError(
            "the file object has no bytes left to read (0 bytes)",
            hint="rewind it: file.seek(0)",
            code="not_an_image",
        )
    return _check_file_size(content)


def _check_file_size(content: bytes) -> bytes:
    if len(content) > _MAX_FILE_BYTES:
        raise ImageError(f"the file has more than {_MAX_FILE_BYTES:,} bytes", code="too_many_pixels")
    return content


def _from_array(array: npt.NDArray[np.generic]) -> Image.Image:
    has_image_shape = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in {3, 4})
    if array.dtype != np.uint8 or not has_image_shape or not array.size:
        hint = "pass several images to predict_many" if array.ndim == 4 else None
        if array.dtype != np.uint8:
            hint = 'scale it to 0 to 255 and convert it, such as (255 * array).astype("uint8")'
        raise ImageError(
            "expected a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4); "
            f"got {array.dtype} {array.shape}",
            hint,
            code="not_an_image",
        )
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise too_many_pixels(array.shape[1], array.shape[0])
    return Image.fromarray(np.ascontiguousarray(array))


@contextmanager
def _open_image(image: ImageLike) -> Iterator[_Opened]:
    """Open an image; the path of a file becomes part of the message of every ImageError."""
    try:
        source = _read_source(image)
        try:
            if isinstance(source, Image.Image):
                yield _Opened(source, None)
                return
            with open_file(source) as opened:
                yield _Opened(opened, source)
        except ImageError as error:
            raise ImageError(f"{_path_prefix(image)}{error.message}", error.hint, code=error.code) from None
    except MemoryError as error:
        message = f"{_path_prefix(image)}not enough memory to decode the image"
        raise ImageError(message, "close other programs", code="out_of_memory") from error


def _path_prefix(image: ImageLike) -> str:
    """Return the prefix of an error message: the path of the image, if it has one."""
    return f"{os.fsdecode(image)}: " if isinstance(image, str | os.PathLike) else ""


def _shorten_path(path: str | os.PathLike[str]) -> str:
    text = os.fsdecode(path)
    return repr(text) if len(text) <= 200 else f"{text[:60]!r}... ({len(text):,} characters)"


def _orientation(image: Image.Image) -> Image.Transpose | None:
    if _WITH_ORIENTATION.isdisjoint(image.info) or image.format == "TIFF":  # Pillow turns TIFF files itself
        return None
    with decoding():
        return _TRANSPOSE.get(image.getexif().get(ExifTags.Base.Orientation, 1))


def _to_pixels(opened: _Opened, side: int) -> DecodedImage:
    image, content = opened
    if content is None:
        check_size(image)
    else:
        reduce_file(image, content, side)
    upright = _orientation(image)
    pixels, bits = _to_rgb_or_rgba(opened)
    if pixels.size != (side, side):
        width, height = pixels.size
        shorter = min(width, height)
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
    return DecodedImage(np.frombuffer(pixels.tobytes(), np.uint8).reshape(side, side, 3), bits)


def _to_rgb_or_rgba(opened: _Opened) -> Scaled:
    image, content = opened
    if content is not None and (scaled := scale_color(image, lambda: open_file(content))):
        return scaled
    load(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return Scaled(image, 8)
    if image.mode == "F":
        raise ImageError(
            "floating-point values have no fixed range",
            hint="save it with 8 or 16 bits per channel",
            code="unsupported_image",
        )
    if image.mode.startswith("I"):  # Pillow would clip at 255 instead of scaling
        gray, bits = scale_gray(image)
        return Scaled(gray.convert("RGB"), bits)
    if image.mode == "La":
        image = convert(image, "LA")
    has_alpha = image.mode in _WITH_ALPHA or "transparency" in image.info
    return Scaled(convert(image, "RGBA" if has_alpha else "RGB"), 8)
