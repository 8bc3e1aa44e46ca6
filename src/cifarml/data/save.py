"""A data set as an archive of image files, which load_dataset reads back unchanged."""

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
from cifarml.progress import OnProgress, Progress, ignore_progress

_UNSAFE: Final = frozenset('/\\:*?"<>|\0')


def save_images(dataset: Dataset, path: str | Path, *, on_progress: OnProgress = ignore_progress) -> Path:
    """Save the images as PNG files in a zip: ``train/<class>/00001.png`` and ``test/<class>/...``.

    The same images always give the same bytes, so what is in storage already is not sent again. An existing
    file is replaced only when all is written. Returns the path.

    Raises:
        DataError: If the name of a class can't be a folder's, or the file can't be written.

    Example:
        >>> save_images(load_dataset("drawn:200"), "drawings.zip")  # doctest: +SKIP
        PosixPath('drawings.zip')
    """
    path = Path(path)
    for name in dataset.class_names:
        if not _UNSAFE.isdisjoint(name) or name.startswith(".") or name != name.strip():
            raise DataError(f"the class {name!r} can't be the name of a folder")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    seen = Counter[str]()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with zipfile.ZipFile(partial, "w") as archive:
                for i, image in enumerate(dataset.images):
                    split = "test" if dataset.is_test[i] else "train"
                    folder = f"{split}/{dataset.class_names[dataset.labels[i]]}"
                    seen[folder] += 1
                    file = io.BytesIO()
                    Image.fromarray(image).save(file, "PNG")
                    # A new ZipInfo, since the default one contains the time of day.
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
