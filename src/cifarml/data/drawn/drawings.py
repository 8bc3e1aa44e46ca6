"""Synthetic data set: drawings of the ten CIFAR-10 classes, available without a download.

The drawings replace photographs in tests, in the quickstart and in demos. They are not CIFAR-10: accuracies
measured on them do not apply to it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cifarml.cifar10 import CLASS_NAMES, IMAGE_SHAPE, IMAGE_SIZE
from cifarml.data.dataset import Dataset
from cifarml.data.drawn.animals import bird, cat, deer, dog, frog, horse
from cifarml.data.drawn.pen import Colour, Figure, Paint, Pen, hsv
from cifarml.data.drawn.vehicles import airplane, automobile, ship, truck
from cifarml.data.splitting.draw_split import last_tenth
from cifarml.errors import DataError
from cifarml.progress import OnProgress, Progress, ignore_progress

MIN_DRAWN: Final = 2 * len(CLASS_NAMES)
"""Minimum number of images: one training and one test image of each class."""

MAX_DRAWN: Final = 1_000_000
"""Maximum number of images, which takes 3 GB."""

FIGURES: Final[dict[str, Figure]] = {
    figure.__name__: figure
    for figure in (airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck)
}
"""Drawing functions by class name."""

_SUPERSAMPLING: Final = 4
"""Figures are drawn this many times as large and then downscaled, for anti-aliasing."""

_BACKDROPS: Final = {
    "airplane": ("sky", "sky", "grass", "road"),
    "automobile": ("road", "road", "grass", "sand"),
    "bird": ("sky", "sky", "grass", "water"),
    "cat": ("room", "room", "grass", "road"),
    "deer": ("grass", "grass", "sand", "water"),
    "dog": ("room", "grass", "sand", "road"),
    "frog": ("water", "grass", "sand", "room"),
    "horse": ("grass", "sand", "road", "grass"),
    "ship": ("water",),
    "truck": ("road", "road", "sand", "grass"),
}


def draw_dataset(
    num_images: int = 2000, *, seed: int = 0, on_progress: OnProgress = ignore_progress
) -> Dataset:
    """Draw images of the ten classes of CIFAR-10.

    Image `i` shows class `i % 10` and depends only on the seed and `i`, so a larger set begins with the
    images of a smaller one. The last tenth of each class (at least one image) is the test set.

    Args:
        num_images: Number of images, 20 to 1,000,000.
        seed: Random seed, 0 or more.
        on_progress: Called while images are drawn.

    Raises:
        DataError: If the number of images or the seed is out of range.

    Example:
        ```python
        draw_dataset(100).class_counts().tolist()  # [10, 10, 10, 10, 10, 10, 10, 10, 10, 10]
        ```
    """
    if not MIN_DRAWN <= num_images <= MAX_DRAWN:
        raise DataError(
            f"the number of drawings must be {MIN_DRAWN} to {MAX_DRAWN:,}. Received: {num_images}",
            hint="for 2000 images use: drawn:2000",
        )
    if seed < 0:
        raise DataError(f"seed must be 0 or more. Received: {seed}", hint="use seed 0")
    images = np.empty((num_images, *IMAGE_SHAPE), np.uint8)
    for number in range(num_images):
        if number % 200 == 0:
            on_progress(Progress("drawing", number, num_images))
        images[number] = _draw_image(
            CLASS_NAMES[number % len(CLASS_NAMES)], np.random.default_rng([seed, number])
        )
    on_progress(Progress("drawing", num_images, num_images))
    images.setflags(write=False)  # avoids a copy in Dataset
    labels = np.arange(num_images, dtype=np.int64) % len(CLASS_NAMES)
    return Dataset(
        images=images,
        labels=labels,
        class_names=CLASS_NAMES,
        sources=tuple(
            f"drawn:{CLASS_NAMES[n % len(CLASS_NAMES)]}_{n // len(CLASS_NAMES) + 1} (seed {seed})"
            for n in range(num_images)
        ),
        is_test=last_tenth(labels, len(CLASS_NAMES)),
        origin=f"drawn:{num_images} (drawings, not photographs)",
    )


def _draw_image(name: str, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw one image: backdrop, figure, sometimes an occluding object, exposure and noise."""
    backdrop = _paint_backdrop(_BACKDROPS[name][rng.integers(len(_BACKDROPS[name]))], rng)
    size = IMAGE_SIZE * _SUPERSAMPLING
    canvas = Image.fromarray(backdrop.astype(np.uint8)).resize((size, size), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(canvas)
    paint = Paint.mix(rng, backdrop=float(backdrop.mean()))
    FIGURES[name](_place_pen(draw, name, rng), paint, rng)
    if rng.random() < 0.35:
        _cover(draw, rng)
    pixels = np.asarray(canvas.reduce(_SUPERSAMPLING), np.float32)
    return _expose(pixels, rng)


def _place_pen(draw: ImageDraw.ImageDraw, name: str, rng: np.random.Generator) -> Pen:
    """Return a pen with a random position and size, at most a tenth of the figure outside the image."""
    scale = rng.uniform(0.68, 1.0)
    room = 1.0 - scale + 0.06
    tilt = 0.3 if name == "airplane" else 0.1
    return Pen(
        draw,
        IMAGE_SIZE * _SUPERSAMPLING,
        angle=rng.uniform(-tilt, tilt),
        flip=rng.random() < 0.5,
        stretch=(scale * rng.uniform(0.9, 1.0), scale * rng.uniform(0.9, 1.0)),
        shift=(rng.uniform(-room, room), rng.uniform(-room, room)),
    )


def _paint_backdrop(kind: str, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Paint a background above a foreground, divided by a horizon, with shading and texture."""
    horizon = 2.0 if kind == "sky" else rng.uniform(0.2, 0.75)
    slope = rng.uniform(-0.1, 0.1)
    across, down = np.meshgrid(np.linspace(-0.5, 0.5, IMAGE_SIZE), np.linspace(0, 1, IMAGE_SIZE))
    far = np.asarray(_far_colour(kind, rng), np.float32)
    near = np.asarray(_near_colour(kind, rng), np.float32)
    ground = (down > horizon + slope * across)[..., None]
    shade = 1 + rng.uniform(-0.35, 0.35) * (down - 0.5) + rng.uniform(-0.3, 0.3) * across
    coarse = rng.integers(3, 9)
    mottle = Image.fromarray(rng.normal(0, 1, (coarse, coarse)).astype(np.float32))
    texture = np.asarray(mottle.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))
    pixels = np.where(ground, near, far) * shade[..., None] + rng.uniform(3, 14) * texture[..., None]
    return np.asarray(np.clip(pixels, 0, 255), np.float32)


def _far_colour(kind: str, rng: np.random.Generator) -> Colour:
    """Return the colour of a wall, a forest, or a sky by day, dusk or night."""
    if kind == "room":
        return hsv(rng.random(), rng.uniform(0.05, 0.5), rng.uniform(0.3, 0.95))
    if kind != "sky" and rng.random() < 0.35:
        return hsv(rng.uniform(0.2, 0.4), rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.6))
    hue = rng.uniform(0.52, 0.64) if rng.random() < 0.7 else rng.uniform(0.9, 1.12)
    return hsv(hue, rng.uniform(0.05, 0.6), rng.uniform(0.35, 1.0))


def _near_colour(kind: str, rng: np.random.Generator) -> Colour:
    """Return the colour of the foreground."""
    hue, saturation = {
        "sky": (0.6, 0.3),
        "grass": (rng.uniform(0.18, 0.38), 0.5),
        "water": (rng.uniform(0.46, 0.64), 0.5),
        "sand": (rng.uniform(0.05, 0.15), 0.4),
        "road": (rng.random(), 0.08),
        "room": (rng.uniform(0.0, 0.15), 0.4),
    }[kind]
    return hsv(hue, saturation * rng.uniform(0.6, 1.4), rng.uniform(0.3, 0.9))


def _cover(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Occlude part of the image with a stone or a post."""
    size = IMAGE_SIZE * _SUPERSAMPLING
    colour = hsv(rng.random(), rng.uniform(0.1, 0.7), rng.uniform(0.1, 0.9))
    x, y = rng.uniform(0, size, 2)
    if rng.random() < 0.5:
        width, height = rng.uniform(0.08, 0.16, 2) * size
        draw.ellipse((x - width, y - height, x + width, y + height), fill=colour)
    else:
        draw.line((x, 0, x + rng.uniform(-20, 20), size), fill=colour, width=int(rng.integers(4, 11)))


def _expose(pixels: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Vary brightness, contrast and colour cast, and add noise, like a camera."""
    contrast, light = rng.uniform(0.8, 1.15), rng.uniform(-20, 20)
    cast = rng.normal(0, 6, 3)
    noise = rng.normal(0, rng.uniform(2, 9), pixels.shape)
    exposed = (pixels - 128) * contrast + 128 + light + cast + noise
    return np.clip(np.round(exposed), 0, 255).astype(np.uint8)
