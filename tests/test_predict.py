"""Run folders, prediction and evaluation."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from cifarml import Dataset, LocalRegistry, Predictor, Run, compare_runs, evaluate_model, load_dataset
from cifarml.errors import DataError, ImageError, ModelFileError
from cifarml.evaluation.metrics import evaluate_probabilities
from cifarml.images import ImageLike
from cifarml.run import write_manifest
from cifarml.run_folders import find_run, list_runs, new_run_dir
from tests.image_files import image_bytes


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Path:
    """Copy of a trained run that a test may damage."""
    return Path(shutil.copytree(trained.path, tmp_path / "run"))


def test_predict_one(run: Path) -> None:
    answer = Run.open(run).predictor().predict(image_bytes())
    assert answer.label == next(iter(answer.probabilities))
    assert answer.probability == max(answer.probabilities.values())
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert list(answer.top(3)) == list(answer.probabilities)[:3]
    assert list(answer.probabilities.values()) == sorted(answer.probabilities.values(), reverse=True)


def test_predict_many_continues_after_an_invalid_image(run: Path, tmp_path: Path) -> None:
    predictor = Run.open(run).predictor()
    paths = [tmp_path / f"{i}.png" for i in range(600)]
    for i, path in enumerate(paths):
        path.write_bytes(b"?" if i % 100 == 7 else image_bytes(i % 50))
    paths.append(tmp_path / "missing.png")
    done: list[int] = []
    answers = predictor.predict_many(paths, on_progress=lambda progress: done.append(progress.done))
    assert len(answers) == len(paths)
    bad = [
        (path, answer) for path, answer in zip(paths, answers, strict=True) if isinstance(answer, ImageError)
    ]
    assert len(bad) == 7
    assert all(path.name in answer.message for path, answer in bad)
    assert done == [256, 512, 601]
    alone, batched = predictor.predict(paths[599]), answers[599]
    assert not isinstance(batched, ImageError)
    assert batched.label == alone.label
    assert batched.probability == pytest.approx(alone.probability, abs=1e-5)


def test_predict_many_accepts_all_representations(run: Path, tmp_path: Path) -> None:
    predictor, path = Run.open(run).predictor(), tmp_path / "image.png"
    path.write_bytes(image_bytes(1, size=(50, 70)))
    image = Image.open(path)
    held: list[ImageLike] = [
        path,
        str(path),
        path.read_bytes(),
        io.BytesIO(path.read_bytes()),
        image,
        np.asarray(image),
    ]
    expected = predictor.predict(path)
    for answer in predictor.predict_many(held):
        assert not isinstance(answer, ImageError)
        assert answer.label == expected.label
        assert answer.probability == pytest.approx(expected.probability, abs=1e-5)
    stack = np.stack([np.asarray(image)] * 3)
    assert len(predictor.predict_many(stack)) == len(predictor.predict_many(iter(stack))) == 3


@pytest.mark.parametrize(
    "images",
    [
        "image.png",
        Path("image.png"),
        image_bytes(),
        bytearray(image_bytes()),
        io.BytesIO(image_bytes()),
        Image.new("RGB", (32, 32)),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((32, 32), np.uint8),
        None,
        5,
    ],
    ids=lambda images: type(images).__name__,
)
def test_predict_many_refuses_a_single_image(run: Path, images: Any) -> None:
    with pytest.raises(DataError, match="expected a sequence of images; got") as caught:
        Run.open(run).predictor().predict_many(images)
    assert "a list" in str(caught.value.hint)


def test_run_attributes(trained: Run) -> None:
    assert trained.metrics["test_accuracy"] == trained.info["test_accuracy"]
    assert {"test_loss", "num_epochs", "training_s"} <= set(trained.metrics)
    assert not {"interrupted", "preset"} & set(trained.metrics)
    for predictor in (trained.predictor(), trained.predictor(num_threads=1), Run.open(trained).predictor()):
        assert predictor.class_names == trained.class_names


def test_model_arguments(trained: Run, drawn: Dataset, tmp_path: Path) -> None:
    model = LocalRegistry(tmp_path / "registry").register(trained)
    expected = evaluate_model(trained, drawn.test).evaluation.accuracy
    for named in (trained.path, str(trained.path), model, Run.open(model).predictor()):
        assert evaluate_model(named, drawn.test).evaluation.accuracy == expected
    assert compare_runs(str(trained.path), model).verdict.startswith("No significant difference")
    for wrong in (None, 5, b"runs/first", io.BytesIO()):
        with pytest.raises(ModelFileError, match=r"path of its folder or a RegisteredModel; got"):
            Run.open(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("num_threads", [None, 1])
def test_predict_many_matches_predict(run: Path, num_threads: int | None) -> None:
    predictor = Run.open(run).predictor(num_threads=num_threads)
    good, bad, other = predictor.predict_many([image_bytes(1), b"?", image_bytes(2)])
    assert isinstance(bad, ImageError)
    for answer, seed in ((good, 1), (other, 2)):
        assert not isinstance(answer, ImageError)
        alone = predictor.predict(image_bytes(seed))
        assert answer.label == alone.label
        assert answer.probability == pytest.approx(alone.probability, abs=1e-5)
    assert predictor.predict_many([]) == []


@pytest.mark.parametrize(
    "images", [np.zeros((2, 32, 32, 3), np.float32), np.zeros((2, 28, 28), np.uint8), np.zeros(3, np.uint8)]
)
def test_predict_images_refuses_wrong_arrays(run: Path, images: npt.NDArray[Any]) -> None:
    with pytest.raises(DataError, match="uint8"):
        Run.open(run).predictor().predict_images(images)


def test_predict_images_without_images(run: Path) -> None:
    assert Run.open(run).predictor().predict_images(np.zeros((0, 32, 32, 3), np.uint8)).shape == (0, 10)


@pytest.mark.parametrize("name", ["model.onnx", "model.keras", "metrics.json"])
def test_verify_detects_a_changed_file(run: Path, name: str) -> None:
    content = bytearray((run / name).read_bytes())
    content[len(content) // 2] ^= 1
    (run / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=f"{name} was changed"):
        Run.open(run).verify()
    if name == "model.onnx":
        with pytest.raises(ModelFileError, match="was changed"):
            Run.open(run).predictor()


@pytest.mark.parametrize("name", ["model.onnx", "config.json"])
def test_verify_detects_a_missing_file(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(ModelFileError, match=name):
        Run.open(run).verify()


@pytest.mark.parametrize(
    "name",
    ["model.h5", "weights.hdf5", "model.pkl", "x.pickle", "score.py", "lib.so", "run.sh", "x.npy", "noend"],
)
def test_files_that_could_execute_code_are_refused(run: Path, name: str) -> None:
    (run / name).write_bytes(pickle.dumps({}))
    with pytest.raises(ModelFileError, match="is not allowed in a run folder"):
        Run.open(run).predictor()


def test_links_and_folders_are_refused(run: Path) -> None:
    (run / "link.json").symlink_to("/etc/hostname")
    with pytest.raises(ModelFileError, match=r"link\.json"):
        Run.open(run)
    (run / "link.json").unlink()
    (run / "folder.json").mkdir()
    with pytest.raises(ModelFileError, match=r"folder\.json"):
        Run.open(run)


@pytest.mark.parametrize("name", ["model.h5", "model.keras", "model.onnx", "model.pkl"])
def test_open_refuses_a_single_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelFileError, match="single file"):
        Run.open(tmp_path / name).predictor()


@pytest.mark.parametrize(
    "change",
    [
        lambda _: "not json",
        lambda _: "[]",
        lambda _: "[" * 100_000,
        lambda m: json.dumps(m | {"format": "other"}),
        lambda m: json.dumps({k: v for k, v in m.items() if k != "files"}),
        lambda m: json.dumps(m | {"files": {"../../etc/passwd": "0"}}),
        lambda m: json.dumps(m | {"files": ["model.onnx"]}),
        lambda m: json.dumps(m | {"files": {"model.onnx": 3}}),
        lambda m: json.dumps(m | {"class_names": 5}),
        lambda m: json.dumps(m | {"class_names": [1, 2]}),
        lambda m: json.dumps(m) + " " * 2**20,
        lambda _: "",
    ],
)
def test_damaged_manifest(run: Path, change: Callable[[dict[str, object]], str]) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(change(manifest))
    if len(change(manifest)) > 2**20:  # truncated at the limit it would be valid JSON followed by blanks
        (run / "manifest.json").write_text(" " * 2**20 + change(manifest))
    with pytest.raises(ModelFileError, match=r"manifest\.json"):
        Run.open(run)


def save_model(run: Path, graph: onnx.GraphProto) -> None:
    """Replace the model of a run and update its hash."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (run / "model.onnx").write_bytes(model.SerializeToString())
    info = json.loads((run / "manifest.json").read_text())
    names = tuple(info.pop("class_names"))
    write_manifest(run, names, {k: v for k, v in info.items() if k not in {"files", "format"}})


