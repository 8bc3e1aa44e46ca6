"""Image decoding: formats, modes, orientation, alpha and limits."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from cifarml.errors import ImageError
from cifarml.images import MAX_PIXELS, ImageLike, decode_image, encode_image, image_size


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(width: int = 32, height: int = 32) -> Image.Image:
    rng = np.random.default_rng(7)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def corners(width: int, height: int) -> Image.Image:
    """Return an image with red, green, blue and white quarters."""
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    w, h = width // 2, height // 2
    for box, color in (
        ((0, 0, w, h), "red"),
        ((w, 0, width, h), "lime"),
        ((0, h, w, height), "blue"),
        ((w, h, width, height), "white"),
    ):
        draw.rectangle(box, fill=color)
    return image


def quarters(pixels: npt.NDArray[np.uint8]) -> list[str]:
    names = {(255, 0, 0): "red", (0, 255, 0): "lime", (0, 0, 255): "blue", (255, 255, 255): "white"}
    found = (pixels[y, x] for y, x in ((8, 8), (8, 24), (24, 8), (24, 24)))
    return [names[min(names, key=lambda c: np.abs(np.array(c) - f.astype(int)).sum())] for f in found]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_32x32_pixels_are_unchanged(kind: str) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    pixels = decode_image(encode(noise(), kind, **options))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.asarray(noise()))


def test_jpeg_matches_pillow() -> None:
    data = encode(noise(), "JPEG", quality=80)
    assert np.array_equal(decode_image(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (31, 33), (640, 480), (480, 640), (3000, 2000)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_any_size_is_resized_to_32x32(size: tuple[int, int], kind: str) -> None:
    assert decode_image(encode(Image.new("RGB", size, "red"), kind)).shape == (32, 32, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_image_is_center_cropped(kind: str) -> None:
    image = Image.new("RGB", (900, 300), "black")
    image.paste(corners(300, 300), (300, 0))
    pixels = decode_image(encode(image, kind, **({"quality": 95} if kind == "JPEG" else {})))
    assert quarters(pixels) == ["red", "lime", "blue", "white"]


def test_shrinking_is_antialiased() -> None:
    checkers = np.indices((320, 320)).sum(axis=0) % 2 * 255
    pixels = decode_image(encode(Image.fromarray(checkers.astype(np.uint8))))
    assert np.abs(pixels.astype(int) - 127).max() <= 3


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, ["red", "lime", "blue", "white"]),
        (2, ["lime", "red", "white", "blue"]),
        (3, ["white", "blue", "lime", "red"]),
        (4, ["blue", "white", "red", "lime"]),
        (5, ["red", "blue", "lime", "white"]),
        (6, ["blue", "red", "white", "lime"]),
        (7, ["white", "lime", "blue", "red"]),
        (8, ["lime", "white", "red", "blue"]),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(32, 32), (640, 480)])
def test_exif_orientation(orientation: int, expected: list[str], kind: str, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", size)
    side = min(size)
    image.paste(corners(side, side), ((size[0] - side) // 2, (size[1] - side) // 2))
    assert quarters(decode_image(encode(image, kind, exif=exif))) == expected


@pytest.mark.parametrize("size", [32, 200])
def test_transparent_pixels_become_white_without_bleeding(size: int) -> None:
    image = Image.new("RGBA", (size, size), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, size // 2, size))
    pixels = decode_image(encode(image))
    assert (pixels[:, 20:] == 255).all()
    assert (pixels[:, :12] == (0, 0, 255)).all()
    assert (pixels[..., 0] <= pixels[..., 1].astype(int) + 2).all()  # no trace of the hidden red


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16"])
def test_png_modes(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((40, 40), 51400, np.uint16))
    else:
        image = Image.new("L", (40, 40), 200).convert("LA" if mode == "PA" else mode)
        image = image.convert("RGBA").quantize() if mode == "PA" else image
    expected = 255 if mode == "1" else 200
    values = decode_image(encode(image)).astype(int)
    if mode == "1":  # dithered to black and white
        assert set(np.unique(decode_image(encode(image.resize((32, 32)))))) <= {0, 255}
    else:
        assert np.abs(values - expected).max() <= 1


def test_16_bit_colour() -> None:
    """Pillow can't write 16-bit RGB PNGs, so the file is assembled here."""
    rows = b"".join(b"\0" + struct.pack(">HHH", 0xC800, 0x6400, 0x3200) * 32 for _ in range(32))
    pixels = decode_image(png(struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0), rows))
    assert (pixels == (0xC8, 0x64, 0x32)).all()


