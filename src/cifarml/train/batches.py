"""The training pictures, batch by batch: shuffled, changed, and the same again for the same seed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Final

import numpy as np
import numpy.typing as npt

from cifarml.data.dataset import Dataset
from cifarml.recipe import Recipe
from cifarml.train.augment import change_images, mix_images

__all__ = ["Batch", "Batches", "one_hot"]

Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]
"""Pictures, uint8 (N, 32, 32, 3), and their targets, float32 (N, classes)."""

_AHEAD: Final = 3
"""So many batches are made before the step asks for them."""


class Batches:
    """Batches of training pictures.

    What a batch holds depends on seed, epoch and its number only, so a training that goes on after a
    crash sees what it would have seen.

    Args:
        dataset: Pictures to train on.
        recipe: Size of a batch, and how pictures are changed.
        seed: Order and changes.
        num_replicas: Each batch holds a multiple of so many pictures, to be shared out.
    """

    def __init__(self, dataset: Dataset, recipe: Recipe, *, seed: int, num_replicas: int = 1) -> None:
        self._images = dataset.images
        self._targets = one_hot(dataset.labels, len(dataset.class_names))
        self._recipe = recipe
        self._seed = seed
        self._replicas = num_replicas
        self._size = self._shared(min(recipe.batch_size, len(dataset)))
        self._coins = np.random.default_rng((seed, 1)).random(len(dataset)) < 0.5

    def __len__(self) -> int:
        """Batches in an epoch; few pictures left over wait for the next one."""
        whole, rest = divmod(len(self._images), self._size)
        return whole if 2 * self._shared(rest) < self._size else whole + 1

    @property
    def num_classes(self) -> int:
        """How many classes the targets tell apart."""
        return int(self._targets.shape[1])

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Make the batches of an epoch, counted from 0."""
        order = self._order(epoch)
        return (self._make(order, epoch, index) for index in range(len(self)))

    def endless(self, first_epoch: int = 0) -> Iterator[Batch]:
        """Make the batches of an epoch and of all that come after it, ahead, in a thread of its own."""
        calls = (
            (order, epoch, index)
            for epoch in count(first_epoch)
            for order in (self._order(epoch),)
            for index in range(len(self))
        )
        with ThreadPoolExecutor(1, "batches") as thread:
            made = deque(thread.submit(self._make, *next(calls)) for _ in range(_AHEAD))
            while True:
                made.append(thread.submit(self._make, *next(calls)))
                yield made.popleft().result()

    def _make(self, order: npt.NDArray[np.int64], epoch: int, index: int) -> Batch:
        chosen = order[index * self._size : (index + 1) * self._size]
        chosen = chosen[: self._shared(len(chosen))]
        images, targets = self._images[chosen], self._targets[chosen]
        if self._recipe.flip:  # by turns, rather than by chance: Jordan, 2024, section 3.6
            mirrored = self._coins[chosen] ^ (epoch % 2 == 1)
            images[mirrored] = images[mirrored, :, ::-1]
        random = np.random.default_rng((self._seed, 3, epoch, index))
        images = change_images(images, self._recipe, random)
        if random.random() < self._recipe.mixing:
            images, targets = mix_images(images, targets, random)
        return images, targets

    def _shared(self, number: int) -> int:
        return number - number % self._replicas

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng((self._seed, 2, epoch)).permutation(len(self._images))


def one_hot(labels: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.float32]:
    """Return targets, float32 (N, classes): 1 for the label, 0 for all others."""
    return np.eye(num_classes, dtype=np.float32)[labels]
