"""Immutable data set of labelled images."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from cifarml.cifar10 import IMAGE_SHAPE
from cifarml.data.fingerprint import Fingerprint
from cifarml.data.ignored import IgnoredFiles
from cifarml.data.splitting.subset import draw_subset
from cifarml.errors import DataError

_T = TypeVar("_T", bound=np.generic)

MAX_CLASSES = 1000
_MAX_VALIDATION = 2500
"""Enough validation images for a standard error of 0.6 points at 90 % accuracy; the rest is for training."""


class BadImage(NamedTuple):
    """An unreadable image that was skipped, and the reason."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Immutable data set of labelled images, all of the same size.

    Args:
        images: uint8, shape (N, 32, 32, 3), RGB, 0 to 255.
        labels: int64, shape (N,), indices into `class_names`.
        class_names: 2 to 1000 unique names.
        sources: N strings, the file name or other source of each image.
        is_test: bool, shape (N,), True for images in the test set.
        origin: Human-readable name of the source, such as a path.
        skipped: Unreadable images that were skipped.
        is_validation: bool, shape (N,), True for images that the source marks for validation; all False if
            omitted.
        notes: Statements about how labels and split were derived, such as "validation folder 'val' is used
            as the test set".
        ignored: Image files that were not read, by kind, such as HEIC images without the extra `heic`.

    Raises:
        DataError: If shapes, dtypes, labels or names are invalid or inconsistent.

    Example:
        ```python
        dataset = cifarml.load_dataset("drawn:200")
        dataset.images.shape  # (200, 32, 32, 3)
        len(dataset.train), len(dataset.test)  # (180, 20)
        ```
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    sources: tuple[str, ...]
    is_test: npt.NDArray[np.bool_]
    origin: str
    skipped: tuple[BadImage, ...] = ()
    is_validation: npt.NDArray[np.bool_] = dataclasses.field(default_factory=lambda: np.zeros(0, np.bool_))
    notes: tuple[str, ...] = ()
    ignored: tuple[IgnoredFiles, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.images)
        _check_array("images", self.images, np.uint8, (count, *IMAGE_SHAPE))
        _check_array("labels", self.labels, np.int64, (count,))
        _check_array("is_test", self.is_test, np.bool_, (count,))
        if not len(self.is_validation):
            object.__setattr__(self, "is_validation", np.zeros(count, np.bool_))
        _check_array("is_validation", self.is_validation, np.bool_, (count,))
        if (self.is_test & self.is_validation).any():
            raise DataError("an image can't be in both the test and the validation set")
        if len(self.sources) != count:
            raise DataError(f"sources must have an entry per image, {count}. Received: {len(self.sources)}")
        check_class_names(self.class_names)
        if count and not (self.labels.min() >= 0 and self.labels.max() < len(self.class_names)):
            raise DataError(
                f"labels must be in 0..{len(self.class_names) - 1}. "
                f"Received: {self.labels.min()}..{self.labels.max()}"
            )
        for field in ("images", "labels", "is_test", "is_validation"):
            object.__setattr__(self, field, _frozen(getattr(self, field)))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        tests = int(self.is_test.sum())
        return (
            f"Dataset({self.origin!r}: {len(self):,} images, {len(self.class_names)} classes, "
            f"{len(self) - tests:,} train + {tests:,} test)"
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the class names, pixels, labels and split, hexadecimal."""
        fingerprint = Fingerprint(len(self), self.class_names)
        fingerprint.add(self.images)
        return fingerprint.finish(self.labels, self.is_test, self.is_validation)

    @property
    def train(self) -> Dataset:
        """The images outside the test set, including those for validation."""
        return self.take(np.flatnonzero(~self.is_test))

    @property
    def test(self) -> Dataset:
        """The test images, for a single evaluation after training."""
        return self.take(np.flatnonzero(self.is_test))

    def class_counts(self) -> npt.NDArray[np.int64]:
        """Count the images of each class.

        Returns:
            int64, shape (number of classes,).

        Example:
            ```python
            dict(zip(dataset.class_names, dataset.class_counts().tolist()))
            ```
        """
        return np.bincount(self.labels, minlength=len(self.class_names)).astype(np.int64)

    def take(self, indices: npt.NDArray[np.int64]) -> Dataset:
        """Select images by index.

        Args:
            indices: int64, shape (M,).

        Returns:
            A data set of these M images, in the order of `indices`.

        Example:
            ```python
            first_ten = dataset.take(np.arange(10))
            ```
        """
        return dataclasses.replace(
            self,
            images=_owned(self.images[indices]),
            labels=_owned(self.labels[indices]),
            sources=tuple(self.sources[i] for i in indices.tolist()),
            is_test=_owned(self.is_test[indices]),
            is_validation=_owned(self.is_validation[indices]),
            skipped=(),
        )

    def relabel(self, labels: npt.NDArray[np.int64], class_names: tuple[str, ...]) -> Dataset:
        """Replace the labels and class names.

        Args:
            labels: int64, shape (N,), indices into `class_names`.
            class_names: 2 to 1000 unique names.

        Returns:
            A data set of the same images with the new labels.

        Raises:
            DataError: If labels or names are invalid.

        Example:
            ```python
            animals = (2, 3, 4, 5, 6, 7)  # bird, cat, deer, dog, frog, horse
            is_animal = np.isin(dataset.labels, animals).astype(np.int64)
            two_classes = dataset.relabel(is_animal, ("vehicle", "animal"))
            ```
        """
        return dataclasses.replace(self, labels=labels, class_names=class_names)

    def subset(self, num_images: int, *, seed: int = 0) -> Dataset:
        """Draw a random subset, balanced over the classes.

        A tenth of each class (at least one image) is drawn from the test images and the rest from the
        training images, like the article's 2000. A data set without test images gives only training images,
        and vice versa. Validation images of the source keep their share of the images outside the test set.

        Args:
            num_images: Number of images in total; class sizes differ by at most one.
            seed: Random seed; the same seed selects the same images.

        Returns:
            The subset, with its images in their original order.

        Raises:
            DataError: If a class has too few images, or `num_images` is less than two per class.

        Example:
            ```python
            small = dataset.subset(100, seed=1)
            ```
        """
        splits = (self._is_train, self.is_test, self.is_validation)
        chosen = self.take(draw_subset(self.labels, self.class_names, splits, num_images, seed))
        return dataclasses.replace(chosen, skipped=self.skipped)

    def split(self, *, validation_fraction: float | None = None, seed: int = 0) -> DatasetSplits:
        """Split into training, validation and test sets.

        The test set is taken from the source, and so are the validation images if it marks any and no
        fraction is given. Otherwise they are drawn at random from the images outside the test set, stratified
        by class; at least one training image remains in each class.

        Args:
            validation_fraction: Share of the images outside the test set, 0 to 0.5; if None, the source's
                validation images or, if it marks none, a tenth, but at most 2500 images.
            seed: Random seed; the same seed gives the same split.

        Returns:
            The three disjoint data sets.

        Raises:
            DataError: If a class has no training images.

        Example:
            ```python
            train, validation, test = dataset.split(validation_fraction=0.2)
            ```
        """
        if validation_fraction is None and self.is_validation.any():
            return self._split_by_source()
        if validation_fraction is None:
            validation_fraction = min(0.1, _MAX_VALIDATION / max(1, int(np.count_nonzero(~self.is_test))))
        rng = np.random.default_rng(seed)
        train: list[npt.NDArray[np.int64]] = []
        validation: list[npt.NDArray[np.int64]] = []
        for label, name in enumerate(self.class_names):
            members = rng.permutation(np.flatnonzero((self.labels == label) & ~self.is_test))
            if not len(members):
                raise self._no_training_images(name)
            num_validation = min(round(len(members) * validation_fraction), len(members) - 1)
            validation.append(members[:num_validation])
            train.append(members[num_validation:])
        return DatasetSplits(
            train=self.take(np.sort(np.concatenate(train))),
            validation=self.take(np.sort(np.concatenate(validation))),
            test=self.test,
        )

    def _split_by_source(self) -> DatasetSplits:
        counts = np.bincount(self.labels[self._is_train], minlength=len(self.class_names))
        if not counts.all():
            raise self._no_training_images(self.class_names[int(counts.argmin())])
        parts = (self._is_train, self.is_validation, self.is_test)
        return DatasetSplits(*(self.take(np.flatnonzero(part)) for part in parts))

    @property
    def _is_train(self) -> npt.NDArray[np.bool_]:
        return ~self.is_test & ~self.is_validation

    def _no_training_images(self, class_name: str) -> DataError:
        return DataError(
            f"{self.origin}: class {class_name!r} has no training images",
            hint="check the data: cifarml data check SOURCE",
        )


class DatasetSplits(NamedTuple):
    """Disjoint training, validation and test sets."""

    train: Dataset
    validation: Dataset
    test: Dataset


def check_class_names(names: tuple[str, ...]) -> None:
    """Raise DataError unless there are 2 to 1000 unique, printable names."""
    if len(names) == 1:
        raise DataError(
            f"a data set needs 2 to {MAX_CLASSES} classes. Received a single class: {names[0]!r}",
            hint="add a class with images of other things, such as a folder named other",
        )
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(
            f"a data set needs 2 to {MAX_CLASSES} classes. Received: {len(names)}",
            hint="put the images of each class into a separate folder, or name them CLASS_NUMBER.png",
        )
    if len(set(names)) != len(names):
        raise DataError(f"class names must be unique. Received: {sorted(names)[:20]}")
    for name in names:
        if not name.strip() or not name.isprintable() or len(name) > 255:
            raise DataError(f"a class name must be 1 to 255 printable characters. Received: {name[:300]!r}")


def _check_array(name: str, array: npt.NDArray[np.generic], dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise DataError(
            f"{name} must be {np.dtype(dtype).name} of shape {shape}. "
            f"Received: {array.dtype.name} of shape {array.shape}"
        )


def _owned(array: npt.NDArray[_T]) -> npt.NDArray[_T]:
    """Make a newly created array read-only, so that it need not be copied."""
    array.setflags(write=False)
    return array


def _frozen(array: npt.NDArray[_T]) -> npt.NDArray[_T]:
    return array if not array.flags.writeable else _owned(array.copy())
