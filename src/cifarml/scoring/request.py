"""Request format of an endpoint."""

from __future__ import annotations

import binascii
import json
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple, NoReturn

from cifarml.errors import ImageError, RequestError
from cifarml.images import image_size
from cifarml.imaging.formats import FORMAT_NAMES
from cifarml.imaging.opening import MAX_JPEG2000_PIXELS, MAX_JPEG_PIXELS, MAX_PIXELS, pixel_limit
from cifarml.scoring.multipart import FORM, read_file

MAX_BODY_BYTES: Final = 10 * 2**20
"""Maximum size of a request body."""

MAX_IMAGES: Final = 64
"""Maximum number of images in one request."""

IMAGE_TYPES: Final = frozenset({
    *("image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif", "image/bmp", "image/tiff"),
    *("image/avif", "image/jp2", "image/heic", "image/heif", "image/x-portable-anymap"),
    *("image/x-portable-bitmap", "image/x-portable-graymap", "image/x-portable-pixmap"),
})  # fmt: skip
"""Content types of a body that is an image file; the format is detected from the file itself."""

BINARY: Final = "application/octet-stream"
"""Content type of a file of an unnamed format; accepted like an image type."""

CODES: Final[Mapping[str, tuple[int, str]]] = {
    "empty_body": (400, "the request body is empty"),
    "broken_body": (400, "the request body is incomplete or malformed"),
    "not_json": (400, "the request body is not valid UTF-8 JSON"),
    "wrong_fields": (400, "expected either imagebase64 (a string) or images (a list of strings)"),
    "wrong_form": (400, "expected a multipart form with exactly one file"),
    "wrong_method": (405, "method not allowed; use POST"),
    "too_large": (413, f"the request body is larger than {MAX_BODY_BYTES:,} bytes"),
    "too_many_images": (413, f"the request has more than {MAX_IMAGES} images"),
    "wrong_content_type": (
        415,
        f"unsupported Content-Type; expected application/json, an image type, {BINARY} or {FORM}",
    ),
    "wrong_content_encoding": (415, "unsupported Content-Encoding; expected gzip or none"),
    "not_base64": (422, "the image is not valid base64, or is a data URL"),
    "not_an_image": (422, f"the file is not a {FORMAT_NAMES} image"),
    "unsupported_image": (
        422,
        "the image has a format or pixel type that this endpoint can't decode, such as HEIC without the "
        "extra heic; send a PNG or JPEG",
    ),
    "damaged_image": (422, "the image file is truncated or damaged"),
    "too_many_pixels": (
        422,
        f"the image has more than {MAX_PIXELS:,} pixels (in a list: all images together; one baseline JPEG: "
        f"{MAX_JPEG_PIXELS:,}, one JPEG 2000: {MAX_JPEG2000_PIXELS:,})",
    ),
    "out_of_memory": (503, "the endpoint has too little memory to decode the image; send a smaller one"),
    "model_failed": (500, "the prediction failed; see the log"),
}
"""Error codes, each with its HTTP status and message."""


_GZIP: Final = b"\x1f\x8b"
_PNG_WITHOUT_NEWLINES: Final = b"\x89PNG\x1a"
_NO_FILES: Final = {
    b"{": "the request body is JSON, not an image file; send it as application/json",
    b"data:": "the request body is a data URL; send the decoded image file",
    b"--": f"the request body is a form, not an image file; send it as {FORM}, with the client's own header",
}
"""Explanations of files that are sent as images by mistake, by their first bytes."""

_OTHER_ENCODINGS: Final = frozenset({"br", "compress", "deflate", "zstd", "gzip, gzip"})
_OTHER_TYPES: Final = {
    "application/x-www-form-urlencoded": " (the default of curl)",
    "application/gzip": " (use Content-Encoding: gzip with the type of the content)",
    "application/zip": "",
    "image/svg+xml": "",
    "multipart/mixed": "",
    "multipart/related": "",
    "text/html": "",
    "text/json": "",
    "text/plain": "",
}
"""Unsupported types that clients send, with what to know about them."""


class Request(NamedTuple):
    """The images of a request.

    Attributes:
        images: For each image, the bytes of its file, or its error.
        is_list: Whether the request has a list of images, so that the response has a list of predictions.
    """

    images: list[bytes | RequestError]
    is_list: bool


