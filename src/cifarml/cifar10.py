"""Constants of the CIFAR-10 data set.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, and the data
set's page, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

from typing import Final

EXPERIMENT: Final = "cifar10"
"""MLflow experiment of all runs; the article uses the same name."""

IMAGE_SIZE: Final = 32
"""Height and width of an image, in pixels."""

IMAGE_SHAPE: Final = (IMAGE_SIZE, IMAGE_SIZE, 3)
"""Height, width and channels (red, green, blue) of an image."""

CLASS_NAMES: Final = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""The ten classes, in the order of their labels 0 to 9."""

ARCHIVE_URL: Final = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
"""URL of the official archive (Python version)."""

ARCHIVE_SIZE_BYTES: Final = 170_498_071
"""Size of the official archive, in bytes."""

ARCHIVE_SHA256: Final = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
"""SHA-256 of the official archive, as Keras publishes it in ``keras.datasets.cifar10``."""
