"""Keras callback that records history, reports progress and detects divergence."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import keras

from cifarml.errors import TrainingError
from cifarml.model.recipe import Recipe
from cifarml.progress import OnProgress, Progress
from cifarml.train.inputs.batches import Batches
from cifarml.train.time_budget import BudgetScheduler

OnEpoch = Callable[[int, Mapping[str, float]], bool]
"""Called after each epoch, counted from 1, with metrics such as val_accuracy; True stops training early."""

_REPORT_EVERY_S: Final = 0.1
_DIVERGED_LOSS: Final = 1e4
"""A loss this high, or NaN, is divergence; one fully confident mistake costs only 16 nats (Keras clips
probabilities at 1e-7)."""


class TrainingMonitor(keras.callbacks.Callback):  # type: ignore[misc]
    """Record the history, report progress, and stop a training that diverges.

    Progress is reported several times a second, and with a line after every epoch. ``history`` and
    ``num_steps`` are those of earlier epochs; the scheduler of a time budget forecasts the number of epochs.

    Attributes:
        num_steps: Steps so far.
        history: ``loss``, ``accuracy`` and perhaps ``val_loss`` and ``val_accuracy``, a value per epoch.
        given_up: Whether ``on_epoch`` stopped training early.
    """

    def __init__(
        self,
        recipe: Recipe,
        batches: Batches,
        on_progress: OnProgress,
        history: Mapping[str, list[float]],
        num_steps: int = 0,
        scheduler: BudgetScheduler | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        super().__init__()
        self.history = {name: list(values) for name, values in history.items()}
        self.given_up = False
        self.num_steps = self._steps_before_epoch = num_steps
        self._recipe = recipe
        self._scheduler = scheduler
        self._on_epoch = on_epoch
        self._steps_an_epoch = len(batches)
        self._num_images = batches.pruning.num_shown
        self._on_progress = on_progress
        self._epoch = 0
        self._reported = self._epoch_started = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Store the number and start time of the epoch."""
        self._epoch, self._steps_before_epoch = epoch, self.num_steps
        self._epoch_started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Check the loss and report progress, at most ten times a second."""
        self.num_steps += 1
        now = time.perf_counter()
        if now - self._reported < _REPORT_EVERY_S:
            return
        self._reported = now
        self._check_finite(logs)
        self._report(self._count_images(batch + 1), detail=self._describe(logs))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Record the metrics of the epoch, and report them in a line."""
        self._check_finite(logs)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        images = self._count_images(self.num_steps - self._steps_before_epoch)
        speed = images / (time.perf_counter() - self._epoch_started)
        detail = self._describe(logs)
        curves = {name: tuple(values) for name, values in self.history.items()}
        self._report(images, detail=detail, line=f"{detail}  {speed:,.0f} images/s", history=curves)
        if self._on_epoch is not None and self._on_epoch(epoch + 1, logs or {}):
            self.model.stop_training = self.given_up = True

    @property
    def _num_epochs(self) -> float:
        return self._scheduler.num_epochs if self._scheduler else self._recipe.num_epochs

    def _count_images(self, num_steps: int) -> int:
        return self._num_images * num_steps // self._steps_an_epoch

    def _describe(self, logs: Mapping[str, float] | None) -> str:
        logs = logs or {}
        of = f"{self._num_epochs:.1f}" if self._scheduler else f"{self._num_epochs:.0f}"
        text = f"epoch {self._epoch + 1:>{len(of.partition('.')[0])}}/{of}"
        text += f"  loss {logs['loss']:.3f}  accuracy {logs['accuracy']:.1%}"
        return text + (f"  validation {logs['val_accuracy']:.1%}" if "val_accuracy" in logs else "")

    def _report(self, images_of_epoch: int, **details: Any) -> None:
        done = self._epoch * self._num_images + images_of_epoch
        total = max(done, round(self._num_epochs * self._num_images))
        self._on_progress(Progress("training", done, total, **details))

    def _check_finite(self, logs: Mapping[str, float] | None) -> None:
        figures = logs or {}
        loss = figures.get("loss", math.nan)
        if loss < _DIVERGED_LOSS and math.isfinite(figures.get("val_loss", 0.0)):
            return
        if loss < _DIVERGED_LOSS:
            loss = figures["val_loss"]
        raise TrainingError(
            f"training diverged in epoch {self._epoch + 1} (step {self.num_steps:,}): the loss is {loss:.4g}",
            hint=f"try a lower learning rate: --learning-rate {self._recipe.learning_rate / 10:.0e}",
        )