def read_request(content_type: str, body: bytes) -> Request:
    """Parse a request.

    Args:
        content_type: Value of the Content-Type header; if empty, the body is parsed as JSON.
        body: The request body.

    Returns:
        The images; an invalid image in a list is returned as its error.

    Raises:
        RequestError: If the request as a whole is invalid; its code is one of :data:`CODES`.
    """
    kind = content_type.partition(";")[0].strip().lower()
    is_file = kind in IMAGE_TYPES or kind == BINARY
    if not is_file and kind not in {"application/json", FORM, ""}:
        raise RequestError("wrong_content_type", _explain_type(kind))
    if not body:
        raise RequestError("empty_body", 'the request body is empty; send {"imagebase64": "..."}')
    if len(body) > MAX_BODY_BYTES:
        raise RequestError(
            "too_large", f"the request body is larger than {MAX_BODY_BYTES:,} bytes; send a smaller image"
        )
    if body.startswith(_GZIP) and kind != FORM:
        raise RequestError(
            "not_an_image" if is_file else "not_json",
            "the request body is gzip data; add the header Content-Encoding: gzip",
        )
    if is_file or kind == FORM:
        return Request([_check_file(body if is_file else read_file(content_type, body))], is_list=False)
    fields = _read_json(body)
    if not isinstance(fields, dict) or ("imagebase64" in fields) == ("images" in fields):
        raise RequestError(
            "wrong_fields", 'expected either {"imagebase64": "..."} or {"images": ["...", "..."]}'
        )
    if "imagebase64" in fields:
        if not isinstance(fields["imagebase64"], str):
            raise RequestError("wrong_fields", "imagebase64 must be a string: a base64-encoded image file")
        return Request([_decode_base64(fields["imagebase64"])], is_list=False)
    images = [_try_base64(text) for text in _read_list(fields["images"])]
    if len(images) > 1:
        _check_pixels(image for image in images if isinstance(image, bytes))
    return Request(images, is_list=True)


def inflate(content_encoding: str, body: bytes) -> bytes:
    """Decompress a body that has a Content-Encoding, up to the limit of all bodies.

    Args:
        content_encoding: Value of the Content-Encoding header; empty without one.
        body: The body as received.

    Raises:
        RequestError: If the encoding is not gzip, or the body is not a complete gzip stream within the limit.
    """
    encoding = content_encoding.strip().lower()
    if encoding in {"", "identity"} or not body:
        return body
    if encoding not in {"gzip", "x-gzip"}:
        named = f": {encoding}" if encoding in _OTHER_ENCODINGS else ""
        raise RequestError(
            "wrong_content_encoding",
            f"unsupported Content-Encoding{named}; compress the body with gzip, or send it uncompressed "
            "without this header",
        )
    decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        inflated = decompressor.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise RequestError(
            "broken_body", "the request body is not gzip data, although its Content-Encoding is gzip"
        ) from None
    if len(inflated) > MAX_BODY_BYTES:
        raise RequestError(
            "too_large", f"the decompressed request body is larger than {MAX_BODY_BYTES:,} bytes"
        )
    if not decompressor.eof or decompressor.unused_data:
        raise RequestError("broken_body", "the request body is not one complete gzip stream")
    return inflated


def _explain_type(kind: str) -> str:
    """Explain a Content-Type that is not accepted; one that is not well known could be a secret."""
    named = f": {kind}{_OTHER_TYPES[kind]}" if kind in _OTHER_TYPES else ""
    return (
        f"unsupported Content-Type{named}; send an image file with its own type, such as image/png or "
        f"image/jpeg, or with {BINARY}; {FORM} with one file; or application/json"
    )


def _check_file(image: bytes) -> bytes:
    """Explain files that are no images because of a mistake in the request."""
    if image.startswith(_PNG_WITHOUT_NEWLINES):
        raise RequestError(
            "damaged_image",
            "the line breaks of the PNG file are missing; with curl, use --data-binary, not -d",
        )
    for start, text in _NO_FILES.items():
        if image.startswith(start):
            raise RequestError("not_an_image", text)
    return image


def _read_json(body: bytes) -> Any:
    try:
        return _decode_json(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # the parser's message could quote the request
        raise RequestError(
            "not_json",
            'the request body is not valid UTF-8 JSON; send {"imagebase64": "..."}, or an image file with '
            "its Content-Type, such as image/png",
        ) from None


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not valid JSON")


_decode_json: Final = json.JSONDecoder(parse_constant=_reject_constant).decode


def _read_list(images: object) -> list[str]:
    if not isinstance(images, list) or not images:
        raise RequestError(
            "wrong_fields", f"images must be a list of 1 to {MAX_IMAGES} strings: base64-encoded image files"
        )
    if len(images) > MAX_IMAGES:
        raise RequestError(
            "too_many_images", f"the request has {len(images):,} images; send at most {MAX_IMAGES} at a time"
        )
    for index, text in enumerate(images):
        if not isinstance(text, str):
            raise RequestError(
                "wrong_fields", f"images[{index}] must be a string: a base64-encoded image file"
            )
    return images


def _check_pixels(images: Iterable[bytes]) -> None:
    """Reject lists with too many pixels in total: a few kilobytes per image could take minutes to decode."""
    num_pixels = 0
    for image in images:
        with suppress(ImageError):  # reported when this image is decoded
            width, height = image_size(image)
            num_pixels += width * height if width * height <= pixel_limit(image) else 0
    if num_pixels > MAX_PIXELS:
        raise RequestError(
            "too_many_pixels",
            f"the images have more than {MAX_PIXELS:,} pixels in total; send fewer at a time",
        )


def _try_base64(text: str) -> bytes | RequestError:
    try:
        return _decode_base64(text)
    except RequestError as error:
        return error


def _decode_base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        pass
    if text.lstrip()[:5].lower() == "data:":
        raise RequestError("not_base64", "the image is a data URL; send only the part after ';base64,'")
    try:  # the base64 command wraps lines
        return binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except ValueError:
        raise RequestError(
            "not_base64", "the image is not valid base64; expected letters, digits, + and /, padded with ="
        ) from None
