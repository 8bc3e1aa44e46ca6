"""Training a network as planned, epoch by epoch; what becomes of it is the caller's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import keras

from cifarml.data.dataset import Dataset
from cifarml.progress import OnProgress, Progress, ignore_progress
from cifarml.train.callbacks.data_pruning import LossesKept
from cifarml.train.callbacks.time_budget import KeepTime
from cifarml.train.callbacks.training_monitor import OnEpoch, Watcher
from cifarml.train.checkpoint import Checkpoint, EpochsKept, Reached
from cifarml.train.distribution import on_devices
from cifarml.train.inputs.batches import Batches
from cifarml.train.inputs.keras_feed import feed_training, feed_validation
from cifarml.train.interrupts import interrupts_noted
from cifarml.train.network import compile_network
from cifarml.train.out_of_memory import explained_memory
from cifarml.train.plan import Plan
from cifarml.train.precise_batchnorm import estimate_population
from cifarml.train.time_budget import Pacer

__all__ = ["Fitted", "OnEpoch", "fit_network"]

_MOST_EPOCHS: Final = 1_000_000
"""Where time decides."""


class Fitted(NamedTuple):
    """A network that was trained.

    Attributes:
        network: As it is trained, not as it is served.
        history: The figures of each epoch by name: loss, accuracy, val_loss, val_accuracy.
        interrupted: Whether Ctrl-C ended it early.
        training_s: How long it took, in seconds.
        images_per_second: Training images in a second, the looks at validation images included.
    """

    network: keras.Model
    history: dict[str, list[float]]
    interrupted: bool
    training_s: float
    images_per_second: float


def fit_network(
    plan: Plan,
    train: Dataset,
    validation: Dataset,
    *,
    checkpoint: Checkpoint | None = None,
    fingerprint: str = "",
    on_progress: OnProgress = ignore_progress,
    on_epoch: OnEpoch | None = None,
) -> Fitted:
    """Train a network as planned.

    Args:
        plan: What to do.
        train: Images to train on.
        validation: Images to watch the training with; may be empty.
        checkpoint: Where to go on from, and to keep what is reached; nothing is kept without one.
        fingerprint: Of the data set, for the checkpoint.
        on_progress: Called several times a second, and with a line after every epoch.
        on_epoch: Called after every epoch; may end the training, whose network is good for nothing then.

    Raises:
        TrainingError: If it diverges, memory runs out, or the checkpoint can't be used.
        KeyboardInterrupt: If it is interrupted before the first epoch ends.
    """
    keras.utils.set_random_seed(plan.config.seed)
    batches = Batches(train, plan.recipe, seed=plan.config.seed, num_replicas=len(plan.devices))
    started = time.perf_counter()
    pacer = Pacer(plan.time, len(batches)) if plan.time else None
    with explained_memory(plan.recipe.batch_size, plan.devices), on_devices(plan.devices):
        network = compile_network(plan, train, len(batches))
        before = checkpoint.load(network, plan, fingerprint) if checkpoint else Reached({}, 0.0)
        if before.num_epochs:
            on_progress(Progress("training", 0, None, line=f"going on after epoch {before.num_epochs}"))
        watcher = Watcher(
            plan.recipe,
            len(batches),
            len(train) - batches.num_pruned,
            on_progress,
            history=before.history,
            num_steps=int(keras.ops.convert_to_numpy(network.optimizer.iterations)),
            pacer=pacer,
            on_epoch=on_epoch,
        )
        started -= before.training_s or (plan.time.measuring_s if plan.time else 0.0)
        callbacks: list[keras.callbacks.Callback] = [watcher]
        if batches.num_pruned:
            callbacks.append(LossesKept(batches, network, before.num_epochs))
        if checkpoint is not None:

            def save() -> None:
                reached = Reached(watcher.history, time.perf_counter() - started)
                checkpoint.save(network, plan, fingerprint, reached)

            callbacks.append(EpochsKept(save))
        _fit(network, plan, batches, validation, watcher, callbacks, pacer)
        if not watcher.given_up:
            estimate_population(network, train, plan, on_progress)
    seconds = time.perf_counter() - started
    num_images = (len(train) - batches.num_pruned) * watcher.num_steps / len(batches)
    return Fitted(network, watcher.history, watcher.interrupted, seconds, num_images / seconds)


def _fit(
    network: keras.Model,
    plan: Plan,
    batches: Batches,
    validation: Dataset,
    watcher: Watcher,
    callbacks: list[keras.callbacks.Callback],
    pacer: Pacer | None,
) -> None:
    num_epochs, reached = plan.recipe.num_epochs, len(watcher.history.get("loss", ()))
    if pacer is not None:
        callbacks.insert(0, KeepTime(pacer, network.optimizer))
        num_epochs = reached if pacer.ended else _MOST_EPOCHS
    batch_size = max(plan.recipe.batch_size, 256)
    try:
        with interrupts_noted() as noted:
            network.fit(
                **feed_training(batches, reached),
                **feed_validation(validation, batch_size, num_replicas=len(plan.devices)),
                epochs=num_epochs,
                initial_epoch=reached,
                callbacks=[*callbacks, _Interruptible(noted)],
                verbose=0,
            )
    except KeyboardInterrupt:
        if not watcher.history.get("loss"):
            raise
        watcher.interrupted = True


class _Interruptible(keras.callbacks.Callback):  # type: ignore[misc]
    """Raises the KeyboardInterrupt that Python has dropped in a finaliser, one step later."""

    def __init__(self, noted: Sequence[object]) -> None:
        super().__init__()
        self._noted = noted

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        if self._noted:
            raise KeyboardInterrupt
