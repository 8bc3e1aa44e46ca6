"""Images whose answers are known before an endpoint is asked."""

from __future__ import annotations

import io
import math
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from PIL import Image

from cifarml.data.dataset import Dataset
from cifarml.data.drawn.drawings import MIN_DRAWN, draw_dataset
from cifarml.deploy.base import EndpointHost
from cifarml.errors import DataError, DeployError, ImageError, SmokeTestError
from cifarml.predict import Prediction, Predictor
from cifarml.run import Run

__all__ = ["EndpointCheck", "KnownImage", "ask_known", "check_endpoint", "check_labels", "known_images"]

_MAX_IMAGES: Final = 50
_DRAWN_SEED: Final = 20_260_101
"""Drawings that no training has seen by default."""

_MAX_DIFFERENCE: Final = 1e-3
_TOO_UNLIKELY: Final = 1e-3
_MAX_ANSWER_S: Final = 5.0


class KnownImage(NamedTuple):
    """An image file, what it shows, and what the model says about it in this process.

    Attributes:
        file: A PNG.
        label: What it shows.
        expected: What the run's own Predictor says.
    """

    file: bytes
    label: str
    expected: Prediction


class EndpointCheck(NamedTuple):
    """How an endpoint answered.

    Attributes:
        num_images: How many it was asked.
        num_correct: How many it got right.
        errors: What went wrong with the others.
        median_s: Half of the answers came within this time.
        slowest_s: All of them did within this one.
    """

    num_images: int
    num_correct: int
    errors: list[str]
    median_s: float
    slowest_s: float


def known_images(run: Run, given: Dataset | None = None) -> list[KnownImage]:
    """Return up to fifty images with what the model is expected to say.

    Args:
        run: The model.
        given: Labelled images; drawings when left out.

    Raises:
        DataError: If they show none of the model's classes.
        ModelFileError: If the model is damaged.
    """
    dataset = given or draw_dataset(MIN_DRAWN, seed=_DRAWN_SEED)
    predictor = Predictor.load(run.path)
    step = max(1, len(dataset) // _MAX_IMAGES)
    files = [(_png(dataset, i), dataset.class_names[dataset.labels[i]]) for i in range(0, len(dataset), step)]
    known = [KnownImage(file, label, predictor.predict(file)) for file, label in files[:_MAX_IMAGES]]
    if given is not None and not {each.label for each in known} & set(run.class_names):
        raise DataError(f"{dataset.origin} shows none of the model's classes: {', '.join(run.class_names)}")
    return known


def check_labels(known: Sequence[KnownImage], test_accuracy: float) -> None:
    """Refuse a model that is right so seldom that its figures can't be true.

    Args:
        known: Images like those that the model was tested on.
        test_accuracy: What it reached on those, 0 to 1.

    Raises:
        SmokeTestError: If so few right ones would come less than once in a thousand times.
    """
    n, right = len(known), sum(each.label == each.expected.label for each in known)
    chance = sum(
        math.comb(n, k) * test_accuracy**k * (1 - test_accuracy) ** (n - k) for k in range(right + 1)
    )
    if chance < _TOO_UNLIKELY:
        raise SmokeTestError(
            f"the model names {right} of {n} known images rightly, "
            f"though it is said to name {test_accuracy:.0%} rightly",
            hint="give images like those it was trained on, with --data, or evaluate it: cifarml evaluate",
        )


def ask_known(host: EndpointHost, name: str, deployment: str | None, known: KnownImage) -> float:
    """Ask about one known image.

    Returns:
        How long the answer took, in seconds.

    Raises:
        SmokeTestError: If it is another than the model's, or took too long.
        DeployError: If there was none.
    """
    started = time.perf_counter()
    answer = host.invoke(name, known.file, deployment=deployment)
    seconds = time.perf_counter() - started
    differences = [
        abs(answer.probabilities.get(label, -1.0) - probability)
        for label, probability in known.expected.probabilities.items()
    ]
    if not max(differences) <= _MAX_DIFFERENCE or answer.label not in known.expected.probabilities:
        raise SmokeTestError(
            f"deployment {deployment or name} answers wrongly: {answer.label} {answer.probability:.1%}, "
            f"where its model says {known.expected.label} {known.expected.probability:.1%}"
        )
    if seconds > _MAX_ANSWER_S:
        raise SmokeTestError(f"deployment {deployment or name} took {seconds:.1f} s for one answer")
    return seconds


def check_endpoint(
    host: EndpointHost, name: str, given: Dataset | None = None, *, deployment: str | None = None
) -> EndpointCheck:
    """Ask an endpoint about labelled images.

    Args:
        host: Where it is.
        name: The endpoint.
        given: The images; drawings when left out.
        deployment: Who shall answer; as traffic says when left out.
    """
    dataset = given or draw_dataset(MIN_DRAWN, seed=_DRAWN_SEED)
    with suppress(DeployError, ImageError):  # so that nobody's start is timed
        host.invoke(name, _png(dataset, 0), deployment=deployment)
    num_correct, errors, seconds = 0, [], [0.0]
    for i in range(len(dataset)):
        started = time.perf_counter()
        try:
            answer = host.invoke(name, _png(dataset, i), deployment=deployment)
        except (DeployError, ImageError) as error:
            errors.append(error.message)
        else:
            num_correct += answer.label == dataset.class_names[dataset.labels[i]]
            seconds.append(time.perf_counter() - started)
    timed = seconds[1:] or seconds
    return EndpointCheck(len(dataset), num_correct, errors, statistics.median(timed), max(timed))


def _png(dataset: Dataset, number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(dataset.images[number]).save(file, "PNG")
    return file.getvalue()
