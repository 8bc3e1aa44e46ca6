"""What looks on while a network is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import keras

from cifarml.errors import TrainingError
from cifarml.model.recipe import Recipe
from cifarml.progress import OnProgress, Progress
from cifarml.train.time_budget import Pacer

__all__ = ["OnEpoch", "Watcher"]

OnEpoch = Callable[[int, Mapping[str, float]], bool]
"""Called after an epoch, counted from 1, with its figures such as val_accuracy; True ends the training."""

_TELL_EVERY_S: Final = 0.1
_DIVERGED_LOSS: Final = 1e4
"""A certain mistake costs 16 nats (Keras cuts probabilities at 1e-7); this much, or NaN, is no learning."""


class Watcher(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the history, tells the progress, and stops a training that diverges.

    Args:
        recipe: Epochs and learning rate.
        steps_an_epoch: Batches in a pass over the images.
        num_images: How many there are.
        on_progress: Called several times a second, and with a line after every epoch.
        history: The figures of each epoch before; those of the following ones are added to a copy.
        num_steps: Steps before.
        pacer: Tells how many epochs it is going to be, where time decides.
        on_epoch: Called after every epoch; may end the training.

    Attributes:
        num_steps: Steps up to now.
        history: ``loss``, ``accuracy`` and perhaps ``val_loss`` and ``val_accuracy``, a value an epoch.
        interrupted: Whether Ctrl-C ended the training; set by whoever catches it.
        given_up: Whether ``on_epoch`` ended it.
    """

    def __init__(
        self,
        recipe: Recipe,
        steps_an_epoch: int,
        num_images: int,
        on_progress: OnProgress,
        history: Mapping[str, list[float]],
        num_steps: int = 0,
        pacer: Pacer | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        super().__init__()
        self.history = {name: list(values) for name, values in history.items()}
        self.interrupted = self.given_up = False
        self.num_steps = self._steps_before_epoch = num_steps
        self._recipe = recipe
        self._pacer = pacer
        self._on_epoch = on_epoch
        self._steps_an_epoch = steps_an_epoch
        self._num_images = num_images
        self._on_progress = on_progress
        self._epoch = 0
        self._told = self._epoch_started = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Note which epoch begins."""
        self._epoch, self._steps_before_epoch = epoch, self.num_steps
        self._epoch_started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Look at the loss and tell how far it is, ten times a second."""
        self.num_steps += 1
        now = time.perf_counter()
        if now - self._told < _TELL_EVERY_S:
            return
        self._told = now
        self._check_finite(logs)
        self._tell(self._images(batch + 1), self._figures(logs))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Keep the figures of the epoch, and tell them in a line."""
        self._check_finite(logs)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        images = self._images(self.num_steps - self._steps_before_epoch)
        speed = images / (time.perf_counter() - self._epoch_started)
        figures = self._figures(logs)
        curves = {name: tuple(values) for name, values in self.history.items()}
        self._tell(images, figures, line=f"{figures}  {speed:,.0f} images/s", history=curves)
        if self._on_epoch is not None and self._on_epoch(epoch + 1, logs or {}):
            self.model.stop_training = self.given_up = True

    @property
    def _num_epochs(self) -> float:
        return self._pacer.num_epochs if self._pacer else self._recipe.num_epochs

    def _images(self, num_steps: int) -> int:
        return self._num_images * num_steps // self._steps_an_epoch

    def _figures(self, logs: Mapping[str, float] | None) -> str:
        logs = logs or {}
        of = f"{self._num_epochs:.1f}" if self._pacer else f"{self._num_epochs:.0f}"
        text = f"epoch {self._epoch + 1:>{len(of.partition('.')[0])}}/{of}"
        text += f"  loss {logs['loss']:.3f}  accuracy {logs['accuracy']:.1%}"
        return text + (f"  validation {logs['val_accuracy']:.1%}" if "val_accuracy" in logs else "")

    def _tell(
        self,
        images_of_epoch: int,
        detail: str,
        line: str = "",
        history: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        done = self._epoch * self._num_images + images_of_epoch
        total = max(done, round(self._num_epochs * self._num_images))
        self._on_progress(Progress("training", done, total, detail=detail, line=line, history=history))

    def _check_finite(self, logs: Mapping[str, float] | None) -> None:
        figures = logs or {}
        loss = figures.get("loss", math.nan)
        if loss < _DIVERGED_LOSS and math.isfinite(figures.get("val_loss", 0.0)):
            return
        if loss < _DIVERGED_LOSS:
            loss = figures["val_loss"]
        raise TrainingError(
            f"the training diverged in epoch {self._epoch + 1}, by step {self.num_steps:,}: "
            f"the loss is {loss:.4g}",
            hint=f"train anew with a smaller step: --learning-rate {self._recipe.learning_rate / 10:.0e}",
        )
