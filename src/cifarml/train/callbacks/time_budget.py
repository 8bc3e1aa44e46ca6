"""Keeps a Keras training to its time budget."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from cifarml.train.callbacks.jax_sync import fetch_variables
from cifarml.train.time_budget import Pace, Pacer

__all__ = ["KeepTime"]


class KeepTime(keras.callbacks.Callback):  # type: ignore[misc]
    """Sets the pace of the optimiser by the clock, and stops the training where its schedule ends.

    All that must outlive a crash lies in the optimiser's variable ``pace``; it is up to date before the
    callbacks that come after this one are told that an epoch ends.

    Args:
        pacer: Does the arithmetic; it begins here, or goes on where a checkpoint was.
        optimizer: Holds the pace.
    """

    def __init__(self, pacer: Pacer, optimizer: keras.optimizers.Optimizer) -> None:
        super().__init__()
        self._pacer = pacer
        self._pacer.begin(_saved(optimizer), int(keras.ops.convert_to_numpy(optimizer.iterations)))
        optimizer.pace.assign(np.asarray(pacer.pace, np.float32))

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Count the step."""
        if self._pacer.finish_step():
            self._write(self._pacer.update())
        self.model.stop_training = self.model.stop_training or self._pacer.ended

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Leave validation out of the time for steps."""
        self._pacer.start_look()

    def on_test_end(self, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Note how long validation took."""
        self._pacer.finish_look()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Bring the variable up to date."""
        self._write(self._pacer.update())

    def _write(self, pace: Pace) -> None:
        fetch_variables(self.model)
        self.model.optimizer.pace.assign(np.asarray(pace, np.float32))


def _saved(optimizer: keras.optimizers.Optimizer) -> Pace:
    return Pace(*np.asarray(keras.ops.convert_to_numpy(optimizer.pace)).tolist())
