"""Loading of a `Dataset` from any source."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from cifarml.data.archives.archive import is_archive, open_archive
from cifarml.data.blob.address import is_blob_address
from cifarml.data.build import build_dataset
from cifarml.data.cache import CacheWriter, read_cached
from cifarml.data.cifar10.cifar100 import find_cifar100, load_cifar100
from cifarml.data.cifar10.official import download_official, is_official, load_official
from cifarml.data.dataset import BadImage, Dataset
from cifarml.data.decode import decode_images
from cifarml.data.drawn.drawings import draw_dataset
from cifarml.data.file_tree import FileTree, Folder, OneFile
from cifarml.data.recognize import describe_file, hint_for
from cifarml.data.tables.find import label_images
from cifarml.data.tables.parquet import is_parquet
from cifarml.errors import DataError, ImageError
from cifarml.images import DECODER_VERSION
from cifarml.imaging.depth import describe_bits
from cifarml.imaging.formats import HAS_HEIC
from cifarml.paths import expand_home
from cifarml.progress import OnProgress, ignore_progress
from cifarml.settings import Settings, load_settings

_DRAWN: Final = re.compile(r"drawn(?::(?P<count>\d{1,9}))?(?::(?P<seed>\d{1,9}))?")
_COARSE: Final = ":coarse"
_CACHED_FILES: Final = 5_000
_CACHED_BYTES: Final = 64 * 2**20
_SHOWN_BAD: Final = 20
_PARQUET: Final = b"PAR1"
_PEEKED_BYTES: Final = 64 * 2**20
_VERSION: Final = f"{DECODER_VERSION}.2{'-heic' if HAS_HEIC else ''}"
"""Version of cached images: of their pixels, labels and split; with the extra `heic`, more files are read."""


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
    - such images beside a CSV file with their labels, `labels.csv` or Kaggle's `trainLabels.csv`;
    - an official CIFAR-10 or CIFAR-100 archive, or a folder that it was extracted to; CIFAR-100 has fine
      labels, or coarse ones as `"cifar-100-python.tar.gz:coarse"`;
    - Hugging Face data sets in Parquet (the extra `parquet`), and `.npz` files with images and labels;
    - either of these in Azure Blob Storage, as `"az://CONTAINER/NAME"` or an https URL (downloaded once);
    - `"cifar10"`, the official archive (downloaded once);
    - `"drawn[:COUNT[:SEED]]"`, synthetic drawings of the CIFAR-10 classes.

    The last two are strings; a folder of the same name is `"./cifar10"` or `Path("cifar10")`.

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
    if isinstance(source, str) and is_keyword(source) and Path(source).exists():
        note = f"{source!r} is not the folder or file of this name, which is './{source}'"
        dataset = dataclasses.replace(dataset, notes=(note, *dataset.notes))
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


def split_coarse(source: str | Path) -> tuple[str | Path, bool]:
    """Return a source without the suffix `:coarse`, and whether it has it.

    Example:
        >>> split_coarse("cifar-100-python.tar.gz:coarse")
        ('cifar-100-python.tar.gz', True)
    """
    text = str(source)
    if text.endswith(_COARSE) and not Path(text).exists():
        return text.removesuffix(_COARSE), True
    return source, False


def is_keyword(source: str) -> bool:
    """Return whether a source is `cifar10` or `drawn`, with or without a count and a seed."""
    return source == "cifar10" or _DRAWN.fullmatch(source) is not None


def is_path(source: str) -> bool:
    """Return whether a source is a local path, not a blob address, `cifar10` or `drawn`."""
    return not is_keyword(source) and not is_blob_address(source)


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
    if known:
        return open_archive(place, origin=origin)
    return _open_file(origin, place)


def _open_file(origin: str, path: Path) -> FileTree:
    """Open a file that is not an archive: a table of images, or an error that says what it is."""
    name = origin.rpartition("/")[2]
    tree = OneFile(path, name, origin)
    try:
        head = tree.head(name)
        if head.startswith(_PARQUET):
            return OneFile(path, name if is_parquet(name) else f"{name}.parquet", origin)
        what = describe_file(name, tree.read(name) if tree.files[name] < _PEEKED_BYTES else head)
    except ImageError as error:
        raise DataError(f"{origin}: {error.message}") from error
    if not what:
        raise DataError(f"{origin} is neither a folder nor a .zip, .tar.gz or .tar archive")
    raise DataError(f"{origin} is {what}, not a folder or archive of images", hint_for(what))


def _load_source(source: str | Path, skip_bad: bool, settings: Settings, on_progress: OnProgress) -> Dataset:
    if isinstance(source, str) and (drawn := _DRAWN.fullmatch(source)):
        count, seed = int(drawn["count"] or 2000), int(drawn["seed"] or 0)
        return draw_dataset(count, seed=seed, on_progress=on_progress)
    source, coarse = split_coarse(source)
    origin, place = locate_source(source, settings, on_progress=on_progress)
    version = f"{_VERSION}-coarse" if coarse else _VERSION
    cache = settings.cache_dir / "decoded"
    key = ""
    with suppress(OSError, ValueError):  # open_source reports the error
        if isinstance(place, Path) and place.is_file():
            with place.open("rb") as file:
                key = f"{hashlib.file_digest(file, 'sha256').hexdigest()}-{version}"
    if key and (dataset := read_cached(cache, key, origin)):
        return dataset  # the archive need not be opened
    with _gc_disabled(), open_source(origin, place) as tree:
        if len(tree.files) < _CACHED_FILES and sum(tree.files.values()) < _CACHED_BYTES:
            key = ""
        elif tree_key := tree.key():
            key = f"{tree_key}-{version}"
            if dataset := read_cached(cache, key, origin):
                return dataset
        return _decode_tree(tree, coarse, skip_bad, on_progress, partial(CacheWriter, cache, key))


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
    coarse: bool,
    skip_bad: bool,
    on_progress: OnProgress,
    open_cache: Callable[[int, tuple[str, ...]], CacheWriter],
) -> Dataset:
    if is_official(tree.files) or find_cifar100(tree.files):
        if is_official(tree.files):
            dataset = load_official(tree, on_progress=on_progress)
        else:
            dataset = load_cifar100(tree, coarse=coarse, on_progress=on_progress)
        with open_cache(len(dataset), dataset.class_names) as cache:
            cache.add(dataset.images)
            cache.finish(dataset)
        return dataset
    table = label_images(tree, coarse=coarse)
    layout = table.layout
    with open_cache(len(layout.names), layout.class_names) as cache:
        images, bad, bits = decode_images(
            table.tree, layout.names, on_block=cache.add, on_progress=on_progress
        )
        if bad and not skip_bad:
            raise _bad_images_error(tree.origin, bad, len(layout.names))
        try:
            dataset = build_dataset(tree.origin, layout, images, bad)
        except DataError as error:
            raise DataError(f"{tree.origin}: {error.message}", error.hint) from error
        notes = describe_bits(bits)
        dataset = replace(dataset, notes=(*dataset.notes, *notes), ignored=table.ignored)
        if not bad:
            cache.finish(dataset)
        return dataset


def _bad_images_error(origin: str, bad: list[BadImage], count: int) -> ImageError:
    lines = [f"  {image.name}: {image.reason}" for image in bad[:_SHOWN_BAD]]
    if len(bad) > _SHOWN_BAD:
        lines.append(f"  and {len(bad) - _SHOWN_BAD:,} more")
    return ImageError(
        f"{origin}: {len(bad):,} of {count:,} images can't be read:\n" + "\n".join(lines),
        hint="repair or remove them, or skip them: --skip-bad",
    )
