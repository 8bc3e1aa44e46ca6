"""Request format of an endpoint."""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple, NoReturn

from cifarml.errors import ImageError, RequestError
from cifarml.images import MAX_PIXELS, image_size

MAX_BODY_BYTES: Final = 10 * 2**20
"""Size limit of a request."""

MAX_IMAGES: Final = 64
"""Limit of the images in one request."""

IMAGE_TYPES: Final = frozenset(
    {"image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif", "image/bmp"}
)
"""Content types of a body that is the image file itself; its format is detected."""

CODES: Final[Mapping[str, tuple[int, str]]] = {
    "empty_body": (400, "nothing was sent"),
    "broken_body": (400, "the body ends early, or its parts are malformed"),
    "not_json": (400, "the body is not JSON in UTF-8"),
    "wrong_fields": (400, "there is not one of imagebase64 (a text) and images (a list of texts)"),
    "wrong_method": (405, "the request is no POST"),
    "too_large": (413, f"the body has more than {MAX_BODY_BYTES:,} bytes"),
    "too_many_images": (413, f"there are more than {MAX_IMAGES} images"),
    "wrong_content_type": (415, "the Content-Type is neither application/json nor an image's"),
    "not_base64": (422, "the text is not base64; nor is a data URL"),
    "not_an_image": (422, "the file is no PNG, JPEG, WebP, GIF or BMP image"),
    "damaged_image": (422, "the image is incomplete or damaged"),
    "too_many_pixels": (422, f"the image has more than {MAX_PIXELS:,} pixels, or those of a list together"),
    "model_failed": (500, "the model could not answer; the log says why"),
}
"""Every code of an error, with its HTTP status and what it means."""


class Request(NamedTuple):
    """The images of a request.

    Attributes:
        images: The bytes of each image file, or what is wrong with it.
        is_list: Whether a list was sent, so that a list is the answer.
    """

    images: list[bytes | RequestError]
    is_list: bool


def read_request(content_type: str, body: bytes) -> Request:
    """Parse a request; without a content type, the body is JSON.

    An error in one image of a list takes the place of that image.

    Raises:
        RequestError: If the request is invalid, with one of :data:`CODES`.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in IMAGE_TYPES and kind not in {"application/json", ""}:
        raise RequestError(
            "wrong_content_type",
            "send application/json, or an image as image/png, image/jpeg, image/webp, image/gif or "
            "image/bmp, and say so in the header Content-Type",
        )
    if not body:
        raise RequestError("empty_body", 'nothing was sent; send {"imagebase64": "..."}')
    if len(body) > MAX_BODY_BYTES:
        raise RequestError(
            "too_large", f"the request has more than {MAX_BODY_BYTES:,} bytes; send a smaller image"
        )
    if kind in IMAGE_TYPES:
        return Request([body], is_list=False)
    fields = _read_json(body)
    if not isinstance(fields, dict) or ("imagebase64" in fields) == ("images" in fields):
        raise RequestError(
            "wrong_fields", 'send {"imagebase64": "..."} or {"images": ["...", "..."]}, one of the two'
        )
    if "imagebase64" in fields:
        if not isinstance(fields["imagebase64"], str):
            raise RequestError("wrong_fields", "imagebase64 must be a text: the image file as base64")
        return Request([_decode_base64(fields["imagebase64"])], is_list=False)
    images = [_try_base64(text) for text in _texts(fields["images"])]
    _check_pixels(image for image in images if isinstance(image, bytes))
    return Request(images, is_list=True)


def _read_json(body: bytes) -> Any:
    try:
        return _decode_json(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # what exactly is wrong would show what was sent
        raise RequestError(
            "not_json",
            'the body is not JSON in UTF-8; send {"imagebase64": "..."}, or the image itself with '
            "its Content-Type, such as image/png",
        ) from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_decode_json: Final = json.JSONDecoder(parse_constant=_no_number).decode


def _texts(images: object) -> list[str]:
    if not isinstance(images, list) or not images:
        raise RequestError(
            "wrong_fields", f"images must be a list of 1 to {MAX_IMAGES} texts: image files as base64"
        )
    if len(images) > MAX_IMAGES:
        raise RequestError(
            "too_many_images", f"there are {len(images):,} images; send at most {MAX_IMAGES} at a time"
        )
    for index, text in enumerate(images):
        if not isinstance(text, str):
            raise RequestError("wrong_fields", f"images[{index}] must be a text: the image file as base64")
    return images


def _check_pixels(images: Iterable[bytes]) -> None:
    """Refuse what would take minutes: a few thousand bytes can hold all the pixels that one may have."""
    num_pixels = 0
    for image in images:
        with suppress(ImageError):  # is told in its place, when it is decoded
            width, height = image_size(image)
            num_pixels += width * height if width * height <= MAX_PIXELS else 0
    if num_pixels > MAX_PIXELS:
        raise RequestError(
            "too_many_pixels",
            f"the images have more than {MAX_PIXELS:,} pixels together; send fewer at a time",
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
        raise RequestError(
            "not_base64", "this is a data URL; send only what stands in it after the words ;base64,"
        )
    try:  # the command base64 breaks lines
        return binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except ValueError:
        raise RequestError(
            "not_base64", "the image is not base64: letters, digits, + and /, with = at the end as needed"
        ) from None
