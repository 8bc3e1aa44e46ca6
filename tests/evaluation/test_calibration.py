"""Temperature scaling."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from cifarml.evaluation.calibration import fit_temperature, scale_probabilities
from cifarml.evaluation.metrics import measure_reliability


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    shares: npt.NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_fit_temperature_recovers_the_temperature(temperature: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20_000, 10))
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)  # drawn from their softmax
    probabilities = softmax(logits * temperature)
    found = fit_temperature(probabilities, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    assert measure_reliability(softmax(np.log(probabilities) / found), labels).calibration_error < 0.015


def test_fit_temperature_ignores_few_images() -> None:
    assert fit_temperature(np.full((49, 2), 0.5, np.float32), np.zeros(49, np.int64)) == 1.0


def test_fit_temperature_is_bounded() -> None:
    sure = np.tile(np.array([[1.0, 0.0]], np.float32), (100, 1))
    assert 0.1 <= fit_temperature(sure, np.zeros(100, np.int64)) <= 10
    assert fit_temperature(sure, np.ones(100, np.int64)) == pytest.approx(10, rel=0.01)


def test_scale_probabilities_divides_logits_and_is_reversible() -> None:
    logits = np.random.default_rng(1).normal(0, 3, (500, 10))
    scaled = scale_probabilities(softmax(logits), 2.5)
    np.testing.assert_allclose(scaled, softmax(logits / 2.5), atol=1e-6)
    np.testing.assert_allclose(scale_probabilities(scaled, 1 / 2.5), softmax(logits), atol=1e-6)
    certain = np.array([[1.0, 0.0]], np.float32)
    assert np.isfinite(scale_probabilities(certain, 0.1)).all()
