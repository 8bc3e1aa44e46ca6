"""Many pictures at once: every file of a source to one array."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import simplejpeg

from cifarml.cifar10 import IMAGE_SHAPE, IMAGE_SIZE
from cifarml.data.dataset import BadPicture
from cifarml.data.files import FileTree
from cifarml.errors import PictureError
from cifarml.images import decode_picture
from cifarml.progress import OnProgress, Progress, ignore_progress

__all__ = ["decode_pictures"]

_CHUNK_BYTES = 4 * 2**20
_CHUNK_PICTURES = 512


def decode_pictures(
    tree: FileTree, names: Sequence[str], *, on_progress: OnProgress = ignore_progress
) -> tuple[npt.NDArray[np.uint8], list[BadPicture]]:
    """Decode pictures of a source, several at a time, reading ahead no more than a few chunks.

    Args:
        tree: Where the pictures lie.
        names: The pictures wanted.
        on_progress: Called after every few hundred pictures.

    Returns:
        uint8 of shape (N, 32, 32, 3), black where a picture is bad, and the bad pictures.
    """
    images = np.zeros((len(names), *IMAGE_SHAPE), np.uint8)
    bad: list[BadPicture] = []
    done = 0
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[tuple[int, list[BadPicture]]]] = deque()

        def finish_one() -> None:
            nonlocal done
            count, found = waiting.popleft().result()
            done += count
            bad.extend(found)
            on_progress(Progress("reading pictures", done, len(names)))

        for start, chunk in _read_chunks(tree, names):
            waiting.append(pool.submit(_decode_chunk, names, start, chunk, images))
            if len(waiting) > workers:
                finish_one()
        while waiting:
            finish_one()
    return images, bad


def _read_chunks(tree: FileTree, names: Sequence[str]) -> Iterator[tuple[int, list[bytes | PictureError]]]:
    """Yield the contents of a few files at a time, with the position of the first."""
    start, size, chunk = 0, 0, list[bytes | PictureError]()
    for position, name in enumerate(names):
        try:
            content = tree.read(name)
            size += len(content)
            chunk.append(content)
        except PictureError as error:
            chunk.append(error)
        if size >= _CHUNK_BYTES or len(chunk) == _CHUNK_PICTURES:
            yield start, chunk
            start, size, chunk = position + 1, 0, []
    if chunk:
        yield start, chunk


def _decode_chunk(
    names: Sequence[str], start: int, chunk: list[bytes | PictureError], images: npt.NDArray[np.uint8]
) -> tuple[int, list[BadPicture]]:
    bad = []
    for position, content in zip(itertools.count(start), chunk, strict=False):
        try:
            if isinstance(content, PictureError):
                raise content
            if not _decode_small_jpeg(content, images[position]):
                images[position] = decode_picture(content)
        except PictureError as error:
            bad.append(BadPicture(names[position], error.message))
    return len(chunk), bad


def _decode_small_jpeg(content: bytes, image: npt.NDArray[np.uint8]) -> bool:
    """Decode a plain 32x32 JPEG into ``image``, five times as fast as Pillow and to the same pixels.

    Returns:
        False for everything else, and for whatever libjpeg has anything to say about, which
        decode_picture must judge.
    """
    if not content.startswith(b"\xff\xd8") or b"Exif\0" in content or b"ns.adobe.com" in content:
        return False
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(content)
        if (height, width) != (IMAGE_SIZE, IMAGE_SIZE) or colorspace not in {"YCbCr", "Gray"}:
            return False
        simplejpeg.decode_jpeg(content, buffer=image)
    except ValueError:
        return False
    return True
