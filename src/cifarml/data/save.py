"""Export of a data set to a zip of image files, a lossless round trip with `load_dataset`."""

from __future__ import annotations

import io
import os
import zipfile
from collections import Counter
from pathlib import Path
from typing import Final

from PIL import Image

from cifarml.data.dataset import Dataset
from cifarml.errors import DataError
from cifarml.paths import expand_home
from cifarml.progress import OnProgress, Progress, ignore_progress

_UNSAFE: Final = frozenset('/\\:*?"<>|\0')


def save_images(dataset: Dataset, path: str | Path, *, on_progress: OnProgress = ignore_progress) -> Path:
    """Save the images as PNG files in a zip: `train/<class>/00001.png` and `test/<class>/...`.

    Images that the source marks for validation are in `validation/<class>/...`. The write is atomic, and the
    output reproducible: the same images always give the same bytes, so that an unchanged archive is not
    uploaded again.

    Args:
        dataset: The images to save.
        path: The zip file to write; an existing one is replaced.
        on_progress: Called while images are saved.

    Returns:
        The path.

    Raises:
        DataError: If a class name is not a valid folder name, or the file can't be written.

    Example:
        ```python
        save_images(cifarml.load_dataset("drawn:200"), "drawings.zip")
        ```
    """
    path = expand_home(path)
    for name in dataset.class_names:
        if not _UNSAFE.isdisjoint(name) or name.startswith(".") or name != name.strip():
            raise DataError(f"class name {name!r} is not a valid folder name")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    seen = Counter[str]()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with zipfile.ZipFile(partial, "w") as archive:
                for i, image in enumerate(dataset.images):
                    kept = "validation" if dataset.is_validation[i] else "train"
                    split = "test" if dataset.is_test[i] else kept
                    folder = f"{split}/{dataset.class_names[dataset.labels[i]]}"
                    seen[folder] += 1
                    file = io.BytesIO()
                    Image.fromarray(image).save(file, "PNG")
                    # A new ZipInfo has a fixed time stamp; the default one has the current time.
                    member = zipfile.ZipInfo(f"{folder}/{seen[folder]:05d}.png")
                    archive.writestr(member, file.getvalue())
                    if i % 100 == 0:
                        on_progress(Progress("saving", i, len(dataset)))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"can't write {path}: {error.strerror or error}") from error
    return path
