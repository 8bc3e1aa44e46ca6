"""Loading of a `Dataset` from any source."""

from __future__ import annotations

import gc
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from cifarml.data.archives.archive import is_archive, open_archive
from cifarml.data.blob.address import is_blob_address
from cifarml.data.cache import CacheWriter, read_cached
from cifarml.data.cifar10.official import download_official, is_official, load_official
from cifarml.data.dataset import BadImage, Dataset
from cifarml.data.decode import decode_images
from cifarml.data.drawn.drawings import draw_dataset
from cifarml.data.file_tree import FileTree, Folder
from cifarml.data.layout import Layout, find_layout
from cifarml.errors import DataError, ImageError
from cifarml.images import DECODER_VERSION
from cifarml.paths import expand_home
from cifarml.progress import OnProgress, ignore_progress
from cifarml.settings import Settings, load_settings

_DRAWN: Final = re.compile(r"drawn(?::(?P<count>\d{1,9}))?(?::(?P<seed>\d{1,9}))?")
_CACHED_FILES: Final = 5_000
_CACHED_BYTES: Final = 64 * 2**20
_SHOWN_BAD: Final = 20


def load_dataset(
    source: str | Path,
    *,
    subset: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    settings: Settings | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Dataset:
    """Load a data set of labelled images.

    The format is detected from the content of the source:

    - a folder, .zip, .tar.gz or .tar of images that are named `<class>_<number>.png` or in class folders;
    - an official CIFAR-10 archive, or a folder that it was extracted to;
    - either of these in Azure Blob Storage, as `"az://CONTAINER/NAME"` or an https URL (downloaded once);
    - `"cifar10"`, the official archive (downloaded once);
    - `"drawn[:COUNT[:SEED]]"`, synthetic drawings of the CIFAR-10 classes.

    Args:
        source: A path, an address or one of the names above.
        subset: Number of images in a random subset, balanced over the classes; all images if omitted.
        seed: Random seed of the subset.
        skip_bad: Skip unreadable images instead of raising `ImageError`.
        settings: Settings, such as the cache folder; read from the environment if omitted.
        on_progress: Called while images are read.

    Returns:
        The data set, with its train/test split.

    Raises:
        DataError: If the source is missing, damaged, unsafe or unlabelled.
        ImageError: If images are unreadable; the message lists up to 20 of them.
        CloudError: If Azure Storage denies access or can't be reached.

    Example:
        ```python
        dataset = cifarml.load_dataset("drawn:2000", subset=200)
        dataset.class_names[:3]  # ('airplane', 'automobile', 'bird')
        ```
    """
    dataset = _load_source(source, skip_bad, settings or load_settings(), on_progress)
    return dataset if subset is None else dataset.subset(subset, seed=seed)


def locate_source(
    source: str | Path, settings: Settings, *, on_progress: OnProgress = ignore_progress
) -> tuple[str, Path | FileTree]:
    """Make a source available locally, downloading it if it is remote.

    Returns:
        The source's human-readable name, without secrets, and its path or files.
    """
    if source == "cifar10":
        source = download_official(settings, on_progress=on_progress)
    elif isinstance(source, str) and is_blob_address(source):
        from cifarml.data.blob.source import open_blobs  # deferred: imports Azure's libraries

        return open_blobs(source, settings, on_progress=on_progress)
    return str(source), expand_home(source)


def is_path(source: str) -> bool:
    """Return whether a source is a local path, not a blob address, `cifar10` or `drawn`."""
    return source != "cifar10" and not _DRAWN.fullmatch(source) and not is_blob_address(source)


def open_source(origin: str, place: Path | FileTree) -> FileTree:
    """Open a source returned by `locate_source`."""
    if not isinstance(place, Path):
        return place
    try:
        if place.is_dir():
            return Folder(place)
        known = is_archive(place)
    except FileNotFoundError:
        raise DataError(
            f"no such folder or archive: {origin}",
            hint="a source is a path, az://CONTAINER/NAME, cifar10 or drawn:2000; see cifarml data show -h",
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DataError(f"can't read {origin[:300]!r}: {error.args[-1]}") from error
    if not known:
        raise DataError(f"{origin} is neither a folder nor a .zip, .tar.gz or .tar archive")
    return open_archive(place, origin=origin)


def _load_source(source: str | Path, skip_bad: bool, settings: Settings, on_progress: OnProgress) -> Dataset:
    if drawn := _DRAWN.fullmatch(str(source)):
        count, seed = int(drawn["count"] or 2000), int(drawn["seed"] or 0)
        return draw_dataset(count, seed=seed, on_progress=on_progress)
    origin, place = locate_source(source, settings, on_progress=on_progress)
    cache = settings.cache_dir / "decoded"
    key = ""
    with suppress(OSError, ValueError):  # open_source reports the error
        if isinstance(place, Path) and place.is_file():
            with place.open("rb") as file:
                key = f"{hashlib.file_digest(file, 'sha256').hexdigest()}-{DECODER_VERSION}"
    if key and (dataset := read_cached(cache, key, origin)):
        return dataset  # the archive need not be opened
    with _gc_disabled(), open_source(origin, place) as tree:
        if len(tree.files) < _CACHED_FILES and sum(tree.files.values()) < _CACHED_BYTES:
            key = ""
        elif tree_key := tree.key():
            key = f"{tree_key}-{DECODER_VERSION}"
            if dataset := read_cached(cache, key, origin):
                return dataset
        return _decode_tree(tree, skip_bad, on_progress, partial(CacheWriter, cache, key))


@contextmanager
def _gc_disabled() -> Iterator[None]:
    """Disable the garbage collector, which takes an eighth of the time to load a large source."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _decode_tree(
    tree: FileTree,
    skip_bad: bool,
    on_progress: OnProgress,
    open_cache: Callable[[int, tuple[str, ...]], CacheWriter],
) -> Dataset:
    if is_official(tree.files):
        dataset = load_official(tree, on_progress=on_progress)
        with open_cache(len(dataset), dataset.class_names) as cache:
            cache.add(dataset.images)
            cache.finish(dataset)
        return dataset
    try:
        layout = find_layout(tree.files, tree.folders)
    except DataError as error:
        raise DataError(f"{tree.origin}: {error.message}", error.hint) from error
    with open_cache(len(layout.names), layout.class_names) as cache:
        images, bad = decode_images(tree, layout.names, on_block=cache.add, on_progress=on_progress)
        if bad and not skip_bad:
            raise _bad_images_error(tree.origin, bad, len(layout.names))
        dataset = _to_dataset(tree.origin, layout, images, bad)
        if not bad:
            cache.finish(dataset)
        return dataset


def _to_dataset(origin: str, layout: Layout, images: npt.NDArray[np.uint8], bad: list[BadImage]) -> Dataset:
    names, labels, is_test = layout.names, layout.labels, layout.is_test
    if bad:
        skipped = {image.name for image in bad}
        good = np.array([name not in skipped for name in names])
        images, labels, is_test = images[good], labels[good], is_test[good]
        names = tuple(name for name in names if name not in skipped)
        if empty := set(range(len(layout.class_names))) - set(labels.tolist()):
            missing = ", ".join(repr(layout.class_names[label]) for label in sorted(empty)[:5])
            raise DataError(f"{origin}: classes without readable images: {missing}")
    for array in (images, labels, is_test):
        array.setflags(write=False)
    return Dataset(images, labels, layout.class_names, names, is_test, origin, tuple(bad))


def _bad_images_error(origin: str, bad: list[BadImage], count: int) -> ImageError:
    lines = [f"  {image.name}: {image.reason}" for image in bad[:_SHOWN_BAD]]
    if len(bad) > _SHOWN_BAD:
        lines.append(f"  and {len(bad) - _SHOWN_BAD:,} more")
    return ImageError(
        f"{origin}: {len(bad):,} of {count:,} images can't be read:\n" + "\n".join(lines),
        hint="repair or remove them, or skip them: --skip-bad",
    )