def linear(weights: onnx.TensorProto, classes: int, kind: int = TensorProto.UINT8) -> onnx.GraphProto:
    return helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["f"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["y"]),
        ],
        "linear",
        [helper.make_tensor_value_info("x", kind, ["n", 32, 32, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", classes])],
        [weights],
    )


def test_model_with_external_data_is_refused(run: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(3072 * 10 * 4))
    for location in (str(secret), "../secret.bin", "model.keras"):
        weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3072, 10])
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=location)
        save_model(run, linear(weights, 10))
        with pytest.raises(ModelFileError, match="can't be loaded"):
            Run.open(run).predictor()


@pytest.mark.parametrize(("classes", "kind"), [(9, TensorProto.UINT8), (10, TensorProto.FLOAT)])
def test_model_with_another_signature_is_refused(run: Path, classes: int, kind: int) -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3072, classes], [0.0] * 3072 * classes)
    save_model(run, linear(weights, classes, kind))
    with pytest.raises(ModelFileError, match="must map uint8"):
        Run.open(run).predictor()


@pytest.mark.parametrize("content", [b"", b"junk", b"\x08\x08" * 500])
def test_invalid_model_content(run: Path, content: bytes) -> None:
    with pytest.raises(ModelFileError, match="can't be loaded"):
        Predictor(content, ("a", "b"))


