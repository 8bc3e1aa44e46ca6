"""Small image files for tests that read folders and archives."""

from __future__ import annotations

import functools
import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image


@functools.cache
def image_bytes(seed: int = 0, kind: str = "PNG", size: tuple[int, int] = (32, 32)) -> bytes:
    """Return an image file of noise."""
    rng = np.random.default_rng(seed)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(file, kind)
    return file.getvalue()


def image_contents(names: Iterable[str]) -> dict[str, bytes]:
    """Return a different image for each name."""
    return {name: image_bytes(seed) for seed, name in enumerate(names)}


def flat(num_images: int = 10, classes: Iterable[str] = ("cat", "dog")) -> dict[str, bytes]:
    """Return images in the article's layout: ``num_images`` per class, named CLASS_NUMBER.png."""
    return image_contents(f"{name}_{number}.png" for name in classes for number in range(1, num_images + 1))


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return path


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


WRITERS = {"folder": write_folder, "images.zip": write_zip, "p.tar.gz": write_tar, "p.tar": write_tar}
"""Writers of each container format, by file name."""
