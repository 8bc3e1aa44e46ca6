"""Predictions by ONNX Runtime: the same model that is served, without TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from cifarml.cifar10 import IMAGE_SHAPE
from cifarml.errors import DataError, ImageError, ModelFileError
from cifarml.images import decode_image
from cifarml.progress import OnProgress, Progress, ignore_progress
from cifarml.run import ONNX_MODEL, Run

_QUIET: Final = "ORT_DISABLE_TELEMETRY"
"""Without it ONNX Runtime (since 1.29) tells Microsoft of every model; it looks once, while it is imported.
https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md"""

_asked = os.environ.get(_QUIET)
os.environ.setdefault(_QUIET, "1")
import onnxruntime  # noqa: E402

if _asked is None:
    del os.environ[_QUIET]

__all__ = ["Prediction", "Predictor"]

_BATCH_SIZE: Final = 256


class Prediction(NamedTuple):
    """What the model sees in an image.

    Attributes:
        label: The most probable class.
        probability: Its probability, 0 to 1.
        probabilities: The probability of each class, the most probable first.
    """

    label: str
    probability: float
    probabilities: dict[str, float]

    def top(self, count: int) -> dict[str, float]:
        """Return the ``count`` most probable classes."""
        return dict(list(self.probabilities.items())[:count])


class Predictor:
    """A model that is ready to answer.

    Args:
        model: The content of an .onnx file that maps raw pixels to probabilities.
        class_names: The classes, in the order of its outputs.
        num_threads: How many cores to work on, leaving them to others in between; all by default.

    Raises:
        ModelFileError: If it is none of ours.

    Example:
        >>> predictor = Predictor.load("runs/2026-11-23_12-00-00_tutorial")  # doctest: +SKIP
        >>> predictor.predict(Path("ship.png").read_bytes()).label  # doctest: +SKIP
        'ship'
    """

    def __init__(self, model: bytes, class_names: tuple[str, ...], *, num_threads: int | None = None) -> None:
        self.class_names = class_names
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is in our own error
        if num_threads is not None:
            options.intra_op_num_threads = num_threads
            # Threads that go on waiting busily after an answer take the cores from others.
            options.add_session_config_entry("session.force_spinning_stop", "1")
        # A model is one file. Without this, one that points to other files could have any file read.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            (given,), (output,) = self._session.get_inputs(), self._session.get_outputs()
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise ModelFileError(f"the model can't be loaded: {error}") from error
        received = (given.type, tuple(given.shape[1:]), output.type, output.shape[-1])
        if received != ("tensor(uint8)", IMAGE_SHAPE, "tensor(float)", len(class_names)):
            raise ModelFileError(
                f"the model must map uint8 images {IMAGE_SHAPE} to {len(class_names)} "
                f"probabilities. Received: {received}"
            )
        self._input = given.name

    @classmethod
    def load(cls, run: Run | str | Path, *, num_threads: int | None = None) -> Self:
        """Load the model of a run folder.

        Args:
            run: The folder that training made, or a copy of it.
            num_threads: How many cores to work on, leaving them to others in between; all by default.

        Raises:
            ModelFileError: If there is no finished, unchanged model in it.
        """
        run = Run.open(run)
        try:
            return cls(run.read(ONNX_MODEL), run.class_names, num_threads=num_threads)
        except ModelFileError as error:
            raise ModelFileError(f"{run.path}: {error.message}", error.hint) from error

    def predict(self, image: bytes) -> Prediction:
        """Predict one image file.

        Args:
            image: Its bytes: PNG, JPEG, WebP, GIF or BMP, of any size.

        Raises:
            ImageError: If it can't be read.
        """
        return self._to_prediction(self.predict_images(decode_image(image)[np.newaxis])[0])

    def predict_many(self, images: Iterable[bytes]) -> list[Prediction | ImageError]:
        """Predict several image files at once; a bad one does not stop the others.

        Args:
            images: The bytes of each, as for :meth:`predict`.

        Returns:
            For each, in order, its prediction, or the error that says why there is none.
        """
        return self._predict_decoded(map(_decode, images))

    def predict_images(
        self, images: npt.NDArray[np.uint8], *, on_progress: OnProgress = ignore_progress
    ) -> npt.NDArray[np.float32]:
        """Predict decoded images, some hundreds at a time.

        Args:
            images: uint8, shape (N, 32, 32, 3).
            on_progress: Called after every batch.

        Returns:
            Probabilities, float32, shape (N, classes), rows that add up to 1.

        Raises:
            DataError: If dtype or shape are others.
        """
        if images.dtype != np.uint8 or images.shape[1:] != IMAGE_SHAPE:
            raise DataError(
                f"images must be uint8 of shape (N, 32, 32, 3). Received: {images.dtype} {images.shape}"
            )
        probabilities = np.empty((len(images), len(self.class_names)), np.float32)
        for start in range(0, len(images), _BATCH_SIZE):
            batch = slice(start, start + _BATCH_SIZE)
            (probabilities[batch],) = self._session.run(None, {self._input: images[batch]})
            on_progress(Progress("predicting", min(start + _BATCH_SIZE, len(images)), len(images)))
        return probabilities

    def predict_files(
        self, paths: Sequence[Path], *, on_progress: OnProgress = ignore_progress
    ) -> Iterator[tuple[Path, Prediction | ImageError]]:
        """Predict image files, some hundreds at a time; a bad one does not stop the others.

        Args:
            paths: The files.
            on_progress: Called after every batch.

        Yields:
            Each path, in order, with its prediction, or with the error that says why there is none.
        """
        for start in range(0, len(paths), _BATCH_SIZE):
            batch = paths[start : start + _BATCH_SIZE]
            yield from zip(batch, self._predict_decoded(map(_decode_file, batch)), strict=True)
            on_progress(Progress("predicting", start + len(batch), len(paths)))

    def _predict_decoded(
        self, decoded: Iterable[npt.NDArray[np.uint8] | ImageError]
    ) -> list[Prediction | ImageError]:
        decoded = list(decoded)
        images = [image for image in decoded if not isinstance(image, ImageError)]
        answers = iter(self.predict_images(np.stack(images))) if images else iter(())
        return [
            image if isinstance(image, ImageError) else self._to_prediction(next(answers))
            for image in decoded
        ]

    def _to_prediction(self, probabilities: npt.NDArray[np.float32]) -> Prediction:
        order = np.argsort(-probabilities, kind="stable")
        ranked = {self.class_names[i]: float(probabilities[i]) for i in order}
        label = self.class_names[order[0]]
        return Prediction(label, ranked[label], ranked)


def _decode(image: bytes) -> npt.NDArray[np.uint8] | ImageError:
    try:
        return decode_image(image)
    except ImageError as error:
        return error


def _decode_file(path: Path) -> npt.NDArray[np.uint8] | ImageError:
    try:
        return _decode(path.read_bytes())
    except OSError as error:
        return ImageError(f"can't be read: {error.strerror}")
