"""Image decoding, shared by training, scoring and prediction so that they see identical pixels."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from cifarml.cifar10 import IMAGE_SIZE
from cifarml.errors import ImageError
from cifarml.paths import expand_home

DECODER_VERSION: Final = 1
"""Increment it when the same file would decode to different pixels; it is part of every cache key."""

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Supported file formats, by their Pillow names; no other decoder is ever invoked."""

SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"})
"""File name suffixes of images, in lower case."""

MAX_PIXELS: Final = 8192 * 8192
"""Limit of an image; larger ones are refused before decoding (decompression bombs)."""

ImageLike: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | npt.NDArray[np.uint8]
)
"""Any supported representation of an image.

- The path or the bytes of a PNG, JPEG, WebP, GIF or BMP file.
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


def decode_image(image: ImageLike, *, side: int = IMAGE_SIZE) -> npt.NDArray[np.uint8]:
    """Decode an image to the pixels that the network receives.

    Only the first frame is decoded. It is rotated according to its EXIF orientation, center-cropped to a
    square and resized to 32x32 with an antialiasing (Lanczos) filter; transparent pixels become white. The
    pixels of a 32x32 image without transparency are unchanged.

    Args:
        image: A path, the bytes of an image file, a binary file object, a `PIL.Image.Image` or a uint8
            array; see `ImageLike`. At most 67,108,864 pixels.
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
    with _open_image(image) as opened:
        return _to_pixels(opened, side, may_change=not isinstance(image, Image.Image))


def image_size(image: ImageLike) -> tuple[int, int]:
    """Return the stored width and height of an image, in pixels, without decoding it.

    Raises:
        ImageError: If the image can't be read; see :func:`decode_image`.
    """
    with _open_image(image) as opened:
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
        _check_size(opened)
        pixels, file = _to_rgb_or_rgba(opened), io.BytesIO()
        if (upright := _orientation(opened)) is not None:
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
            content = file.read(_MAX_FILE_BYTES + 1)
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
        raise _too_many_pixels(array.shape[1], array.shape[0])
    return Image.fromarray(np.ascontiguousarray(array))


@contextmanager
def _open_image(image: ImageLike) -> Iterator[Image.Image]:
    """Open an image, and translate every exception of Pillow into an ImageError."""
    source = _read_source(image)
    try:
        if isinstance(source, Image.Image):
            yield source
            return
        if not source:
            raise ImageError("the file is empty (0 bytes)", code="not_an_image")
        with Image.open(io.BytesIO(source), formats=FORMATS) as opened:
            yield opened
    except ImageError as error:
        raise ImageError(f"{_path_prefix(image)}{error.message}", error.hint, code=error.code) from None
    except UnidentifiedImageError:
        begin = source[:12] if isinstance(source, bytes) else b""
        message = f"{_path_prefix(image)}not a PNG, JPEG, WebP, GIF or BMP image; begins with {begin!r}"
        raise ImageError(message, code="not_an_image") from None
    except Image.DecompressionBombError:
        message = f"{_path_prefix(image)}more than {MAX_PIXELS:,} pixels"
        raise ImageError(message, code="too_many_pixels") from None
    except Exception as error:  # malformed files make Pillow's decoders raise almost anything
        raise ImageError(f"{_path_prefix(image)}damaged image: {error or type(error).__name__}") from error


def _path_prefix(image: ImageLike) -> str:
    """Return the prefix of an error message: the path of the image, if it has one."""
    return f"{os.fsdecode(image)}: " if isinstance(image, str | os.PathLike) else ""


def _shorten_path(path: str | os.PathLike[str]) -> str:
    text = os.fsdecode(path)
    return repr(text) if len(text) <= 200 else f"{text[:60]!r}... ({len(text):,} characters)"


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_many_pixels(width, height)
    if not width * height:
        raise ImageError(f"the image has no pixels ({width} x {height})", code="not_an_image")


def _too_many_pixels(width: int, height: int) -> ImageError:
    message = f"{width:,} x {height:,} pixels, more than the {MAX_PIXELS:,} allowed"
    return ImageError(message, code="too_many_pixels")


def _orientation(image: Image.Image) -> Image.Transpose | None:
    if _WITH_ORIENTATION.isdisjoint(image.info):
        return None
    return _TRANSPOSE.get(image.getexif().get(ExifTags.Base.Orientation, 1))


def _to_pixels(image: Image.Image, side: int, *, may_change: bool) -> npt.NDArray[np.uint8]:
    _check_size(image)
    if may_change and image.format == "JPEG" and min(image.size) >= 4 * side:
        # libjpeg downscales by 2, 4 or 8 while decoding: faster, with a fraction of the memory.
        image.draft(image.mode, (2 * side, 2 * side))
    upright = _orientation(image)
    pixels = _to_rgb_or_rgba(image)
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
    return np.frombuffer(pixels.tobytes(), np.uint8).reshape(side, side, 3)


def _to_rgb_or_rgba(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith("I"):  # 16 bits per pixel, which Pillow would clip at 255 instead of scaling
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray((wide // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("RGB")
