"""Damaged image files and requests for fuzz tests, and their seeds."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from cifarml.scoring.api_schema import ErrorAnswer, ImageAnswer, ImagesAnswer
from tests.goldens import JSON, asked, encoded

__all__ = ["check", "mutated", "mutated_request", "sample_images", "save", "with_right_checksums"]

Damage = Callable[[np.random.Generator, bytearray], bytearray]


def place(rng: np.random.Generator, data: bytearray) -> int:
    """Return a position, in half of the cases near the start or end, where headers and trailers are."""
    where = int(rng.integers(0, 4))
    near = min(64, len(data))
    if where == 0:
        return int(rng.integers(0, near))
    return len(data) - 1 - int(rng.integers(0, near)) if where == 1 else int(rng.integers(0, len(data)))


def flip_bits(rng: np.random.Generator, data: bytearray) -> bytearray:
    for _ in range(int(rng.integers(1, 6))):
        data[place(rng, data)] ^= 1 << int(rng.integers(0, 8))
    return data


def splice(rng: np.random.Generator, data: bytearray) -> bytearray:
    """Overwrite a piece with a copy of another."""
    source, target, size = place(rng, data), place(rng, data), int(rng.integers(1, 64))
    data[target : target + size] = data[source : source + size]
    return data


def truncate(rng: np.random.Generator, data: bytearray) -> bytearray:
    return data[: int(rng.integers(0, len(data)))]


def insert(rng: np.random.Generator, data: bytearray) -> bytearray:
    target = place(rng, data)
    data[target:target] = rng.bytes(int(rng.integers(1, 40)))
    return data


def remove(rng: np.random.Generator, data: bytearray) -> bytearray:
    target = place(rng, data)
    del data[target : target + int(rng.integers(1, 40))]
    return data


def swap(rng: np.random.Generator, data: bytearray) -> bytearray:
    """Swap two adjacent pieces, like reordered chunks."""
    first, second, third = sorted(place(rng, data) for _ in range(3))
    return data[:first] + data[second:third] + data[first:second] + data[third:]


def extreme_number(rng: np.random.Generator, data: bytearray) -> bytearray:
    """Overwrite a position with an extreme integer, as if it were a size or count."""
    form = str(rng.choice(["<H", ">H", "<I", ">I", "<Q", "B"]))
    limit = 2 ** (8 * struct.calcsize(form))
    values = [0, 1, 0x7F, limit - 1, limit // 2, limit // 2 - 1, min(10**6, limit - 1)]
    target = place(rng, data)
    number = struct.pack(form, values[int(rng.integers(0, len(values)))])
    data[target : target + len(number)] = number
    return data


DAMAGES: tuple[Damage, ...] = (flip_bits, splice, truncate, insert, remove, swap, extreme_number)


def mutated(rng: np.random.Generator, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 3))):
        if data:
            data = DAMAGES[int(rng.integers(0, len(DAMAGES)))](rng, data)
    return bytes(data)


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def save_heic(image: Image.Image) -> bytes:
    from pillow_heif import from_pillow

    file = io.BytesIO()
    from_pillow(image).save(file)
    return file.getvalue()


def sample_images() -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    rgb = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
    smooth = Image.linear_gradient("L").resize((60, 40))
    rgba = Image.merge("RGBA", [smooth] * 4)
    wide = Image.fromarray(rng.integers(0, 65536, (32, 32), np.uint16))
    palette = smooth.quantize(16)
    frames = [smooth.rotate(angle) for angle in (90, 180)]
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "PNG": save(rgb, "PNG"),
        "PNG, 60x40": save(rgba, "PNG"),
        "PNG, 16 bits": save(wide, "PNG"),
        "PNG, palette": save(palette, "PNG", transparency=3),
        "PNG, EXIF": save(smooth, "PNG", exif=exif),
        "PNG, animated": save(smooth, "PNG", save_all=True, append_images=frames),
        "JPEG": save(rgb, "JPEG"),
        "JPEG, gray": save(smooth, "JPEG"),
        "JPEG, progressive": save(rgb, "JPEG", progressive=True, exif=exif),
        "JPEG, CMYK": save(rgb.convert("CMYK"), "JPEG"),
        "JPEG, large": save(smooth.resize((300, 200)).convert("RGB"), "JPEG", exif=exif),
        "WebP": save(rgb, "WEBP"),
        "WebP, lossless": save(rgba, "WEBP", lossless=True, exif=exif),
        "WebP, animated": save(smooth, "WEBP", save_all=True, append_images=frames),
        "GIF": save(palette, "GIF", transparency=3),
        "GIF, animated": save(smooth, "GIF", save_all=True, append_images=frames),
        "BMP": save(rgb, "BMP"),
        "BMP, palette": save(palette, "BMP"),
        "BMP, one bit": save(smooth.convert("1"), "BMP"),
        "TIFF": save(rgb, "TIFF"),
        "TIFF, compressed": save(smooth, "TIFF", compression="tiff_lzw"),
        "TIFF, JPEG": save(rgb, "TIFF", compression="jpeg"),
        "TIFF, 16 bits": save(wide, "TIFF", exif=exif),
        "PPM": save(smooth, "PPM"),
        "JPEG 2000": save(rgb, "JPEG2000"),
        "JPEG 2000, codestream": save(smooth, "JPEG2000", no_jp2=True),
        "AVIF": save(rgb, "AVIF", speed=10),
        "HEIC": save_heic(rgb),
    }


def with_right_checksums(png: bytes) -> bytes:
    """Recompute the checksums of a PNG, so that the decoder gets past them to the damage."""
    out, position = png[:8], 8
    while position + 12 <= len(png):
        size = min(int.from_bytes(png[position : position + 4], "big"), len(png) - position - 12)
        chunk = png[position + 4 : position + 8 + size]
        out += size.to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        position += 12 + size
    return out


SPLINTERS = (
    *(b"null", b"NaN", b"1e999", b"-0", b"{}", b"[]", b'"', b"\\", b"\\u0000", b"\\ud800", b"\x00", b"\xff"),
    *(
        b"[" * 3000,
        b'{"a":' * 2000,
        b"9" * 5000,
        b"=" * 9,
        b"data:image/png;base64,",
        b"imagebase64",
        b"images",
    ),
)
"""Fragments that JSON and base64 parsers may mishandle."""

KINDS = (
    JSON,
    JSON,
    JSON,
    "",
    "image/png",
    "image/webp",
    "application/json;charset=\xff",
    "text/plain",
    "\x00",
)


def splintered(rng: np.random.Generator, body: bytes) -> bytes:
    for _ in range(int(rng.integers(1, 4))):
        at, end = sorted(int(rng.integers(0, len(body) + 1)) for _ in range(2))
        splinter = SPLINTERS[int(rng.integers(0, len(SPLINTERS)))]
        body = body[:at] + splinter + (body[at:] if rng.random() < 0.7 else body[end:])
    return body


def mutated_request(rng: np.random.Generator, seeds: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """Return a golden request or an image with damage in its JSON, its base64 or the image itself."""
    kind, body = seeds[int(rng.integers(0, len(seeds)))]
    match int(rng.integers(0, 5)):
        case 0:
            body = splintered(rng, body)
        case 1:
            kind = KINDS[int(rng.integers(0, len(KINDS)))]
        case 2 if kind.startswith("image/"):
            body = with_right_checksums(mutated(rng, body))
        case 3 if kind.startswith("image/"):
            kind, body = (
                JSON,
                asked(images=[encoded(mutated(rng, body)) for _ in range(int(rng.integers(1, 4)))]),
            )
        case _ if body:
            body = mutated(rng, body)
    return kind, body


def check(status: int, content: bytes) -> str:
    """Validate a response against the schema, and return its kind."""
    values = json.loads(content)
    if status == 200:
        (ImagesAnswer if "predictions" in values else ImageAnswer).model_validate(values)
        return "a list" if "predictions" in values else "an image"
    assert 400 <= status < 500
    return ErrorAnswer.model_validate(values).error.code
