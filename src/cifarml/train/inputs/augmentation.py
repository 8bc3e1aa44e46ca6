"""Data augmentation of image batches.

All functions take uint8 images of shape (N, H, W, 3) and a random generator, and return new arrays.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from cifarml.model.recipe import Recipe

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_GREY: Final = 114
"""About the mean pixel value of photographs."""
_MOST_DEGREES: Final = 30.0
_MOST_STRETCH: Final = 0.3
_MOST_COLOUR: Final = 0.6


def augment_images(images: Images, recipe: Recipe, random: np.random.Generator) -> Images:
    """Augment images by a recipe: shift or affine transform, colour jitter and cutout."""
    if recipe.distortion:
        images = distort(images, random, strength=recipe.distortion, shift=recipe.shift)
    elif recipe.shift:
        images = shift_images(images, random, by=recipe.shift)
    if recipe.colour:
        images = recolour(images, random, strength=recipe.colour)
    if recipe.cutout:
        images = cut_out(images, random, size=recipe.cutout)
    return images


def shift_images(images: Images, random: np.random.Generator, *, by: int) -> Images:
    """Shift each image by up to ``by`` pixels in each direction, with reflection padding."""
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (by, by), (by, by), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    rows, columns = random.integers(0, 2 * by + 1, (2, count))
    return np.ascontiguousarray(windows[np.arange(count), rows, columns].transpose(0, 2, 3, 1))


def cut_out(images: Images, random: np.random.Generator, *, size: int) -> Images:
    """Cutout: grey out a square of ``size`` pixels around a random pixel (DeVries and Taylor, 2017)."""
    count, height, width, _ = images.shape
    rows = _within(height, size, random.integers(0, height, (count,)))
    columns = _within(width, size, random.integers(0, width, (count,)))
    return np.where(rows[:, :, None, None] & columns[:, None, :, None], np.uint8(_GREY), images)


def _within(length: int, size: int, middle: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    start = middle[:, None] - size // 2
    return (np.arange(length) >= start) & (np.arange(length) < start + size)


def distort(images: Images, random: np.random.Generator, *, strength: float, shift: int = 0) -> Images:
    """Random affine transform: rotate, stretch, shear and shift; bilinear, with reflection padding.

    A strength of 1 is up to 30 degrees, 30 % in each direction, and a shear of 0.3; ``shift`` is in pixels.
    """
    count, height, width, _ = images.shape

    def amount(most: float) -> Floats:
        return random.uniform(-most, most, (count, 1, 1)).astype(np.float32)

    angle = np.deg2rad(amount(_MOST_DEGREES * strength))
    tall, wide = (np.exp(amount(_MOST_STRETCH * strength)) for _ in range(2))
    shear = amount(_MOST_STRETCH * strength)
    y = np.arange(height, dtype=np.float32)[:, None] - (height - 1) / 2
    x = np.arange(width, dtype=np.float32)[None, :] - (width - 1) / 2
    from_y = np.cos(angle) * tall * y + (shear - np.sin(angle)) * tall * x + (height - 1) / 2 + amount(shift)
    from_x = np.sin(angle) * wide * y + np.cos(angle) * wide * x + (width - 1) / 2 + amount(shift)
    return _sample(images, _reflected(from_y, height), _reflected(from_x, width))


def _reflected(places: Floats, length: int) -> Floats:
    """Reflect coordinates outside the image; the maximum is slightly below the last pixel."""
    last = np.float32(length - 1)
    return np.clip(last - np.abs(last - np.abs(places)), 0, last - np.float32(1e-3))


def _sample(images: Images, y: Floats, x: Floats) -> Images:
    """Sample images bilinearly at coordinates of shape (N, H, W)."""
    count, height, width, channels = images.shape
    top, left = y.astype(np.int32), x.astype(np.int32)
    down, right = (y - top)[..., None], (x - left)[..., None]
    first = np.arange(count, dtype=np.int32)[:, None, None] * (height * width) + top * width + left
    pixels = images.reshape(-1, channels)
    corners = (pixels[first + step].astype(np.float32) for step in (0, 1, width, width + 1))
    above_left, above_right, below_left, below_right = corners
    above = above_left + (above_right - above_left) * right
    below = below_left + (below_right - below_left) * right
    sampled: Floats = above + (below - above) * down
    return (sampled + np.float32(0.5)).astype(np.uint8)


def recolour(images: Images, random: np.random.Generator, *, strength: float) -> Images:
    """Colour jitter: brightness, contrast and saturation, each by up to a factor of e^0.6."""
    count = len(images)
    factors = np.exp(random.uniform(-_MOST_COLOUR * strength, _MOST_COLOUR * strength, (3, count)))
    brightness, contrast, saturation = factors.astype(np.float32)[:, :, None, None, None]
    pixels: Floats = images.astype(np.float32)
    grey: Floats = (pixels[..., :1] + pixels[..., 1:2] + pixels[..., 2:]) / np.float32(3)
    middle: Floats = grey.mean(axis=(1, 2), keepdims=True)
    # (grey + (pixels - grey) * saturation - middle) * contrast + middle * brightness, and rounded
    pixels *= saturation * contrast
    pixels += grey * ((1 - saturation) * contrast) + (middle * (brightness - contrast) + np.float32(0.5))
    rounded: Images = np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)
    return rounded


def mix_images(images: Images, targets: Floats, random: np.random.Generator) -> tuple[Images, Floats]:
    """Mixup or CutMix, at random: mix the images of a batch, and their targets, in pairs.

    Mixup (H. Zhang et al., "mixup", 2018) blends two images; CutMix (S. Yun et al., "CutMix", 2019) pastes a
    square of the other image. Both are equally likely; the shares are uniformly distributed.
    """
    other, share = random.permutation(len(images)), random.random()
    if random.random() < 0.5:
        blend = images * np.float32(share) + images[other] * np.float32(1 - share)
        images = (blend + np.float32(0.5)).astype(np.uint8)
    else:
        height, width = images.shape[1:3]
        tall, wide = (round(length * float(np.sqrt(1 - share))) for length in (height, width))
        top, left = (int(random.integers(0, room + 1)) for room in (height - tall, width - wide))
        box = (slice(None), slice(top, top + tall), slice(left, left + wide))
        images = images.copy()
        images[box] = images[other][box]
        share = 1 - tall * wide / (height * width)
    return images, (targets * share + targets[other] * (1 - share)).astype(np.float32)
