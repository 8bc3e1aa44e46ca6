"""Keras callback that saves checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

import keras

from cifarml.train.time_budget import Clock

_SHARE: Final = 0.02
"""Maximum share of the training time that is spent on saving."""


class CheckpointCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Save a checkpoint after an epoch, if that takes at most 2 % of the time since the previous one.

    The last epoch is always saved. A kill costs the current epoch, and at most fifty times the duration
    of a save.
    """

    def __init__(self, save: Callable[[], None], *, clock: Clock = time.perf_counter) -> None:
        super().__init__()
        self._save = save
        self._clock = clock
        self._next = 0.0

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Save, unless the previous checkpoint is too recent."""
        started = self._clock()
        is_last = epoch + 1 >= self.params["epochs"] or self.model.stop_training
        if started < self._next and not is_last:
            return
        self._save()
        ended = self._clock()
        self._next = ended + (ended - started) / _SHARE
