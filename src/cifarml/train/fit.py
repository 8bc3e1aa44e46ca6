"""Fit the network of a plan, epoch by epoch."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

import keras

from cifarml.data.dataset import Dataset
from cifarml.progress import OnProgress, Progress, ignore_progress
from cifarml.train.callbacks.checkpointing import CheckpointCallback
from cifarml.train.callbacks.data_pruning import LossTracker
from cifarml.train.callbacks.time_budget import TimeBudgetCallback
from cifarml.train.callbacks.training_monitor import OnEpoch, TrainingMonitor
from cifarml.train.checkpoint import Checkpoint, TrainingState
from cifarml.train.inputs.keras_feed import feed_training, feed_validation
from cifarml.train.interrupts import interrupts_noted
from cifarml.train.network import compile_network
from cifarml.train.plan import Plan
from cifarml.train.precise_batchnorm import recompute_batchnorm_statistics
from cifarml.train.time_budget import BudgetScheduler

_MOST_EPOCHS: Final = 1_000_000
"""Limit on the epochs if a time budget ends the training."""
_VALIDATION_BATCH: Final = 256


class FitResult(NamedTuple):
    """A trained network.

    Attributes:
        network: The trained network, not yet the serving model.
        history: ``loss``, ``accuracy``, ``val_loss`` and ``val_accuracy``, a value per epoch.
        interrupted: Whether Ctrl-C ended the training early.
        training_s: Duration in seconds.
        images_per_second: Training throughput, validation passes included.
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
) -> FitResult:
    """Train the network of a plan.

    Args:
        plan: All settings.
        train: Images to train on.
        validation: Images for a validation pass after every epoch; may be empty.
        checkpoint: Checkpoint to resume from and to save to; if omitted, nothing is saved.
        fingerprint: Fingerprint of the dataset, stored in the checkpoint.
        on_progress: Called several times a second, and with a line after every epoch.
        on_epoch: Called after every epoch, for early stopping; the network is unusable then.

    Raises:
        TrainingError: If training diverges, memory runs out, or the checkpoint can't be used.
        KeyboardInterrupt: If it is interrupted before the first epoch ends.
    """
    keras.utils.set_random_seed(plan.config.seed)
    batches = plan.batches(train)
    started = time.perf_counter()
    scheduler = BudgetScheduler(plan.time, len(batches)) if plan.time else None
    with plan.scope():
        network = compile_network(plan, batches)
        state = checkpoint.load(network, plan, fingerprint) if checkpoint else TrainingState({}, 0.0)
        if state.num_epochs:
            on_progress(Progress("training", 0, None, line=f"resuming after epoch {state.num_epochs}"))
        monitor = TrainingMonitor(
            plan.recipe,
            batches,
            on_progress,
            history=state.history,
            num_steps=int(keras.ops.convert_to_numpy(network.optimizer.iterations)),
            scheduler=scheduler,
            on_epoch=on_epoch,
        )
        started -= state.training_s or (plan.time.measuring_s if plan.time else 0.0)
        callbacks: list[keras.callbacks.Callback] = [monitor]
        num_epochs, batch_size = plan.recipe.num_epochs, max(plan.recipe.batch_size, _VALIDATION_BATCH)
        if scheduler is not None:
            callbacks.insert(0, TimeBudgetCallback(scheduler, network.optimizer))
            num_epochs = state.num_epochs if scheduler.ended else _MOST_EPOCHS
        if batches.pruning.num_pruned:
            callbacks.append(LossTracker(batches, network, state.num_epochs))
        if checkpoint is not None:

            def save() -> None:
                reached = TrainingState(monitor.history, time.perf_counter() - started)
                checkpoint.save(network, plan, fingerprint, reached)

            callbacks.append(CheckpointCallback(save))

        def raise_dropped(batch: int, logs: object = None) -> None:  # noqa: ARG001
            if interrupts:  # Python dropped the KeyboardInterrupt in a finaliser
                raise KeyboardInterrupt

        interrupted = False
        try:
            with interrupts_noted() as interrupts:
                network.fit(
                    **feed_training(batches, state.num_epochs),
                    **feed_validation(validation, batch_size, num_replicas=len(plan.devices)),
                    epochs=num_epochs,
                    initial_epoch=state.num_epochs,
                    callbacks=[*callbacks, keras.callbacks.LambdaCallback(on_train_batch_end=raise_dropped)],
                    verbose=0,
                )
        except KeyboardInterrupt:
            if not monitor.history.get("loss"):
                raise
            interrupted = True
        if not monitor.given_up:
            recompute_batchnorm_statistics(network, train, plan, on_progress)
    seconds = time.perf_counter() - started
    num_images = batches.pruning.num_shown * monitor.num_steps / len(batches)
    return FitResult(network, monitor.history, interrupted, seconds, num_images / seconds)
