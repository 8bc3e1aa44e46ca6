"""The trainer: from a data set to a finished run folder."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import keras
import numpy as np

from cifarml.bundle import KERAS_MODEL, ONNX_MODEL, Bundle, write_json, write_manifest
from cifarml.data.dataset import Dataset, DatasetSplits
from cifarml.errors import DataError, TrainingError
from cifarml.metrics import calibration_error, evaluate_probabilities
from cifarml.model import Preset, Recipe
from cifarml.progress import OnProgress, Progress, ignore_progress
from cifarml.runs import CONFIG, HISTORY, METRICS
from cifarml.train.batches import Batches, one_hot
from cifarml.train.calibrate import fit_temperature
from cifarml.train.config import TrainConfig
from cifarml.train.device import describe_environment
from cifarml.train.export import export_onnx
from cifarml.train.grids import prediction_grid
from cifarml.train.optimizer import build_optimizer
from cifarml.train.plan import Plan
from cifarml.train.report import confusion_matrix, learning_curves, save_figure

__all__ = ["train_model"]

_TELL_EVERY_S: Final = 0.1
_DIVERGED_LOSS: Final = 1e4
"""A certain mistake costs 16 nats (Keras cuts probabilities at 1e-7); this much, or NaN, is no learning."""
_COMPARED: Final = 256
"""On so many pictures the exported model is compared with the trained one."""


def train_model(
    config: TrainConfig,
    dataset: Dataset,
    run_dir: str | Path,
    *,
    on_progress: OnProgress = ignore_progress,
) -> Bundle:
    """Train a network and write everything about it into a new folder.

    The pictures to train on are split once more into train and validation; the curves show both. The
    test pictures are looked at once, at the end, by the exported model. Ctrl-C (KeyboardInterrupt)
    ends the training after at least one epoch with what was reached.

    The folder holds config.json, dataset.json, environment.json, history.json, metrics.json,
    model.keras, model.onnx, pictures of the learning curves, the confusion matrix and predictions, and
    at last manifest.json. A folder without manifest.json is unfinished.

    Args:
        config: What to do.
        dataset: Pictures to train on and to test with.
        run_dir: The folder to make; it must not exist.
        on_progress: Called several times a second, and with a line after every epoch.

    Returns:
        The finished bundle in ``run_dir``.

    Raises:
        DataError: If there are no pictures to train on or to test with.
        TrainingError: If the folder exists or can't be written, or the training diverges.
        KeyboardInterrupt: If it is interrupted before the first epoch ends.
    """
    run_dir = Path(run_dir)
    if not dataset.is_test.any():
        raise DataError(f"{dataset.origin} has no test pictures")
    splits = dataset.split(validation_fraction=config.validation_fraction, seed=config.seed)
    try:
        run_dir.mkdir(parents=True)
        plan = Plan.make(config, splits.train)
        write_json(run_dir / CONFIG, plan.to_json())
        write_json(run_dir / "dataset.json", _describe_dataset(dataset, splits))
        write_json(run_dir / "environment.json", describe_environment())
        return _train(plan, dataset, splits, run_dir, on_progress)
    except FileExistsError as error:
        raise TrainingError(f"{run_dir} already exists", hint="choose another name for the run") from error
    except OSError as error:
        raise TrainingError(f"can't write the run folder {run_dir}: {error.strerror or error}") from error


def _train(
    plan: Plan, dataset: Dataset, splits: DatasetSplits, run_dir: Path, on_progress: OnProgress
) -> Bundle:
    config = plan.config
    keras.utils.set_random_seed(config.seed)
    on_progress(Progress("training", 0, None, line=plan.say(len(splits.train))))
    batches = Batches(splits.train, plan.recipe, seed=config.seed)
    network = _compiled(plan, splits.train, len(batches))
    watcher = _Watcher(plan.recipe, batches, len(splits.train), on_progress)
    started = time.perf_counter()
    _fit(network, plan.recipe, batches, splits.validation, watcher)
    seconds = time.perf_counter() - started

    def saving(step: int) -> None:
        on_progress(Progress("writing the run", step, 4, unit="steps"))

    saving(0)
    write_json(run_dir / HISTORY, watcher.history)
    model, temperature = _served(plan.preset, network, splits.validation)
    model.save(run_dir / KERAS_MODEL)
    saving(1)
    exported = export_onnx(model, run_dir / ONNX_MODEL, dataset.class_names, splits.test.images[:_COMPARED])
    saving(2)
    # The test pictures are looked at here and nowhere else, with the model that is going to be served.
    probabilities = exported.predictor.predict_images(splits.test.images)
    evaluation = evaluate_probabilities(probabilities, splits.test.labels, dataset.class_names)
    write_json(run_dir / METRICS, {"test": evaluation.to_json()})
    saving(3)
    figures = {
        "learning_curves.png": learning_curves(watcher.history),
        "confusion_matrix.png": confusion_matrix(evaluation),
        "predictions.png": prediction_grid(splits.test, probabilities, seed=config.seed),
    }
    for name, figure in figures.items():
        save_figure(run_dir / name, figure)
    num_epochs = len(watcher.history["loss"])
    bundle = write_manifest(
        run_dir,
        dataset.class_names,
        {
            "run": run_dir.name,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "preset": config.preset,
            "num_epochs": num_epochs,
            "interrupted": watcher.interrupted,
            "dataset": dataset.origin,
            "dataset_fingerprint": dataset.fingerprint,
            "num_parameters": model.count_params(),
            "training_s": round(seconds, 3),
            "images_per_second": round(len(splits.train) * num_epochs / seconds, 1),
            "test_accuracy": evaluation.accuracy,
            "test_loss": evaluation.loss,
            "test_calibration_error": calibration_error(probabilities, splits.test.labels),
            "temperature": temperature,
            "num_test_images": evaluation.num_images,
            "onnx_difference": exported.difference,
        },
    )
    saving(4)
    return bundle


def _served(preset: Preset, network: keras.Model, validation: Dataset) -> tuple[keras.Model, float]:
    """Return the model to serve, as confident as it is right, and the temperature that does so."""
    model = preset.to_serve(network)
    if not preset.gives_logits or not len(validation):
        return model, 1.0
    blocks = np.array_split(validation.images, -(-len(validation) // _COMPARED))
    probabilities = np.concatenate([np.asarray(model(block, training=False)) for block in blocks])
    temperature = fit_temperature(probabilities, validation.labels)
    return preset.to_serve(network, temperature=temperature), temperature


def _compiled(plan: Plan, pictures: Dataset, steps_an_epoch: int) -> keras.Model:
    network = plan.preset.build(
        len(pictures.class_names), plan.recipe, images=pictures.images, precision=plan.precision
    )
    network.compile(
        optimizer=build_optimizer(plan.recipe, steps_an_epoch),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=plan.preset.gives_logits, label_smoothing=plan.recipe.label_smoothing
        ),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=keras.config.backend() == "jax",  # XLA is slower on a CPU, but JAX has nothing else
    )
    return network


def _fit(
    network: keras.Model, recipe: Recipe, batches: Batches, validation: Dataset, watcher: _Watcher
) -> None:
    watched = (validation.images, one_hot(validation.labels, len(validation.class_names)))
    try:
        network.fit(
            batches,
            epochs=recipe.num_epochs,
            validation_data=watched if len(validation) else None,
            validation_batch_size=max(recipe.batch_size, 256),
            callbacks=[watcher],
            shuffle=False,  # the batches are shuffled already
            verbose=0,
        )
    except KeyboardInterrupt:
        if not watcher.history.get("loss"):
            raise
        watcher.interrupted = True


class _Watcher(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the history, tells the progress, and stops a training that diverges."""

    def __init__(self, recipe: Recipe, batches: Batches, num_images: int, on_progress: OnProgress) -> None:
        super().__init__()
        self.history: dict[str, list[float]] = {}
        self.interrupted = False
        self._num_epochs = recipe.num_epochs
        self._rate = recipe.learning_rate
        self._batches = batches
        self._num_images = num_images
        self._on_progress = on_progress
        self._epoch = 0
        self._told = self._epoch_started = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        self._epoch = epoch
        self._batches.start_epoch(epoch)
        self._epoch_started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        now = time.perf_counter()
        if now - self._told < _TELL_EVERY_S:
            return
        self._told = now
        self._check_finite(logs)
        self._tell(self._num_images * (batch + 1) // len(self._batches), self._figures(logs))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        self._check_finite(logs)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        speed = self._num_images / (time.perf_counter() - self._epoch_started)
        figures = self._figures(logs)
        self._tell(self._num_images, figures, line=f"{figures}  {speed:,.0f} pictures/s")

    def _figures(self, logs: Mapping[str, float] | None) -> str:
        logs = logs or {}
        text = f"epoch {self._epoch + 1:>{len(str(self._num_epochs))}}/{self._num_epochs}"
        text += f"  loss {logs['loss']:.3f}  accuracy {logs['accuracy']:.1%}"
        return text + (f"  validation {logs['val_accuracy']:.1%}" if "val_accuracy" in logs else "")

    def _tell(self, images_of_epoch: int, detail: str, line: str = "") -> None:
        done = self._epoch * self._num_images + images_of_epoch
        total = self._num_epochs * self._num_images
        self._on_progress(Progress("training", done, total, detail=detail, line=line))

    def _check_finite(self, logs: Mapping[str, float] | None) -> None:
        loss = (logs or {}).get("loss", math.nan)
        if not loss < _DIVERGED_LOSS:
            raise TrainingError(
                f"the training diverged in epoch {self._epoch + 1}: the loss is {loss:.4g}",
                hint=f"try a smaller step: --learning-rate {self._rate / 10:.0e}",
            )


def _describe_dataset(dataset: Dataset, splits: DatasetSplits) -> dict[str, object]:
    return {
        "origin": dataset.origin,
        "fingerprint": dataset.fingerprint,
        "class_names": dataset.class_names,
        "num_train": len(splits.train),
        "num_validation": len(splits.validation),
        "num_test": len(splits.test),
        "skipped": [picture._asdict() for picture in dataset.skipped],
    }
