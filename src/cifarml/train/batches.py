"""The training pictures, batch by batch: shuffled, changed, and the same again for the same seed."""

from __future__ import annotations

import keras
import numpy as np
import numpy.typing as npt

from cifarml.data.dataset import Dataset
from cifarml.recipe import Recipe
from cifarml.train.augment import change_images, mix_images

__all__ = ["Batches", "one_hot"]


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of training pictures. Keras asks for them in a thread of its own, ahead of the step.

    What a batch holds depends on seed, epoch and its number only, so a training that goes on after a
    crash sees what it would have seen.

    Args:
        dataset: Pictures to train on.
        recipe: Size of a batch, and how pictures are changed.
        seed: Order and changes.
        num_replicas: Each batch holds a multiple of so many pictures, to be shared out.
    """

    def __init__(self, dataset: Dataset, recipe: Recipe, *, seed: int, num_replicas: int = 1) -> None:
        super().__init__()
        self.epoch = 0
        self._images = dataset.images
        self._targets = one_hot(dataset.labels, len(dataset.class_names))
        self._recipe = recipe
        self._seed = seed
        self._replicas = num_replicas
        self._size = self._shared(min(recipe.batch_size, len(dataset)))
        self._coins = np.random.default_rng((seed, 1)).random(len(dataset)) < 0.5
        self._order = self._shuffled()

    def __len__(self) -> int:
        """Batches in an epoch; few pictures left over wait for the next one."""
        whole, rest = divmod(len(self._images), self._size)
        return whole if 2 * self._shared(rest) < self._size else whole + 1

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """Return pictures, uint8 (N, 32, 32, 3), and their targets, float32 (N, classes)."""
        chosen = self._order[index * self._size : (index + 1) * self._size]
        chosen = chosen[: self._shared(len(chosen))]
        images, targets = self._images[chosen], self._targets[chosen]
        if self._recipe.flip:  # by turns, rather than by chance: Jordan, 2024, section 3.6
            mirrored = self._coins[chosen] ^ (self.epoch % 2 == 1)
            images[mirrored] = images[mirrored, :, ::-1]
        random = np.random.default_rng((self._seed, 3, self.epoch, index))
        images = change_images(images, self._recipe, random)
        if random.random() < self._recipe.mixing:
            images, targets = mix_images(images, targets, random)
        return images, targets

    def start_epoch(self, epoch: int) -> None:
        """Say which epoch comes, counted from 0, before its first batch is asked for."""
        self.epoch = epoch
        self._order = self._shuffled()

    def _shared(self, count: int) -> int:
        return count - count % self._replicas

    def _shuffled(self) -> npt.NDArray[np.int64]:
        return np.random.default_rng((self._seed, 2, self.epoch)).permutation(len(self._images))


def one_hot(labels: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.float32]:
    """Return targets, float32 (N, classes): 1 for the label, 0 for all others."""
    return np.eye(num_classes, dtype=np.float32)[labels]
