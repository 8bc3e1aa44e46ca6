"""The immutable data set that flows from the images to the training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from cifarml.cifar10 import IMAGE_SHAPE
from cifarml.errors import DataError

_T = TypeVar("_T", bound=np.generic)

MAX_CLASSES = 1000
_ENOUGH = 2500
"""So many validation images tell an accuracy of 90 % to 0.6 points (one standard error); the rest is for
training."""
TEST_FRACTION = 0.1
"""The article's share of test images: numbers 181-200 of each 200."""


class BadImage(NamedTuple):
    """An image that was left out, and why."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labelled images, all of one size. Nothing in it can be changed.

    Args:
        images: uint8, shape (N, 32, 32, 3), red-green-blue, 0 to 255.
        labels: int64, shape (N,), indices into ``class_names``.
        class_names: 2 to 1000 different names.
        sources: Where each image came from, N texts.
        is_test: bool, shape (N,): the images that the source sets apart for testing.
        origin: Where the whole came from, for people to read.
        skipped: Images that could not be read and were left out.

    Raises:
        DataError: If shapes, dtypes, labels or names don't fit together.

    Example:
        >>> from cifarml import load_dataset
        >>> dataset = load_dataset("drawn:200")
        >>> dataset.images.shape
        (200, 32, 32, 3)
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    sources: tuple[str, ...]
    is_test: npt.NDArray[np.bool_]
    origin: str
    skipped: tuple[BadImage, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.images)
        _check_array("images", self.images, np.uint8, (count, *IMAGE_SHAPE))
        _check_array("labels", self.labels, np.int64, (count,))
        _check_array("is_test", self.is_test, np.bool_, (count,))
        if len(self.sources) != count:
            raise DataError(f"sources must name each of the {count} images. Received: {len(self.sources)}")
        check_class_names(self.class_names)
        if count and not (self.labels.min() >= 0 and self.labels.max() < len(self.class_names)):
            raise DataError(
                f"labels must lie in 0..{len(self.class_names) - 1}. "
                f"Received: {self.labels.min()}..{self.labels.max()}"
            )
        for field in ("images", "labels", "is_test"):
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
        """SHA-256 (hexadecimal) of pixels, labels, split and class names, in their order."""
        fingerprint = Fingerprint(len(self), self.class_names)
        fingerprint.add(self.images)
        return fingerprint.finish(self.labels, self.is_test)

    @property
    def train(self) -> Dataset:
        """The images to learn from (validation included)."""
        return self.take(np.flatnonzero(~self.is_test))

    @property
    def test(self) -> Dataset:
        """The images that are looked at once, at the end."""
        return self.take(np.flatnonzero(self.is_test))

    def class_counts(self) -> npt.NDArray[np.int64]:
        """Count the images of each class: int64, shape (number of classes,)."""
        return np.bincount(self.labels, minlength=len(self.class_names)).astype(np.int64)

    def take(self, indices: npt.NDArray[np.int64]) -> Dataset:
        """Return a data set of the images at ``indices`` (int64, shape (M,)), in that order."""
        return dataclasses.replace(
            self,
            images=_owned(self.images[indices]),
            labels=_owned(self.labels[indices]),
            sources=tuple(self.sources[i] for i in indices.tolist()),
            is_test=_owned(self.is_test[indices]),
            skipped=(),
        )

    def relabel(self, labels: npt.NDArray[np.int64], class_names: tuple[str, ...]) -> Dataset:
        """Return the same images with other labels (int64, shape (N,)), which number other classes."""
        return dataclasses.replace(self, labels=labels, class_names=class_names)

    def subset(self, num_images: int, *, seed: int = 0) -> Dataset:
        """Take images at random, balanced over the classes.

        Of each class a tenth (at least one) comes from the test images and the rest from the others,
        as the article splits its 2000; a source with one kind only gives just that kind.

        Args:
            num_images: How many images in all; classes differ by one at the most.
            seed: The same seed takes the same images.

        Returns:
            The smaller data set, images in their old order.

        Raises:
            DataError: If a class has too few images, or ``num_images`` is too small to train on.
        """
        num_classes = len(self.class_names)
        if num_images < 2 * num_classes:
            raise DataError(
                f"a subset needs 2 images a class, at least {2 * num_classes}. Received: {num_images}"
            )
        rng = np.random.default_rng(seed)
        shares = np.full(num_classes, num_images // num_classes)
        shares[rng.permutation(num_classes)[: num_images % num_classes]] += 1
        both = bool(self.is_test.any() and not self.is_test.all())
        chosen: list[npt.NDArray[np.int64]] = []
        for label, share in enumerate(shares.tolist()):
            num_test = max(1, round(share * TEST_FRACTION))
            parts = {"": share - num_test, "test ": num_test} if both else {"": share}
            for kind, wanted in parts.items():
                of_kind = self.is_test == bool(kind) if both else True
                there = np.flatnonzero((self.labels == label) & of_kind)
                if len(there) < wanted:
                    raise DataError(
                        f"a balanced subset of {num_images:,} needs {wanted:,} {kind}images of "
                        f"{self.class_names[label]!r}; there are {len(there):,}",
                        hint="ask for fewer images: --subset N",
                    )
                chosen.append(rng.permutation(there)[:wanted])
        return self.take(np.sort(np.concatenate(chosen)))

    def split(self, *, validation_fraction: float | None = None, seed: int = 0) -> DatasetSplits:
        """Split into train, validation and test images.

        The test images are those that the source sets apart. Validation images are drawn at random
        from the others, the same share of each class, and at least one image of each class stays to
        train on.

        Args:
            validation_fraction: Share of the images that are not test images, 0 to 0.5; None stands for a
                tenth, or for so much less as makes 2500 images.
            seed: The same seed gives the same split.

        Returns:
            The three sets; no image is in two of them.

        Raises:
            DataError: If a class has no image to train on.
        """
        if validation_fraction is None:
            validation_fraction = min(0.1, _ENOUGH / max(1, int(np.count_nonzero(~self.is_test))))
        rng = np.random.default_rng(seed)
        train: list[npt.NDArray[np.int64]] = []
        validation: list[npt.NDArray[np.int64]] = []
        for label, name in enumerate(self.class_names):
            there = rng.permutation(np.flatnonzero((self.labels == label) & ~self.is_test))
            if not len(there):
                raise DataError(
                    f"{self.origin}: class {name!r} has no images to train on",
                    hint="see what is there with: cifarml data check SOURCE",
                )
            num_validation = min(round(len(there) * validation_fraction), len(there) - 1)
            validation.append(there[:num_validation])
            train.append(there[num_validation:])
        return DatasetSplits(
            train=self.take(np.sort(np.concatenate(train))),
            validation=self.take(np.sort(np.concatenate(validation))),
            test=self.test,
        )


class Fingerprint:
    """Computes :attr:`Dataset.fingerprint` as the images come in."""

    def __init__(self, num_images: int, class_names: tuple[str, ...]) -> None:
        header = {"shape": (num_images, *IMAGE_SHAPE), "class_names": class_names}
        self._digest = hashlib.sha256(json.dumps(header, ensure_ascii=False).encode())

    def add(self, images: npt.NDArray[np.uint8]) -> None:
        """Take the next images, uint8 of shape (B, 32, 32, 3)."""
        self._digest.update(np.ascontiguousarray(images).data)

    def finish(self, labels: npt.NDArray[np.int64], is_test: npt.NDArray[np.bool_]) -> str:
        """Return the fingerprint of all the images with these labels and this split."""
        for array in (labels.astype("<i8", copy=False), is_test):
            self._digest.update(np.ascontiguousarray(array).data)
        return self._digest.hexdigest()


class DatasetSplits(NamedTuple):
    """Three data sets with no image in common."""

    train: Dataset
    validation: Dataset
    test: Dataset


def check_class_names(names: tuple[str, ...]) -> None:
    """Raise DataError unless there are 2 to 1000 different, printable names."""
    if not 2 <= len(names) <= MAX_CLASSES:
        shown = f": {names[0]!r}" if len(names) == 1 else ""
        raise DataError(
            f"a data set needs 2 to {MAX_CLASSES} classes. Received: {len(names)}{shown}",
            hint="put the images of each class into a folder of its own, or name them CLASS_NUMBER.png",
        )
    if len(set(names)) != len(names):
        raise DataError(f"class names must differ. Received: {sorted(names)[:20]}")
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
    """Mark an array that nobody else holds as read-only, so that it need not be copied."""
    array.setflags(write=False)
    return array


def _frozen(array: npt.NDArray[_T]) -> npt.NDArray[_T]:
    return array if not array.flags.writeable else _owned(array.copy())
