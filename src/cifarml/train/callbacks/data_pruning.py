"""Showing a network less often what it knows: the same accuracy from fewer steps.

Z. Qin et al., "InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning", ICLR 2024: of the
images with a low loss some are left out by chance, and those that stay weigh the more, so that the mean
step is the same. Here each epoch leaves out as many images as any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from cifarml.train.callbacks.jax_sync import fetch_variables
from cifarml.train.inputs.batches import Batches

__all__ = ["LossesKept", "WeighedCrossentropy"]


class WeighedCrossentropy(keras.losses.CategoricalCrossentropy):  # type: ignore[misc]
    """Cross-entropy of targets that add up to the weight of their image; it keeps the losses of a batch.

    Args:
        batch_size: So many losses are kept.
        **settings: Those of Keras' own.

    Attributes:
        last: The losses of the last batch, without their weights, float32 of shape (batch_size,). A network
            that is trained with it must hold this metric, so that Keras knows of its state.
    """

    def __init__(self, batch_size: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.last = _Last(batch_size)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each image; see :class:`keras.losses.Loss`."""
        weights = ops.sum(y_true, axis=-1)
        losses = super().call(y_true / weights[:, None], y_pred)
        self.last.update_state(ops.stop_gradient(losses))
        return losses * weights


class _Last(keras.metrics.Metric):  # type: ignore[misc]
    """Holds the last values, and has no result of its own."""

    def __init__(self, size: int) -> None:
        super().__init__(name="last", dtype="float32")
        self.values = self.add_variable((size,), "zeros", name="values")

    def update_state(self, values: Any) -> None:
        """Take the values of a batch; more than it holds are left out, and fewer are followed by 0."""
        size = self.values.shape[0]
        self.values.assign(ops.concatenate([ops.cast(values, "float32"), ops.zeros((size,))])[:size])

    def result(self) -> dict[str, Any]:
        """Return nothing, so that it is no figure of an epoch."""
        return {}


class LossesKept(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells the batches what the loss of each image was when it was seen last.

    All that must outlive a crash lies in the optimiser's variable ``known``: the losses as they were after
    the last two epochs, float32 of shape (2, N), 0 for an image that was not seen yet.

    Args:
        batches: Those that the network is trained on.
        network: The network, compiled, with first weights or those of a checkpoint.
        num_epochs: How many were made before.
    """

    def __init__(self, batches: Batches, network: keras.Model, num_epochs: int) -> None:
        super().__init__()
        self._batches = batches
        self._known = network.optimizer.known
        self._epoch = num_epochs
        kept: npt.NDArray[np.float32] = ops.convert_to_numpy(self._known)
        for epoch, losses in enumerate(kept, num_epochs - len(kept)):
            batches.learn(epoch, losses)
        self._now = kept[-1].copy()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Note which epoch begins."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Keep the losses of the batch."""
        fetch_variables(self.model)
        shown = self._batches.shown(self._epoch, batch)
        self._now[shown] = ops.convert_to_numpy(self.model.last_losses.values)[: len(shown)]

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Hand them on, and bring the variable up to date."""
        before = ops.convert_to_numpy(self._known)[-1]
        fetch_variables(self.model)
        self._known.assign(np.stack([before, self._now]))
        self._batches.learn(epoch, self._now.copy())
