"""Keras callback that ends training on Ctrl-C."""

from __future__ import annotations

from collections.abc import Sequence

import keras


class InterruptCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Raise the KeyboardInterrupt that Python has dropped in a finaliser, one step later.

    Args:
        interrupts: From :func:`~cifarml.train.interrupts.interrupts_noted`; fills when Ctrl-C is pressed.
    """

    def __init__(self, interrupts: Sequence[object]) -> None:
        super().__init__()
        self._interrupts = interrupts

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        """Raise it, if there was one."""
        if self._interrupts:
            raise KeyboardInterrupt
