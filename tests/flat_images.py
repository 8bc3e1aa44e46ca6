"""Images that are common outside CIFAR-10: diagrams, digits, scans, X-rays, and nearly constant images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from cifarml import Dataset

Draw = Callable[[int, np.random.Generator], Image.Image]
"""Draws an image of a class, 64x64."""

SHAPES = ("rectangle", "ellipse")
SIDE = 64


def outlines(label: int, rng: np.random.Generator, noisy: int = 30) -> Image.Image:
    """Return the drawing of issue N: an outline on white, with random pixels."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    getattr(ImageDraw.Draw(image), SHAPES[label])(_box(rng), outline="black", width=2)
    pixels = np.array(image)
    rows, columns = rng.integers(0, SIDE, (2, noisy))
    pixels[rows, columns] = rng.integers(0, 256, (noisy, 3))
    return Image.fromarray(pixels)


def faint(label: int, rng: np.random.Generator) -> Image.Image:
    """Return a watermark: 11 of 256 levels below white."""
    image = Image.new("L", (SIDE, SIDE), 255)
    getattr(ImageDraw.Draw(image), SHAPES[label])(_box(rng), outline=244, width=2)
    return image


def patches(label: int, rng: np.random.Generator) -> Image.Image:
    """Return a gray shape on gray."""
    image = Image.new("L", (SIDE, SIDE), 128)
    getattr(ImageDraw.Draw(image), SHAPES[label])(_box(rng), fill=140)
    return image


def digits(label: int, rng: np.random.Generator) -> Image.Image:
    image = Image.new("L", (SIDE, SIDE), 255)
    font = ImageFont.load_default(int(rng.integers(24, 40)))
    ImageDraw.Draw(image).text(tuple(rng.integers(4, 30, 2)), str(label), fill=0, font=font)
    return image


def logos(label: int, rng: np.random.Generator) -> Image.Image:
    """Return a square in the color of the class."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(image).rectangle(_box(rng), fill=("#d00", "#06c", "#0a0", "#fa0")[label])
    return image


def scans(label: int, rng: np.random.Generator) -> Image.Image:
    """Return a page of text lines, dense or sparse."""
    image = Image.new("L", (SIDE, SIDE), 250)
    for top in range(4, SIDE - 4, (7, 14)[label]):
        ImageDraw.Draw(image).line((4, top, int(rng.integers(30, 60)), top), fill=20, width=2)
    return image


def xrays(label: int, rng: np.random.Generator) -> Image.Image:
    """Return a dark image with a bright center, and a spot in the second class."""
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1) - 0.5
    pixels = 40 * np.exp(-6 * ((x - rng.normal(0, 0.1)) ** 2 + y**2))
    spot = rng.normal(0, 0.1, 2)
    pixels += label * 25 * np.exp(-200 * ((x - spot[0]) ** 2 + (y - spot[1]) ** 2))
    return Image.fromarray(np.clip(pixels + rng.normal(0, 1.5, pixels.shape), 0, 255).astype(np.uint8))


def dots(label: int, rng: np.random.Generator) -> Image.Image:
    """Return a black image, with a white dot in the second class."""
    image = Image.new("L", (SIDE, SIDE), 0)
    if label:
        x, y = rng.integers(8, SIDE - 8, 2).tolist()
        ImageDraw.Draw(image).rectangle((x, y, x + 2, y + 2), fill=255)
    return image


def constants(label: int, _: np.random.Generator) -> Image.Image:
    return Image.new("L", (SIDE, SIDE), (0, 255, 128, 60)[label])


def black(_: int, __: np.random.Generator) -> Image.Image:
    """Return the same image for any class."""
    return Image.new("L", (SIDE, SIDE), 0)


KINDS: dict[str, tuple[Draw, Sequence[int]]] = {
    "outlines": (outlines, (200, 12)),
    "faint": (faint, (60, 60)),
    "patches": (patches, (80, 80)),
    "digits": (digits, [40] * 10),
    "logos": (logos, [40] * 4),
    "scans": (scans, (80, 80)),
    "xrays": (xrays, (80, 80)),
    "dots": (dots, (60, 60)),
    "constants": (constants, [30] * 4),
    "black": (black, (30, 30)),
    "few": (patches, (3, 2)),
}
"""Drawing and number of images of each class, by kind."""

UNSEEN: npt.NDArray[np.uint8] = np.concatenate(
    [
        np.stack([np.full((32, 32, 3), level, np.uint8) for level in (0, 1, 128, 254, 255)]),
        np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8),
    ]
)
"""Constant images and noise, which are unlike the training images of every kind."""


def flat_images(kind: str) -> Dataset:
    """Draw the images of a kind; every fifth one of a class is a test image."""
    draw, counts = KINDS[kind]
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    drawn = [draw(label, rng).convert("RGB").resize((32, 32)) for label in labels.tolist()]
    numbers = np.concatenate([np.arange(count) for count in counts])
    return Dataset(
        np.stack([np.asarray(image) for image in drawn]),
        labels.astype(np.int64),
        tuple(f"class {label}" for label in range(len(counts))),
        tuple(f"{kind} {number}" for number in range(len(labels))),
        numbers % 5 == 1,
        kind,
    )


def _box(rng: np.random.Generator) -> tuple[int, int, int, int]:
    x, y = rng.integers(4, 24, 2).tolist()
    width, height = rng.integers(16, 36, 2).tolist()
    return x, y, x + width, y + height
