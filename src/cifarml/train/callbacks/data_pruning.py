"""Loss and Keras callback of data pruning (InfoBatch).

:class:`~cifarml.train.inputs.batches.DataPruning` chooses the images by the losses that are tracked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from cifarml.train.callbacks.jax_sync import sync_jax_state
from cifarml.train.inputs.batches import Batches


class WeightedCrossentropy(keras.losses.CategoricalCrossentropy):  # type: ignore[misc]
    """Weighted categorical cross-entropy that stores the losses of the last batch.

    The targets of an image sum to its weight.

    Attributes:
        last: The unweighted losses of the last batch. The network must have this metric as an attribute,
            so that Keras tracks its state.
    """

    def __init__(self, batch_size: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.last = LastBatchLosses(batch_size)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each image; see :class:`keras.losses.Loss`."""
        weights = ops.sum(y_true, axis=-1)
        losses = super().call(y_true / weights[:, None], y_pred)
        self.last.update_state(ops.stop_gradient(losses))
        return losses * weights


class LastBatchLosses(keras.metrics.Metric):  # type: ignore[misc]
    """Metric without a result that stores the losses of the last batch, float32 of shape (batch_size,)."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(name="last_batch_losses", dtype="float32")
        self.values = self.add_variable((batch_size,), "zeros", name="values")

    def update_state(self, values: Any) -> None:
        """Store the values of a batch, truncated or padded with 0."""
        size = self.values.shape[0]
        self.values.assign(ops.concatenate([ops.cast(values, "float32"), ops.zeros((size,))])[:size])

    def result(self) -> dict[str, Any]:
        """Return nothing, so that the metric does not appear in the logs."""
        return {}


class LossTracker(keras.callbacks.Callback):  # type: ignore[misc]
    """Keras callback that tracks the last loss of each image, for data pruning.

    The optimizer's variable ``example_losses`` is the part that checkpoints save: the losses after each of
    the last two epochs, float32 of shape (2, N), 0 for images not seen yet.
    The network must be compiled, with initial weights or those of a checkpoint after ``num_epochs``.
    """

    def __init__(self, batches: Batches, network: keras.Model, num_epochs: int) -> None:
        super().__init__()
        self._batches = batches
        self._example_losses = network.optimizer.example_losses
        self._epoch = num_epochs
        saved: npt.NDArray[np.float32] = ops.convert_to_numpy(self._example_losses)
        for epoch, losses in enumerate(saved, num_epochs - len(saved)):
            batches.record_losses(epoch, losses)
        self._losses = saved[-1].copy()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Store the number of the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Store the losses of the batch."""
        sync_jax_state(self.model)
        shown = self._batches.shown(self._epoch, batch)
        self._losses[shown] = ops.convert_to_numpy(self.model.last_losses.values)[: len(shown)]

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Update the variable, and pass the losses to the batches."""
        before = ops.convert_to_numpy(self._example_losses)[-1]
        sync_jax_state(self.model)
        self._example_losses.assign(np.stack([before, self._losses]))
        self._batches.record_losses(epoch, self._losses.copy())
