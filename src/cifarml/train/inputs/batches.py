"""Batches of training images: shuffled, augmented, pruned, and reproducible from the seed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from cifarml.data.dataset import Dataset
from cifarml.model.recipe import Recipe
from cifarml.train.inputs.augmentation import augment_images, mix_images

Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]
"""Images, uint8 (N, 32, 32, 3), and targets, float32 (N, classes), which sum to the image's weight."""

_AHEAD: Final = 3
"""Number of batches to prefetch."""
_LEAST_TO_PRUNE: Final = 16
"""Epochs with fewer batches are not pruned: the losses must be known before batches are prefetched."""


class _EpochImages(NamedTuple):
    """Indices of the images of an epoch in their order, and the weight of every image."""

    order: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]


class DataPruning(NamedTuple):
    """Data pruning (InfoBatch): skip a random part of the images with low loss in each epoch.

    Z. Qin et al., "InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning", ICLR 2024: some
    images with low loss are skipped at random, and the others with low loss get a higher weight, so that the
    expected gradient is the same. Here every epoch skips the same number of images.

    Attributes:
        num_images: Training images.
        num_pruned: Images that each epoch skips; may be 0.
    """

    num_images: int
    num_pruned: int

    @classmethod
    def plan(cls, recipe: Recipe, num_images: int, num_replicas: int = 1) -> Self:
        """Plan the pruning of a recipe, so that an epoch consists of whole batches.

        Nothing is pruned with several replicas, or if few batches would remain.
        """
        size = min(recipe.batch_size, num_images)
        whole = round((1 - recipe.pruning) * num_images) // size
        prunes = recipe.pruning > 0 and num_replicas == 1 and whole >= _LEAST_TO_PRUNE
        return cls(num_images, num_images - whole * size if prunes else 0)

    @property
    def num_shown(self) -> int:
        """Number of images in an epoch."""
        return self.num_images - self.num_pruned

    def choose(self, losses: npt.NDArray[np.float32] | None, random: np.random.Generator) -> _EpochImages:
        """Choose the images of an epoch: half of the easiest ``2 * num_pruned`` images are skipped."""
        order = random.permutation(self.num_images)
        weights = np.ones(len(order), np.float32)
        if not self.num_pruned or losses is None or not losses.any():
            return _EpochImages(order[self.num_pruned :], weights)
        hard = np.where(losses == 0, np.float32(np.inf), losses)[order]
        easiest = np.argsort(hard, kind="stable")[: 2 * self.num_pruned]  # positions in ``order``
        weights[order[easiest]] = len(easiest) / (len(easiest) - self.num_pruned)
        weights *= 1 - self.num_pruned / len(order)  # so that their mean is 1
        return _EpochImages(np.delete(order, random.permutation(easiest)[: self.num_pruned]), weights)


class Batches:
    """Batches of training images.

    The content of a batch depends only on seed, epoch and index, and with data pruning on the losses two
    epochs before, so that a resumed training sees the same batches. Batch sizes are multiples of
    ``num_replicas``.

    Attributes:
        dataset: Images to train on.
        pruning: Number of images that an epoch skips, and their choice.
    """

    def __init__(self, dataset: Dataset, recipe: Recipe, *, seed: int, num_replicas: int = 1) -> None:
        self.dataset = dataset
        self.pruning = DataPruning.plan(recipe, len(dataset), num_replicas)
        self._targets = one_hot(dataset.labels, len(dataset.class_names))
        self._recipe = recipe
        self._seed = seed
        self._replicas = num_replicas
        self._size = self._round_down(min(recipe.batch_size, len(dataset)))
        self._coins = np.random.default_rng((seed, 1)).random(len(dataset)) < 0.5
        self._losses: dict[int, npt.NDArray[np.float32]] = {}
        self._epochs: dict[int, _EpochImages] = {}

    def __len__(self) -> int:
        """Number of batches in an epoch; a last batch that is less than half full is dropped."""
        whole, rest = divmod(self.pruning.num_shown, self._size)
        return whole if 2 * self._round_down(rest) < self._size else whole + 1

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 0."""
        return (self._make(epoch, index) for index in range(len(self)))

    def endless(self, first_epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch and of all later ones, prefetched in a thread."""
        calls = ((epoch, index) for epoch in count(first_epoch) for index in range(len(self)))
        with ThreadPoolExecutor(1, "batches") as thread:
            made = deque(thread.submit(self._make, *next(calls)) for _ in range(_AHEAD))
            while True:
                made.append(thread.submit(self._make, *next(calls)))
                yield made.popleft().result()

    def shown(self, epoch: int, index: int) -> npt.NDArray[np.int64]:
        """Return the indices of the images in a batch."""
        chosen = self._images_of(epoch).order[index * self._size : (index + 1) * self._size]
        return chosen[: self._round_down(len(chosen))]

    def record_losses(self, epoch: int, losses: npt.NDArray[np.float32]) -> None:
        """Record the last loss of each image after an epoch, to prune two epochs later.

        The loss of an image that was not seen yet is 0.
        """
        self._losses[epoch] = losses
        self._losses.pop(epoch - 3, None)

    def _make(self, epoch: int, index: int) -> Batch:
        chosen = self.shown(epoch, index)
        images, targets = self.dataset.images[chosen], self._targets[chosen]
        if self._recipe.flip:  # alternating rather than random flips: Jordan, 2024, section 3.6
            mirrored = self._coins[chosen] ^ (epoch % 2 == 1)
            images[mirrored] = images[mirrored, :, ::-1]
        random = np.random.default_rng((self._seed, 3, epoch, index))
        images = augment_images(images, self._recipe, random)
        if random.random() < self._recipe.mixing:
            images, targets = mix_images(images, targets, random)
        if self.pruning.num_pruned:
            targets = targets * self._images_of(epoch).weights[chosen, None]
        return images, targets

    def _round_down(self, number: int) -> int:
        return number - number % self._replicas

    def _images_of(self, epoch: int) -> _EpochImages:
        if epoch not in self._epochs:
            random = np.random.default_rng((self._seed, 2, epoch))
            self._epochs[epoch] = self.pruning.choose(self._losses.get(epoch - 2), random)
            self._epochs.pop(epoch - 3, None)
        return self._epochs[epoch]


def one_hot(labels: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.float32]:
    """Return targets, float32 (N, classes): 1 for the label, 0 for all others."""
    return np.eye(num_classes, dtype=np.float32)[labels]
