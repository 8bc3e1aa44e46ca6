"""Prediction with ONNX Runtime, without TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cifarml.cifar10 import IMAGE_SHAPE
from cifarml.errors import DataError, ImageError, ModelFileError
from cifarml.images import ImageLike, decode_image
from cifarml.progress import OnProgress, Progress, ignore_progress

_NO_TELEMETRY: Final = "ORT_DISABLE_TELEMETRY"
"""Without it ONNX Runtime (since 1.29) reports every model to Microsoft. It is read once, on import.
https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md"""

_user_choice = os.environ.get(_NO_TELEMETRY)
os.environ.setdefault(_NO_TELEMETRY, "1")
import onnxruntime  # noqa: E402

if _user_choice is None:
    del os.environ[_NO_TELEMETRY]

_BATCH_SIZE: Final = 256


class Prediction(NamedTuple):
    """Prediction for one image.

    Attributes:
        label: The most probable class.
        probability: The probability of `label`, 0 to 1.
        probabilities: The probability of each class, in descending order.

    Example:
        ```python
        prediction = predictor.predict("ship.png")
        print(f"{prediction.label}: {prediction.probability:.1%}")
        print(prediction.top(3))
        ```
    """

    label: str
    probability: float
    probabilities: dict[str, float]

    def top(self, count: int) -> dict[str, float]:
        """Return the most probable classes.

        Args:
            count: Number of classes.

        Returns:
            The probability of each of these classes, in descending order.
        """
        return dict(list(self.probabilities.items())[:count])


class Predictor:
    """Model loaded for prediction with ONNX Runtime on the CPU.

    `Run.predictor` creates one.

    Args:
        model: Content of an .onnx file that maps uint8 images (N, 32, 32, 3) to probabilities.
        class_names: The classes, in the order of the model's outputs.
        num_threads: Number of cores to use, without busy waiting between predictions. All by default.

    Raises:
        ModelFileError: If the model can't be loaded, or is not a cifarml model.

    Example:
        ```python
        predictor = Run.open("runs/first").predictor()
        print(predictor.predict("ship.png").label)
        labels = [prediction.label for prediction in predictor.predict_many(dataset.images[:3])]
        ```
    """

    def __init__(self, model: bytes, class_names: tuple[str, ...], *, num_threads: int | None = None) -> None:
        self.class_names = class_names
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # failures are reported by exceptions
        if num_threads is not None:
            options.intra_op_num_threads = num_threads
            # Threads that spin after a prediction occupy cores that other work needs.
            options.add_session_config_entry("session.force_spinning_stop", "1")
        # A cifarml model is one file. Without this, a malicious model could read any file as external data.
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

    def predict(self, image: ImageLike) -> Prediction:
        """Predict the class of one image of any size.

        Args:
            image: The path or bytes of an image file, a binary file object, a `PIL.Image.Image`, or a uint8
                array of shape (H, W), (H, W, 3) or (H, W, 4); see `ImageLike`.

        Returns:
            The most probable class, and the probability of each class.

        Raises:
            ImageError: If the image can't be read.
        """
        return self._to_prediction(self.predict_images(decode_image(image)[np.newaxis])[0])

    def predict_many(
        self, images: Iterable[ImageLike], *, on_progress: OnProgress = ignore_progress
    ) -> list[Prediction | ImageError]:
        """Predict the classes of several images, in batches of 256.

        An image that can't be read does not fail the others.

        Args:
            images: Images as for `predict`, or one uint8 array of shape (N, H, W, 3).
            on_progress: Called after every batch.

        Returns:
            For each image, in order, its prediction, or the error if the image can't be read.

        Raises:
            DataError: If `images` is a single image.
        """
        images = _list_images(images)
        predictions: list[Prediction | ImageError] = []
        for start in range(0, len(images), _BATCH_SIZE):
            decoded = [_try_decode(image) for image in images[start : start + _BATCH_SIZE]]
            good = [pixels for pixels in decoded if not isinstance(pixels, ImageError)]
            rows = iter(self.predict_images(np.stack(good))) if good else iter(())
            predictions += [
                pixels if isinstance(pixels, ImageError) else self._to_prediction(next(rows))
                for pixels in decoded
            ]
            on_progress(Progress("predicting", len(predictions), len(images)))
        return predictions

    def predict_images(
        self, images: npt.NDArray[np.uint8], *, on_progress: OnProgress = ignore_progress
    ) -> npt.NDArray[np.float32]:
        """Predict probabilities for decoded images, in batches of 256.

        Args:
            images: uint8, shape (N, 32, 32, 3).
            on_progress: Called after every batch.

        Returns:
            Probabilities, float32, shape (N, classes); each row sums to 1.

        Raises:
            DataError: If the dtype or shape is different.
        """
        if images.dtype != np.uint8 or images.shape[1:] != IMAGE_SHAPE:
            raise DataError(
                f"expected images as uint8 of shape (N, 32, 32, 3); got {images.dtype} {images.shape}"
            )
        probabilities = np.empty((len(images), len(self.class_names)), np.float32)
        for start in range(0, len(images), _BATCH_SIZE):
            batch = slice(start, start + _BATCH_SIZE)
            (probabilities[batch],) = self._session.run(None, {self._input: images[batch]})
            on_progress(Progress("predicting", min(start + _BATCH_SIZE, len(images)), len(images)))
        return probabilities

    def _to_prediction(self, probabilities: npt.NDArray[np.float32]) -> Prediction:
        order = np.argsort(-probabilities, kind="stable")
        ranked = {self.class_names[i]: float(probabilities[i]) for i in order}
        label = self.class_names[order[0]]
        return Prediction(label, ranked[label], ranked)


def _list_images(images: Iterable[ImageLike]) -> list[ImageLike]:
    is_one = isinstance(images, str | bytes | bytearray | memoryview) or hasattr(images, "read")
    if isinstance(images, np.ndarray):
        is_one = images.ndim != 4
    if is_one or not isinstance(images, Iterable):
        raise DataError(
            f"expected a sequence of images; got {type(images).__name__}",
            hint="pass a single image to predict, or wrap it in a list",
        )
    return list(images)


def _try_decode(image: ImageLike) -> npt.NDArray[np.uint8] | ImageError:
    try:
        return decode_image(image)
    except ImageError as error:
        return error
