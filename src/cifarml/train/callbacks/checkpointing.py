"""Keras callback that saves checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

import keras

from cifarml.train.time_budget import Clock

_SHARE: Final = 0.02
"""Checkpoints take at most this share of the time."""


class CheckpointCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Save a checkpoint after the last epoch, and after every other one unless that takes too long.

    One is omitted if saving would take more than 2 % of the time since the last one was saved. So a kill
    costs the epoch that it falls in, and at most fifty times as long as saving takes.
    """

    def __init__(self, save: Callable[[], None], *, clock: Clock = time.perf_counter) -> None:
        super().__init__()
        self._save = save
        self._clock = clock
        self._next = 0.0

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Save, unless it is too early."""
        started = self._clock()
        is_last = epoch + 1 >= self.params["epochs"] or self.model.stop_training
        if started < self._next and not is_last:
            return
        self._save()
        ended = self._clock()
        self._next = ended + (ended - started) / _SHARE