def test_palette_with_transparency() -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.paste(0, (0, 0, 16, 32))
    pixels = decode_image(encode(image, transparency=0))
    assert (pixels[:, :16] == 255).all()
    assert (pixels[:, 16:] == (10, 200, 30)).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animation_is_decoded_to_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (48, 48), color) for color in ("red", "lime", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    assert np.abs(decode_image(data).astype(int) - (255, 0, 0)).max() <= 8


@pytest.mark.parametrize("size", [(32, 32), (640, 640)])
def test_cmyk_jpeg(size: tuple[int, int]) -> None:
    data = encode(Image.new("RGB", size, (200, 40, 90)).convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert np.abs(decode_image(data).astype(int) - (200, 40, 90)).max() <= 4


def png(header: bytes, rows: bytes = b"", data: bytes | None = None) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    content = zlib.compress(rows) if data is None else data
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8193, 10_000, 30_000, 2**31 - 1])
def test_too_many_pixels_are_refused_before_decoding(side: int) -> None:
    """A 30000x30000 image takes at most 30 MB as a file, and 2.7 GB decoded."""
    data = png(struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), b"\0" * 100_000)
    with pytest.raises(ImageError, match=r"pixels|damaged"):
        decode_image(data)


def test_30000x30000_png_is_refused() -> None:
    data = encode(Image.new("1", (30_000, 30_000)))
    with pytest.raises(ImageError, match=f"{MAX_PIXELS:,}") as caught:
        decode_image(data)
    assert caught.value.code == "too_many_pixels"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am a text", "not a PNG"),
        (b"\x89PNG\r\n\x1a\n", "."),
        (encode(noise())[:-200], "damaged"),
        (encode(noise(), "JPEG")[:300], "damaged"),
        (encode(noise(), "ICO"), "icon, which can't be read"),
        (encode(noise(), "TGA"), "not a PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG drawing"),
        (png(struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0)), "."),
        (png(struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0), data=b"not zlib"), "damaged"),
    ],
)
def test_invalid_image_files(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode_image(data)
    assert len(caught.value.message) < 300
    if reason != ".":
        codes = {"damaged": "damaged_image", "not a PNG": "not_an_image", "empty": "not_an_image"}
        assert caught.value.code == codes.get(reason, "unsupported_image")


def test_image_size_without_decoding() -> None:
    assert image_size(encode(noise(40, 30))) == (40, 30)
    with pytest.raises(ImageError, match="empty"):
        image_size(b"")


def representations(data: bytes, folder: Path) -> dict[str, ImageLike]:
    path = folder / "image.png"
    path.write_bytes(data)
    image = Image.open(io.BytesIO(data))
    return {
        "path": path,
        "str": str(path),
        "bytes": data,
        "bytearray": bytearray(data),
        "memoryview": memoryview(data),
        "file object": io.BytesIO(data),
        "PIL": image,
        "array": np.asarray(image),
    }


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(32, 32), (90, 61)])
def test_all_representations_are_decoded_alike(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    image = noise(*size).convert(mode)
    if mode == "RGBA":
        image.putalpha(noise(*size).convert("L"))
    data = encode(image)
    expected = decode_image(data)
    for kind, image_like in representations(data, tmp_path).items():
        assert np.array_equal(decode_image(image_like), expected), kind
    for kind, image_like in representations(data, tmp_path).items():
        assert image_size(image_like) == size, kind
    for kind, image_like in representations(data, tmp_path).items():
        sent = encode_image(image_like)
        assert np.array_equal(decode_image(sent), expected), kind
        assert sent == data or kind in {"PIL", "array"}, kind


def test_file_object_is_read_from_its_position(tmp_path: Path) -> None:
    (tmp_path / "both").write_bytes(encode(noise()) + encode(corners(32, 32)))
    with (tmp_path / "both").open("rb") as file:
        file.seek(len(encode(noise())))
        assert quarters(decode_image(file)) == ["red", "lime", "blue", "white"]
        with pytest.raises(ImageError, match="no bytes left") as caught:
            decode_image(file)
        assert "seek(0)" in str(caught.value.hint)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_encoded_photo_is_upright_and_has_no_metadata(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "the author's garden"
    data = encode(corners(160, 120), "JPEG", exif=exif, quality=95)
    photo = Image.open(io.BytesIO(data))
    sent = encode_image(photo)
    assert b"garden" in data
    assert b"garden" not in sent
    assert quarters(decode_image(sent)) == quarters(decode_image(photo)) == quarters(decode_image(data))
    assert Image.open(io.BytesIO(sent)).size == ((160, 120) if orientation < 5 else (120, 160))


def test_input_is_not_modified() -> None:
    photo = Image.open(io.BytesIO(encode(noise(640, 480), "JPEG")))
    decode_image(photo)
    assert photo.size == (640, 480)
    palette = corners(64, 64).convert("P")
    before = palette.tobytes()
    decode_image(palette)
    encode_image(palette)
    assert (palette.mode, palette.tobytes()) == ("P", before)


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I;16"],
)
def test_pil_images_of_any_mode(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((40, 40), 51400, np.uint16))
    elif mode == "PA":
        image = Image.new("RGBA", (40, 40), (200, 200, 200, 255)).quantize().convert("PA")
    elif mode == "La":
        image = Image.new("LA", (40, 40), (200, 255)).convert("La")
    elif mode == "RGBa":
        image = Image.new("RGBA", (40, 40), (200, 200, 200, 255)).convert("RGBa")
    elif mode == "LAB":
        image = Image.new("LAB", (40, 40), (203, 128, 128))
    else:
        image = Image.new("RGB", (40, 40), (200, 200, 200)).convert(mode, dither=Image.Dither.NONE)
    assert image.mode == mode
    for pixels in (decode_image(image), decode_image(encode_image(image))):
        assert np.abs(pixels.astype(int) - (255 if mode == "1" else 200)).max() <= 8


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pil_images_without_a_range_are_refused(mode: str) -> None:
    for each in (decode_image, encode_image, image_size):
        with pytest.raises(ImageError, match=f"mode '{mode}' has no fixed value range") as caught:
            each(Image.new(mode, (40, 40)))
        assert 'convert("L")' in str(caught.value.hint)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((32, 32, 3), np.float32),
        np.zeros((32, 32, 3), np.int64),
        np.zeros((32, 32), bool),
        np.zeros((32, 32), np.uint16),
        np.zeros((32, 32), object),
        np.zeros((32, 32), "U1"),
        np.zeros((3, 32, 32), np.uint8),
        np.zeros((32, 32, 1), np.uint8),
        np.zeros((32, 32, 2), np.uint8),
        np.zeros((32, 32, 5), np.uint8),
        np.zeros((2, 32, 32, 3), np.uint8),
        np.zeros(3072, np.uint8),
        np.zeros((), np.uint8),
        np.zeros((0, 32, 3), np.uint8),
        np.zeros((32, 0), np.uint8),
        np.zeros((0, 0, 4), np.uint8),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_invalid_arrays(array: npt.NDArray[Any]) -> None:
    for each in (decode_image, encode_image, image_size):
        with pytest.raises(ImageError, match=r"expected a uint8 array of shape \(H, W\).*; got ") as caught:
            each(array)
        assert caught.value.code == "not_an_image"


def test_huge_arrays_and_images_are_refused() -> None:
    wide = np.broadcast_to(np.uint8(0), (8193, 8192, 3))  # occupies one byte
    with pytest.raises(ImageError, match="more than") as caught:
        decode_image(wide)
    assert caught.value.code == "too_many_pixels"
    for each in (decode_image, encode_image):
        with pytest.raises(ImageError, match="more than"):
            each(Image.new("1", (8193, 8192)))


def test_array_views() -> None:
    pixels = np.asarray(noise())
    assert np.array_equal(decode_image(pixels[::-1, ::-1]), pixels[::-1, ::-1])
    assert np.array_equal(decode_image(np.asfortranarray(pixels)), pixels)


def closed() -> io.BytesIO:
    file = io.BytesIO(b"x")
    file.close()
    return file


def closed_image() -> Image.Image:
    image = Image.open(io.BytesIO(encode(noise())))
    image.close()
    return image


NOT_IMAGES: dict[str, tuple[Callable[[], object], str]] = {
    "missing path": (lambda: "none.png", r"can't read 'none\.png': No such file"),
    "missing Path": (lambda: Path("none") / "x.png", r"can't read 'none/x\.png'"),
    "empty string": (lambda: "", "can't read"),
    "folder": (Path, r"can't read '\.': it is a folder"),
    "pipe": (lambda: "pipe", "not a regular file"),
    "null character": (lambda: "a\0b.png", "can't read"),
    "very long string": (lambda: "iVBORw0KGgo" * 500, r"can't read 'iVBORw.*\(5,500 characters\)"),
    "empty file": (lambda: "empty.png", r"^empty\.png: the file is empty"),
    "text file": (lambda: "notes.png", r"^notes\.png: not a PNG"),
    "damaged file": (lambda: "damaged.png", r"^damaged\.png: damaged"),
    "text file object": (
        lambda: io.StringIO("x"),
        r"expected a binary file object; its read\(\) returned str",
    ),
    "closed file object": (closed, "can't read the file object: .*closed"),
    "file object for writing": (lambda: open(os.devnull, "wb"), "can't read the file object"),  # noqa: PTH123, SIM115
    "exhausted file object": (io.BytesIO, "no bytes left"),
    "closed PIL image": (closed_image, "damaged image"),
    "empty PIL image": (lambda: Image.new("RGB", (0, 5)), r"no pixels \(0 x 5\)"),
    "None": (lambda: None, "expected an image as a path, bytes, .*; got NoneType"),
    "number": (lambda: 5, "expected an image as .*; got int"),
    "list": (lambda: [[0, 0], [0, 0]], "expected an image as .*; got list"),
    "numpy number": (lambda: np.uint8(3), "expected an image as .*; got uint8"),
}


@pytest.mark.parametrize("kind", NOT_IMAGES)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_invalid_inputs(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.png").write_text("not an image")
    (tmp_path / "damaged.png").write_bytes(encode(noise())[:-200])
    os.mkfifo(tmp_path / "pipe")
    make, reason = NOT_IMAGES[kind]
    with pytest.raises(ImageError, match=reason) as caught:
        decode_image(make())  # type: ignore[arg-type]
    assert len(caught.value.message) < 300


def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encode(noise()))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(ImageError, match="Permission denied"):
        decode_image(path)
