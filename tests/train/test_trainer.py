"""Training: content of a run folder, interruption, and kills."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from cifarml import Dataset, Run, TrainConfig, evaluate_model, load_dataset, train_model
from cifarml.errors import DataError, ModelFileError, TrainingError
from cifarml.progress import Progress
from cifarml.run_folders import list_runs
from cifarml.train.export import export_onnx
from tests.trainings import Training

FILES = {
    "answers.json", "config.json", "confusion_matrix.png", "dataset.json", "environment.json", "history.json",
    "learning_curves.png", "manifest.json", "metrics.json", "model.keras", "model.onnx", "predictions.png",
    "report.html",
}  # fmt: skip


FAST_PARAMETERS = 497_538


def test_the_run_folder(trained: Run, drawn: Dataset) -> None:
    assert {path.name for path in trained.path.iterdir()} == FILES
    assert set(trained.files) == FILES - {"manifest.json"}
    for name, expected in trained.files.items():
        assert hashlib.sha256((trained.path / name).read_bytes()).hexdigest() == expected
    assert trained.info["dataset_fingerprint"] == drawn.fingerprint
    assert trained.info["num_parameters"] == FAST_PARAMETERS
    about = json.loads((trained.path / "dataset.json").read_text())
    assert (about["num_train"], about["num_validation"], about["num_test"]) == (160, 20, 20)
    history = json.loads((trained.path / "history.json").read_text())
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert {len(values) for values in history.values()} == {2}
    for path in trained.path.glob("*.png"):
        with Image.open(path) as image:
            assert image.size[0] > 400


def test_the_metrics_are_those_of_the_test_images(trained: Run, drawn: Dataset) -> None:
    evaluation = evaluate_model(trained.predictor(), drawn.test).evaluation
    kept = json.loads((trained.path / "metrics.json").read_text())["test"]
    assert kept == json.loads(json.dumps(evaluation.to_json()))
    assert trained.info["test_accuracy"] == evaluation.accuracy
    assert np.sum(kept["confusion"]) == kept["num_images"] == 20


def test_keras_and_onnx_agree(trained: Run, drawn: Dataset) -> None:
    model = keras.models.load_model(trained.path / "model.keras", compile=False)
    expected = keras.ops.convert_to_numpy(model(drawn.images))
    session = onnxruntime.InferenceSession(trained.read("model.onnx"), providers=["CPUExecutionProvider"])
    for count in (1, 7, 200):  # any batch size
        (received,) = session.run(None, {session.get_inputs()[0].name: drawn.images[:count]})
        assert np.abs(received - expected[:count]).max() <= 1e-4


def test_an_export_that_differs_is_refused(tmp_path: Path, drawn: Dataset) -> None:
    class Fickle(keras.layers.Layer):  # type: ignore[misc]
        """Layer whose exported output differs from its eager output."""

        def call(self, inputs: object) -> object:
            import tensorflow as tf

            return inputs if tf.executing_eagerly() else keras.ops.flip(inputs, axis=-1)

    # Eager calls return the input; the export traces the flipped graph.
    base = keras.Sequential(
        [
            keras.Input((32, 32, 3), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(
                10, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(stddev=1)
            ),
            Fickle(),
        ]
    )
    with pytest.raises(TrainingError, match="differs"):
        export_onnx(base, tmp_path / "model.onnx", drawn.class_names, drawn.images[:8])
    assert not list(tmp_path.iterdir())


def test_training_learns(tmp_path: Path) -> None:
    dataset = load_dataset("drawn:1200")
    config = TrainConfig(num_epochs=5, widths=(16, 64, 64))
    reports: list[Progress] = []
    run = train_model(config, dataset, tmp_path / "run", on_progress=reports.append)
    assert run.info["test_accuracy"] > 0.4, "chance is 0.1"
    training = [progress for progress in reports if progress.task == "training"]
    assert training[-1].done == training[-1].total == 5 * run.read_json("dataset.json")["num_train"]
    plan, *lines = [progress.line for progress in training if progress.line]
    assert plan.startswith("fast: 5 epochs of ")
    assert [line[:9] for line in lines] == [f"epoch {i}/5" for i in range(1, 6)]
    done = [progress.done for progress in training]
    assert done == sorted(done)


def test_without_validation_images(tmp_path: Path, drawn: Dataset) -> None:
    config = TrainConfig(num_epochs=1, validation_fraction=0.0, widths=(8,))
    run = train_model(config, drawn, tmp_path / "run")
    assert set(json.loads((run.path / "history.json").read_text())) == {"loss", "accuracy"}


def test_an_existing_folder_is_unchanged(tmp_path: Path, drawn: Dataset) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="already exists"):
        train_model(TrainConfig(num_epochs=1), drawn, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_created(tmp_path: Path, drawn: Dataset) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="can't write"):
        train_model(TrainConfig(num_epochs=1), drawn, tmp_path / "file" / "run")


def test_no_test_images(tmp_path: Path, drawn: Dataset) -> None:
    with pytest.raises(DataError, match="no test images"):
        train_model(TrainConfig(num_epochs=1), drawn.train, tmp_path / "run")
    with pytest.raises(DataError, match="no training images"):
        train_model(TrainConfig(num_epochs=1), drawn.test, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_finishes_the_run(tmp_path: Path) -> None:
    training = Training(tmp_path / "runs" / "one", "drawn:200", num_epochs=5000, widths=(8,))
    exit_code = training.interrupt_when(lambda: any("epoch    3/" in line for line in training.lines()))
    assert exit_code == 0, training.log.read_text()
    run = Run.open(tmp_path / "runs" / "one")
    assert run.info["interrupted"] is True
    assert 3 <= run.info["num_epochs"] < 5000
    run.verify()
    assert list_runs(tmp_path / "runs")[0].state == "interrupted"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_in_a_finaliser(tmp_path: Path, drawn: Dataset) -> None:
    class Finalised:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)  # Python drops the KeyboardInterrupt that this raises here

    def interrupt(progress: Progress) -> None:
        if progress.line.startswith("epoch   2/"):
            del (left := [Finalised()])[:]
            assert not left

    config = TrainConfig(preset="tutorial", num_epochs=500)
    run = train_model(config, drawn, tmp_path / "run", on_progress=interrupt)
    assert run.info["interrupted"] is True
    assert run.info["num_epochs"] < 10


def test_ctrl_c_before_the_first_epoch(tmp_path: Path) -> None:
    training = Training(tmp_path / "runs" / "one", "drawn:200", num_epochs=5)
    assert training.interrupt_when((tmp_path / "runs" / "one" / "config.json").exists) != 0
    assert [run.state for run in list_runs(tmp_path / "runs")] in ([], ["unfinished"])


@pytest.mark.parametrize(
    "moment", ["epoch 1/3", "epoch 3/3", "writing the run", "writing the run 2", "writing the run 4"]
)
def test_a_kill_leaves_a_finished_or_an_unfinished_run(tmp_path: Path, moment: str) -> None:
    training = Training(tmp_path / "runs" / "one", "drawn:200", num_epochs=3, widths=(8,))
    task, _, number = moment.rpartition(" ")

    def reached() -> bool:
        lines = training.lines()
        if number.isdigit():
            return sum(task in line for line in lines) >= int(number)
        return any(moment in line for line in lines)

    training.kill_when(reached)
    assert reached(), training.log.read_text()
    (run,) = list_runs(tmp_path / "runs")
    assert run.state in {"finished", "unfinished"}
    if run.state == "finished":
        Run.open(run.path).verify()
        Run.open(run.path).predictor()
    else:
        with pytest.raises(ModelFileError, match="unfinished"):
            Run.open(run.path).predictor()
