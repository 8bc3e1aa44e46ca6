"""Keras callback that keeps a training within its time budget."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from cifarml.train.callbacks.jax_sync import sync_jax_state
from cifarml.train.time_budget import BudgetScheduler, ScheduleState


class TimeBudgetCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Schedule the learning rate by the clock, and stop the training when its schedule ends.

    The optimizer's variable ``schedule_state`` is the part that checkpoints save; it is updated before the
    ``on_epoch_end`` of later callbacks. The constructor starts the scheduler, or resumes it.
    """

    def __init__(self, scheduler: BudgetScheduler, optimizer: keras.optimizers.Optimizer) -> None:
        super().__init__()
        self._scheduler = scheduler
        saved = ScheduleState(*np.asarray(keras.ops.convert_to_numpy(optimizer.schedule_state)).tolist())
        state = scheduler.begin(saved, int(keras.ops.convert_to_numpy(optimizer.iterations)))
        optimizer.schedule_state.assign(np.asarray(state, np.float32))

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Count the step, and stop if the schedule has ended."""
        if self._scheduler.finish_step():
            self._write(self._scheduler.update())
        self.model.stop_training = self.model.stop_training or self._scheduler.ended

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Exclude validation from the time for steps."""
        self._scheduler.begin_validation()

    def on_test_end(self, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Record the duration of validation."""
        self._scheduler.end_validation()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Update the optimizer's variable."""
        self._write(self._scheduler.update())

    def _write(self, state: ScheduleState) -> None:
        sync_jax_state(self.model)
        self.model.optimizer.schedule_state.assign(np.asarray(state, np.float32))
