"""The training images, batch by batch: shuffled, changed, and the same again for the same seed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cifarml.data.dataset import Dataset
from cifarml.model.recipe import Recipe
from cifarml.train.inputs.augmentation import change_images, mix_images

__all__ = ["Batch", "Batches", "count_pruned", "one_hot"]

Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]
"""Images, uint8 (N, 32, 32, 3), and their targets, float32 (N, classes), that add up to their weights."""

_AHEAD: Final = 3
"""So many batches are made before the step asks for them."""
_LEAST_TO_PRUNE: Final = 16
"""An epoch of fewer batches than these leaves no image out: the losses must be known before it is made."""


class _Choice(NamedTuple):
    """What an epoch shows, in which order, and the weight of each image there is."""

    order: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]


class Batches:
    """Batches of training images.

    What a batch holds depends on seed, epoch and its number only, and on the losses that were known two
    epochs before where known images are left out; so a training that goes on after a crash sees what it
    would have seen.

    Args:
        dataset: Images to train on.
        recipe: Size of a batch, and how images are changed.
        seed: Order and changes.
        num_replicas: Each batch holds a multiple of so many images, to be shared out; with several of them
            no image is left out.

    Attributes:
        num_pruned: How many images each epoch leaves out.
    """

    def __init__(self, dataset: Dataset, recipe: Recipe, *, seed: int, num_replicas: int = 1) -> None:
        self._images = dataset.images
        self._targets = one_hot(dataset.labels, len(dataset.class_names))
        self._recipe = recipe
        self._seed = seed
        self._replicas = num_replicas
        self._size = self._shared(min(recipe.batch_size, len(dataset)))
        self._coins = np.random.default_rng((seed, 1)).random(len(dataset)) < 0.5
        self.num_pruned = count_pruned(recipe, len(dataset), num_replicas)
        self._losses: dict[int, npt.NDArray[np.float32]] = {}
        self._choices: dict[int, _Choice] = {}

    def __len__(self) -> int:
        """Batches in an epoch; few images left over wait for the next one."""
        whole, rest = divmod(len(self._images) - self.num_pruned, self._size)
        return whole if 2 * self._shared(rest) < self._size else whole + 1

    @property
    def num_classes(self) -> int:
        """How many classes the targets tell apart."""
        return int(self._targets.shape[1])

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Make the batches of an epoch, counted from 0."""
        return (self._make(epoch, index) for index in range(len(self)))

    def endless(self, first_epoch: int = 0) -> Iterator[Batch]:
        """Make the batches of an epoch and of all that come after it, ahead, in a thread of its own."""
        calls = ((epoch, index) for epoch in count(first_epoch) for index in range(len(self)))
        with ThreadPoolExecutor(1, "batches") as thread:
            made = deque(thread.submit(self._make, *next(calls)) for _ in range(_AHEAD))
            while True:
                made.append(thread.submit(self._make, *next(calls)))
                yield made.popleft().result()

    def shown(self, epoch: int, index: int) -> npt.NDArray[np.int64]:
        """Return which images a batch of an epoch holds."""
        chosen = self._choice(epoch).order[index * self._size : (index + 1) * self._size]
        return chosen[: self._shared(len(chosen))]

    def learn(self, epoch: int, losses: npt.NDArray[np.float32]) -> None:
        """Take what was known after an epoch; it decides what the one after the next leaves out.

        Args:
            epoch: Counted from 0.
            losses: float32, shape (N,): of each image when it was seen last; 0 if it was not seen yet.
        """
        self._losses[epoch] = losses
        self._losses.pop(epoch - 3, None)

    def _make(self, epoch: int, index: int) -> Batch:
        chosen = self.shown(epoch, index)
        images, targets = self._images[chosen], self._targets[chosen]
        if self._recipe.flip:  # by turns, rather than by chance: Jordan, 2024, section 3.6
            mirrored = self._coins[chosen] ^ (epoch % 2 == 1)
            images[mirrored] = images[mirrored, :, ::-1]
        random = np.random.default_rng((self._seed, 3, epoch, index))
        images = change_images(images, self._recipe, random)
        if random.random() < self._recipe.mixing:
            images, targets = mix_images(images, targets, random)
        if self.num_pruned:
            targets = targets * self._choice(epoch).weights[chosen, None]
        return images, targets

    def _shared(self, number: int) -> int:
        return number - number % self._replicas

    def _choice(self, epoch: int) -> _Choice:
        if epoch not in self._choices:
            self._choices[epoch] = self._choose(epoch)
            self._choices.pop(epoch - 3, None)
        return self._choices[epoch]

    def _choose(self, epoch: int) -> _Choice:
        """Choose at random; of the images known best, twice as many as are left out, half stay."""
        random = np.random.default_rng((self._seed, 2, epoch))
        order = random.permutation(len(self._images))
        weights = np.ones(len(order), np.float32)
        losses = self._losses.get(epoch - 2)
        if not self.num_pruned or losses is None or not losses.any():
            return _Choice(order[self.num_pruned :], weights)
        hard = np.where(losses == 0, np.float32(np.inf), losses)[order]
        easiest = np.argsort(hard, kind="stable")[: 2 * self.num_pruned]  # places in the order
        weights[order[easiest]] = len(easiest) / (len(easiest) - self.num_pruned)
        weights *= 1 - self.num_pruned / len(order)  # so that their mean is 1
        return _Choice(np.delete(order, random.permutation(easiest)[: self.num_pruned]), weights)


def count_pruned(recipe: Recipe, num_images: int, num_replicas: int = 1) -> int:
    """Return how many of the images each epoch leaves out, so that whole batches stay.

    None with several replicas, or where few batches would stay.
    """
    size = min(recipe.batch_size, num_images)
    whole = round((1 - recipe.pruning) * num_images) // size
    prunes = recipe.pruning > 0 and num_replicas == 1 and whole >= _LEAST_TO_PRUNE
    return num_images - whole * size if prunes else 0


def one_hot(labels: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.float32]:
    """Return targets, float32 (N, classes): 1 for the label, 0 for all others."""
    return np.eye(num_classes, dtype=np.float32)[labels]
