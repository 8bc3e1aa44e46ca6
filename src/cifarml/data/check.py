"""Data checks: class counts, image sizes, duplicates, train/test leakage and unreadable files."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from cifarml.data.blob.address import is_blob_address
from cifarml.data.cifar10.official import is_official
from cifarml.data.dataset import BadImage, Dataset
from cifarml.data.layout import find_layout
from cifarml.data.load import load_dataset, locate_source, open_source
from cifarml.errors import ImageError
from cifarml.images import image_size
from cifarml.paths import expand_home
from cifarml.progress import OnProgress, ignore_progress
from cifarml.settings import load_settings


class ClassCount(NamedTuple):
    """Number of training and test images of a class."""

    name: str
    train: int
    test: int


class SourceCheck(NamedTuple):
    """Result of a data check.

    Attributes:
        dataset: The readable images.
        classes: Number of images of each class.
        sizes: ((width, height), number of image files), the most frequent size first; empty if the source
            has no image files (drawings, official CIFAR-10 archives).
        unreadable: Images that can't be read.
        duplicates: Groups of images with the same pixels and label, all in train or all in test.
        leaks: Groups of images with the same pixels, some in train and some in test.
        conflicts: Groups of images with the same pixels and different labels.
        problems: Messages about defects that invalidate training or its test accuracy; empty if none.
        warnings: Messages about minor defects.
    """

    dataset: Dataset
    classes: tuple[ClassCount, ...]
    sizes: tuple[tuple[tuple[int, int], int], ...]
    unreadable: tuple[BadImage, ...]
    duplicates: tuple[tuple[str, ...], ...]
    leaks: tuple[tuple[str, ...], ...]
    conflicts: tuple[tuple[str, ...], ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return the result as JSON-serializable values."""
        found = self._asdict()
        del found["dataset"]
        return {
            "origin": self.dataset.origin,
            "num_images": len(self.dataset),
            "fingerprint": self.dataset.fingerprint,
            **found,
            "classes": [count._asdict() for count in self.classes],
            "sizes": [{"width": w, "height": h, "num_images": count} for (w, h), count in self.sizes],
            "unreadable": [image._asdict() for image in self.unreadable],
        }


def check_source(source: str | Path, *, on_progress: OnProgress = ignore_progress) -> SourceCheck:
    """Load a source, skipping unreadable images, and check it for problems.

    Args:
        source: As for `cifarml.load_dataset`.
        on_progress: Called while images are read.

    Returns:
        The counts, problems and warnings.

    Raises:
        DataError: If the source can't be loaded at all.
        CloudError: If Azure Storage denies access or can't be reached.

    Example:
        ```python
        result = cifarml.check_source("images.zip")
        print(result.problems, result.warnings)
        ```
    """
    dataset = load_dataset(source, skip_bad=True, on_progress=on_progress)
    return check_dataset(dataset, sizes=_count_sizes(source))


def check_dataset(dataset: Dataset, *, sizes: Counter[tuple[int, int]] | None = None) -> SourceCheck:
    """Check a loaded data set for problems.

    Args:
        dataset: The data set.
        sizes: Number of image files by (width, height), if known.

    Returns:
        The counts, problems and warnings.

    Example:
        ```python
        dataset = cifarml.load_dataset("drawn:200")
        cifarml.check_dataset(dataset).problems  # ()
        ```
    """
    tests = dataset.test.class_counts().tolist()
    counts = tuple(
        ClassCount(name, count - test, test)
        for name, count, test in zip(dataset.class_names, dataset.class_counts().tolist(), tests, strict=True)
    )
    groups: defaultdict[bytes, list[int]] = defaultdict(list)
    for position, image in enumerate(dataset.images):
        groups[hashlib.blake2b(image.data, digest_size=16).digest()].append(position)
    duplicates, leaks, conflicts = [], [], []
    for group in groups.values():
        if len(group) > 1:
            names = tuple(dataset.sources[position] for position in group)
            same_label = len({int(dataset.labels[position]) for position in group}) == 1
            same_set = len({bool(dataset.is_test[position]) for position in group}) == 1
            if not same_label:
                conflicts.append(names)
            if not same_set:
                leaks.append(names)
            elif same_label:
                duplicates.append(names)
    problems = [
        *_format_count(len(dataset.skipped), "image can't be read", "images can't be read"),
        *_format_count(len(leaks), "image is in both train and test", "images are in both train and test"),
        *_format_count(len(conflicts), "image has conflicting labels", "images have conflicting labels"),
        *(f"class {count.name!r} has no training images" for count in counts if not count.train),
        *(f"class {count.name!r} has no test images" for count in counts if not count.test),
    ]
    warnings = [
        *_format_count(len(duplicates), "image is duplicated", "images are duplicated"),
        *_imbalance(counts),
    ]
    return SourceCheck(
        dataset,
        counts,
        tuple((sizes or Counter()).most_common()),
        dataset.skipped,
        tuple(duplicates),
        tuple(leaks),
        tuple(conflicts),
        tuple(problems),
        tuple(warnings),
    )


def _format_count(count: int, one: str, many: str) -> list[str]:
    return [f"{count:,} {one if count == 1 else many}"] if count else []


def _imbalance(counts: tuple[ClassCount, ...]) -> list[str]:
    least, most = (pick(counts, key=lambda count: count.train) for pick in (min, max))
    if most.train <= 10 * max(least.train, 1):
        return []
    return [
        f"imbalanced classes: {most.name!r} has {most.train:,} training images, "
        f"{least.name!r} only {least.train:,}"
    ]


def _count_sizes(source: str | Path) -> Counter[tuple[int, int]]:
    """Count the image files of a source by width and height, without decoding them."""
    sizes: Counter[tuple[int, int]] = Counter()
    if not is_blob_address(source) and not expand_home(source).exists():  # drawings or "cifar10"
        return sizes
    with open_source(*locate_source(source, load_settings())) as tree:
        if not is_official(tree.files):
            for name in find_layout(tree.files, tree.folders).names:
                try:
                    sizes[image_size(tree.read(name))] += 1
                except ImageError:
                    continue  # reported as unreadable
    return sizes
