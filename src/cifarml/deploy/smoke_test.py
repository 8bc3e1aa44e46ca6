"""Smoke test of an endpoint: compare its predictions with the model's own."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from cifarml.data.dataset import Dataset
from cifarml.data.drawn.drawings import MIN_DRAWN, draw_dataset
from cifarml.deploy.base import EndpointHost
from cifarml.errors import DataError, DeployError, ImageError, SmokeTestError
from cifarml.images import encode_image
from cifarml.predict import Prediction
from cifarml.run import Run

_MAX_IMAGES: Final = 50
_DRAWN_SEED: Final = 20_260_101
"""Seed of drawings that training does not use by default."""

_MAX_DIFFERENCE: Final = 1e-3
_MIN_PROBABILITY: Final = 1e-3
_MAX_LATENCY_S: Final = 5.0
_LEAK_REQUESTS: Final = 150
_LEAK_BYTES: Final = 24 << 20


class ReferenceImage(NamedTuple):
    """Sample image with its label and the model's own prediction.

    Attributes:
        file: Content of a PNG file.
        label: True class.
        expected: Prediction of the run's own Predictor.
    """

    file: bytes
    label: str
    expected: Prediction


class ProbeResult(NamedTuple):
    """Accuracy, errors and latency of an endpoint.

    Attributes:
        num_images: Number of requests.
        num_correct: Number of correct predictions.
        errors: Messages of the requests that failed.
        median_s: Median latency, in seconds.
        slowest_s: Maximum latency, in seconds.
    """

    num_images: int
    num_correct: int
    errors: list[str]
    median_s: float
    slowest_s: float


def reference_images(run: Run, images: Dataset | None = None) -> list[ReferenceImage]:
    """Return up to 50 sample images, drawings by default, with the model's own predictions.

    Raises:
        DataError: If none of the images belongs to a class of the model.
        ModelFileError: If the model is damaged.
    """
    dataset = images or draw_dataset(MIN_DRAWN, seed=_DRAWN_SEED)
    predictor = run.predictor()
    step = max(1, len(dataset) // _MAX_IMAGES)
    numbers = range(0, len(dataset), step)[:_MAX_IMAGES]
    files = [(encode_image(dataset.images[i]), dataset.class_names[dataset.labels[i]]) for i in numbers]
    references = [ReferenceImage(file, label, predictor.predict(file)) for file, label in files]
    if images is not None and not {each.label for each in references} & set(run.class_names):
        raise DataError(
            f"{dataset.origin} contains none of the model's classes: {', '.join(run.class_names)}"
        )
    return references


def check_accuracy(references: Sequence[ReferenceImage], test_accuracy: float) -> None:
    """Reject a model whose accuracy on sample images contradicts its test accuracy (exact binomial test).

    Raises:
        SmokeTestError: If so few correct predictions have a probability below 0.001.
    """
    n, correct = len(references), sum(each.label == each.expected.label for each in references)
    probability = sum(
        math.comb(n, k) * test_accuracy**k * (1 - test_accuracy) ** (n - k) for k in range(correct + 1)
    )
    if probability < _MIN_PROBABILITY:
        raise SmokeTestError(
            f"smoke test failed: {correct} of {n} images correct, expected about {test_accuracy:.0%}",
            hint="pass images similar to the training images with --data, or run: cifarml evaluate",
        )


def verify_prediction(
    host: EndpointHost, name: str, deployment: str | None, reference: ReferenceImage
) -> float:
    """Query an endpoint with a sample image, and return the latency in seconds.

    Raises:
        SmokeTestError: If the prediction differs from the model's, or took too long.
        DeployError: If there was no response.
    """
    started = time.perf_counter()
    predicted = host.invoke(name, reference.file, deployment=deployment)
    seconds = time.perf_counter() - started
    expected = reference.expected
    differences = [
        abs(predicted.probabilities.get(label, -1.0) - probability)
        for label, probability in expected.probabilities.items()
    ]
    target = f"deployment {deployment}" if deployment else f"endpoint {name}"
    if not max(differences) <= _MAX_DIFFERENCE or predicted.label not in expected.probabilities:
        raise SmokeTestError(
            f"wrong prediction of {target}: {predicted.label} {predicted.probability:.1%}, "
            f"expected {expected.label} {expected.probability:.1%}; "
            f"the probabilities differ by up to {max(differences):.2g}"
        )
    if seconds > _MAX_LATENCY_S:
        raise SmokeTestError(
            f"{target} took {seconds:.1f} s for one image; the limit is {_MAX_LATENCY_S:.0f} s"
        )
    return seconds


def run_smoke_test(host: EndpointHost, name: str, new: str, references: Sequence[ReferenceImage]) -> None:
    """Test a new deployment: predictions, rejection of an invalid image, memory growth.

    Raises:
        SmokeTestError: If one of these checks fails.
        DeployError: If the deployment does not respond.
    """
    for each in references:
        verify_prediction(host, name, new, each)
    try:
        host.invoke(name, b"not images", deployment=new)
    except ImageError:
        pass
    else:
        raise SmokeTestError(f"deployment {new} accepted an invalid image (10 bytes of text)")
    before = host.get_endpoint(name).find(new).memory_bytes
    if before is None:
        return
    for number in range(_LEAK_REQUESTS):
        verify_prediction(host, name, new, references[number % len(references)])
    grown = (host.get_endpoint(name).find(new).memory_bytes or before) - before
    if grown > _LEAK_BYTES:
        raise SmokeTestError(
            f"deployment {new} leaks memory: it grew by {grown >> 20} MB in {_LEAK_REQUESTS} requests"
        )


def probe_endpoint(
    host: EndpointHost, name: str, images: Dataset | None = None, *, deployment: str | None = None
) -> ProbeResult:
    """Measure accuracy, errors and latency of an endpoint with labelled images; drawings by default."""
    dataset = images or draw_dataset(MIN_DRAWN, seed=_DRAWN_SEED)
    with suppress(DeployError, ImageError):  # warm-up, so that start-up is not timed
        host.invoke(name, dataset.images[0], deployment=deployment)
    num_correct, errors, seconds = 0, [], [0.0]
    for image, label in zip(dataset.images, dataset.labels, strict=True):
        started = time.perf_counter()
        try:
            predicted = host.invoke(name, image, deployment=deployment)
        except (DeployError, ImageError) as error:
            errors.append(error.message)
        else:
            num_correct += predicted.label == dataset.class_names[label]
            seconds.append(time.perf_counter() - started)
    timed = seconds[1:] or seconds
    return ProbeResult(len(dataset), num_correct, errors, statistics.median(timed), max(timed))
