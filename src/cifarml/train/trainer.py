"""Train a model on a dataset, and write its run folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import keras

from cifarml.data.dataset import Dataset, DatasetSplits
from cifarml.errors import DataError, TrainingError
from cifarml.evaluation.calibration import fit_temperature
from cifarml.evaluation.compare_runs import Answers
from cifarml.evaluation.metrics import evaluate_probabilities, measure_reliability
from cifarml.hardware.devices import describe_environment
from cifarml.model.keras_defaults import keras_defaults
from cifarml.model.presets import Preset
from cifarml.paths import expand_home
from cifarml.progress import OnProgress, Progress, ignore_progress
from cifarml.report.html_report import write_report
from cifarml.report.image_grids import prediction_grid
from cifarml.report.plots import confusion_matrix, learning_curves, save_figure
from cifarml.run import KERAS_MODEL, MANIFEST, ONNX_MODEL, Run, finish_manifest, write_json, write_manifest
from cifarml.run_folders import (
    ANSWERS,
    CHECKPOINT,
    CONFIG,
    ENVIRONMENT,
    HISTORY,
    METRICS,
    check_unfinished,
    check_version,
    resume_command,
)
from cifarml.train.checkpoint import Checkpoint, explain_resource_errors
from cifarml.train.config import TrainConfig
from cifarml.train.data_source import Source
from cifarml.train.export import export_onnx
from cifarml.train.fit import fit_network
from cifarml.train.network import predict_in_blocks
from cifarml.train.plan import Plan
from cifarml.train.run_facts import describe_dataset, describe_training
from cifarml.train.speed_probe import autotune

_DATASET: Final = "dataset.json"
_COMPARED: Final = 256
"""Number of images on which the exported model is compared with the trained one."""


@keras_defaults()
def train_model(
    config: TrainConfig,
    dataset: Dataset,
    run_dir: str | Path,
    *,
    source: Source | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Run:
    """Train a network, and write its run folder.

    The training images are split into train and validation images; the learning curves show both. The
    exported model is evaluated on the test images once, at the end. Ctrl-C (KeyboardInterrupt) after the
    first epoch stops training and finishes the run with the current weights.

    The folder contains config.json, dataset.json, environment.json, history.json, metrics.json, answers.json,
    model.keras, model.onnx, plots of the learning curves, the confusion matrix and predictions, the page
    report.html, and finally manifest.json. A folder without manifest.json is unfinished: it contains a
    checkpoint, from which `resume_training` continues.

    Args:
        config: The settings.
        dataset: Images for training and for the test.
        run_dir: The run folder to create; it must not exist.
        source: Source of the images, stored in the folder, so that `cifarml train --resume` and
            `cifarml models register --compare` can load them again.
        on_progress: Called several times a second, and with a line after every epoch.

    Returns:
        The finished run in `run_dir`.

    Raises:
        DataError: If there are no training images or no test images.
        SettingsError: If a device does not exist.
        TrainingError: If the folder exists or can't be written, memory runs out, training diverges, or the
            time budget is too short.
        KeyboardInterrupt: If training is interrupted before the first epoch ends.

    Example:
        ```python
        dataset = cifarml.load_dataset("drawn:2000")
        run = cifarml.train_model(cifarml.TrainConfig(num_epochs=5), dataset, "runs/first")
        print(run.info["test_accuracy"])
        ```
    """
    run_dir = expand_home(run_dir)
    splits = _split(config, dataset)
    if run_dir.exists():
        raise _exists(run_dir)
    plan = Plan.make(config, splits.train)
    if config.time_budget_s is not None:
        on_progress(Progress("measuring speed", 0, None, unit="steps"))
    plan = autotune(plan, splits)
    documents = {
        _DATASET: describe_dataset(dataset, splits),
        ENVIRONMENT: describe_environment(),
        CONFIG: plan.to_json(),
    }
    with explain_resource_errors(run_dir):
        _begin(run_dir, documents, source)
        with Checkpoint(run_dir) as checkpoint:
            return _train(plan, dataset, splits, checkpoint, on_progress)


@keras_defaults()
def resume_training(
    run: Run | str | Path,
    dataset: Dataset,
    *,
    precision: str | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Run:
    """Resume an unfinished training run from its last checkpoint, and finish it.

    The results equal those of an uninterrupted training to the last digit, if the backend is deterministic,
    as TensorFlow is on a CPU. Without a checkpoint, training starts from the beginning; if all epochs have
    ended, only the run folder is finished.

    Args:
        run: The unfinished run, or its folder.
        dataset: The images that the run was started with.
        precision: Precision for the rest of the training; by default, and for "auto", that of the run.
        on_progress: As for `train_model`.

    Returns:
        The finished run.

    Raises:
        SettingsError: If there is no such precision.
        TrainingError: If the run is finished or being trained, was started with other images or other
            versions of Keras and its backend, or its checkpoint is damaged; the run is unchanged then. Also
            as for `train_model`.
        KeyboardInterrupt: As for `train_model`.

    Example:
        ```python
        dataset = cifarml.load_dataset("drawn:2000")
        run = cifarml.resume_training("runs/first", dataset)
        ```
    """
    run_dir = run.path if isinstance(run, Run) else expand_home(run)
    check_unfinished(run_dir)
    with explain_resource_errors(run_dir), Checkpoint(run_dir) as checkpoint:
        if (run_dir / MANIFEST).exists():  # another process has just finished it
            checkpoint.remove()
            check_unfinished(run_dir)
        if finished := finish_manifest(run_dir, clear=checkpoint.remove):
            return finished
        plan = _read_plan(run_dir, dataset)
        if precision not in {None, "auto"}:
            config = plan.config.changed(precision=precision)
            plan = plan._replace(config=config, precision=config.precision)
        splits = _split(plan.config, dataset)
        for partial in run_dir.glob(".*.partial"):
            partial.unlink()
        return _train(plan, dataset, splits, checkpoint, on_progress)


def _begin(run_dir: Path, documents: Mapping[str, object], source: Source | None) -> None:
    """Create the run folder atomically, with all that is required to resume the run."""
    partial = run_dir.with_name(f".{run_dir.name[:100]}.{os.getpid()}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # left by a killed process
        (partial / CHECKPOINT).mkdir(parents=True)
        if source is not None:
            source.write(partial)
        for name, document in documents.items():
            write_json(partial / name, document)
        partial.rename(run_dir)
    except OSError as error:
        if run_dir.exists():  # another process created it first
            raise _exists(run_dir) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _exists(run_dir: Path) -> TrainingError:
    return TrainingError(f"{run_dir} already exists", hint="choose another name for the run")


def _split(config: TrainConfig, dataset: Dataset) -> DatasetSplits:
    if not dataset.is_test.any():
        raise DataError(f"{dataset.origin} has no test images")
    return dataset.split(validation_fraction=config.validation_fraction, seed=config.seed)


def _read_plan(run_dir: Path, dataset: Dataset) -> Plan:
    """Read the plan of a run that was started with these images."""
    try:
        plan = Plan.from_json(json.loads((run_dir / CONFIG).read_bytes()))
        started_with = json.loads((run_dir / _DATASET).read_bytes())["fingerprint"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        check_version(run_dir)
        raise TrainingError(
            f"the run in {run_dir} can't be resumed because {CONFIG} or {_DATASET} is damaged: {error}",
            hint="start a new run: cifarml train",
        ) from error
    if started_with != dataset.fingerprint:
        raise TrainingError(
            f"the run in {run_dir} was started with other images than those of {dataset.origin}: "
            f"expected fingerprint {str(started_with)[:12]}, got {dataset.fingerprint[:12]}",
            hint=f"name their source: {resume_command(run_dir)} --data SOURCE",
        )
    return plan


def _train(
    plan: Plan, dataset: Dataset, splits: DatasetSplits, checkpoint: Checkpoint, on_progress: OnProgress
) -> Run:
    config, run_dir = plan.config, checkpoint.run_dir
    on_progress(Progress("training", 0, None, line=plan.describe(len(splits.train))))
    fitted = fit_network(
        plan,
        splits.train,
        splits.validation,
        checkpoint=checkpoint,
        fingerprint=dataset.fingerprint,
        on_progress=on_progress,
    )

    write_json(run_dir / CONFIG, plan.to_json())  # with another precision, if it was resumed with one

    def saving(step: int) -> None:
        on_progress(Progress("writing the run", step, 4, unit="steps"))

    saving(0)
    write_json(run_dir / HISTORY, fitted.history)
    model, temperature = build_serving_model(plan.preset, fitted.network, splits.validation)
    model.save(run_dir / KERAS_MODEL)
    saving(1)
    images = splits.test.images
    hint = _finish_later(run_dir, plan.precision)
    predictor, difference = export_onnx(
        model, run_dir / ONNX_MODEL, dataset.class_names, images[:_COMPARED], hint=hint
    )
    saving(2)
    # The only use of the test images, with the model that will be served.
    probabilities = predictor.predict_images(images)
    evaluation = evaluate_probabilities(probabilities, splits.test.labels, dataset.class_names)
    write_json(run_dir / METRICS, {"test": evaluation.to_json()})
    reliability = measure_reliability(probabilities, splits.test.labels)
    answers = Answers(splits.test.fingerprint, splits.test.labels, probabilities.argmax(axis=1))
    write_json(run_dir / ANSWERS, answers.to_json())
    saving(3)
    figures = {
        "learning_curves.png": learning_curves(fitted.history),
        "confusion_matrix.png": confusion_matrix(evaluation),
        "predictions.png": prediction_grid(splits.test, probabilities, seed=config.seed),
    }
    for name, figure in figures.items():
        save_figure(run_dir / name, figure)
    info = describe_training(run_dir.name, config, dataset, fitted, evaluation) | {
        "num_parameters": model.count_params(),
        "test_calibration_error": reliability.calibration_error,
        "temperature": temperature,
        "onnx_difference": difference,
        **checkpoint.source,
    }
    write_report(run_dir, info, splits.test, probabilities)
    run = write_manifest(run_dir, dataset.class_names, info, clear=checkpoint.remove)
    saving(4)
    return run


def _finish_later(run_dir: Path, precision: str) -> str:
    """Return the hint for a failed export; the checkpoint of the last epoch is kept."""
    if precision != "float32":
        return (
            "the training is kept; finish the run in float32 with: "
            f"{resume_command(run_dir)} --precision float32"
        )
    return (
        "the training is kept; install other versions of onnxruntime and tf2onnx, and finish the run with: "
        f"{resume_command(run_dir)}"
    )


def build_serving_model(
    preset: Preset, network: keras.Model, validation: Dataset
) -> tuple[keras.Model, float]:
    """Build the calibrated serving model; return it with its softmax temperature."""
    model = preset.to_serve(network)
    if not preset.gives_logits or not len(validation):
        return model, 1.0
    temperature = fit_temperature(predict_in_blocks(model, validation.images), validation.labels)
    if temperature != 1.0:
        model = preset.to_serve(network, temperature=temperature)
    return model, temperature