def test_find_run(run: Path, tmp_path: Path) -> None:
    runs_dir = run.parent
    assert find_run(None, runs_dir) == find_run("latest", runs_dir) == run
    assert find_run("run", runs_dir) == find_run(run, runs_dir) == run
    with pytest.raises(ModelFileError, match="no run 'other'"):
        find_run("other", runs_dir)
    with pytest.raises(ModelFileError, match="no trained model"):
        find_run(None, tmp_path / "nowhere")
    first = new_run_dir(tmp_path, "tutorial")
    first.mkdir()
    assert new_run_dir(tmp_path, "tutorial") != first


def test_list_runs_states(run: Path) -> None:
    def state() -> str:
        return next(found.state for found in list_runs(run.parent) if found.path == run)

    assert state() == "finished"
    (run / "manifest.json").write_text("?")
    assert state() == "damaged"
    (run / "manifest.json").unlink()
    assert state() == "unfinished"


class TestEvaluate:
    def test_metrics_match_manual_calculation(self) -> None:
        labels = np.array([0, 0, 0, 1, 1, 2])
        predicted = np.array([0, 0, 1, 1, 1, 0])
        probabilities = np.full((6, 3), 0.1, np.float32)
        probabilities[np.arange(6), predicted] = 0.8
        found = evaluate_probabilities(probabilities, labels, ("a", "b", "c"))
        assert found.confusion.tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
        assert found.accuracy == pytest.approx(4 / 6)
        assert found.loss == pytest.approx(-(4 * np.log(0.8) + 2 * np.log(0.1)) / 6)
        assert [c.precision for c in found.classes] == pytest.approx([2 / 3, 2 / 3, 0])
        assert [c.recall for c in found.classes] == pytest.approx([2 / 3, 1, 0])
        assert [c.f1 for c in found.classes] == pytest.approx([2 / 3, 0.8, 0])
        assert found.macro_f1 == pytest.approx((2 / 3 + 0.8) / 3)

    def test_loss_of_a_certain_mistake_is_finite(self) -> None:
        found = evaluate_probabilities(np.array([[1, 0]], np.float32), np.array([1]), ("a", "b"))
        assert found.loss == pytest.approx(-np.log(1e-7))

    def test_no_images(self) -> None:
        with pytest.raises(DataError, match="requires images"):
            evaluate_probabilities(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), ("a", "b"))

    def test_classes_are_matched_by_name(self, run: Path, drawn: Dataset) -> None:
        predictor = Run.open(run).predictor()
        renamed = tuple(reversed(drawn.class_names))
        reversed_ = drawn.relabel(9 - drawn.labels, renamed)
        assert evaluate_model(predictor, reversed_).evaluation.confusion.tolist() == (
            evaluate_model(predictor, drawn).evaluation.confusion.tolist()
        )

    def test_data_set_with_fewer_classes(self, run: Path, drawn: Dataset) -> None:
        two = drawn.take(np.flatnonzero(drawn.labels < 2)).relabel(
            drawn.labels[drawn.labels < 2], ("cat", "ship")
        )
        found = evaluate_model(Run.open(run).predictor(), two).evaluation
        assert found.confusion.sum(axis=1).nonzero()[0].tolist() == [3, 8]

    def test_unknown_class(self, run: Path, drawn: Dataset) -> None:
        other = drawn.relabel(drawn.labels, (*drawn.class_names[:9], "zebra"))
        with pytest.raises(DataError, match="has no class 'zebra'"):
            evaluate_model(Run.open(run).predictor(), other)


def test_prediction_decodes_like_training(run: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(load_dataset("drawn:20").images[3]).resize((200, 150)).save(file, "JPEG")
    predictor = Run.open(run).predictor()
    from cifarml import decode_image

    direct = predictor.predict_images(decode_image(file.getvalue())[None])[0].max()
    assert predictor.predict(file.getvalue()).probability == pytest.approx(float(direct))
