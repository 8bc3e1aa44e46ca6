"""Precise batch norm: running statistics recomputed after training."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from cifarml import Dataset, TrainConfig
from cifarml.progress import Progress
from cifarml.train.config import PresetName
from cifarml.train.inputs.batches import Batches
from cifarml.train.network import compile_network
from cifarml.train.plan import Plan
from cifarml.train.precise_batchnorm import recompute_batchnorm_statistics
from cifarml.train.speed_probe import measure_speed

NORMALISATION = keras.layers.BatchNormalization


def planned(images: Dataset, **settings: Any) -> Plan:
    return Plan.make(TrainConfig(preset="best", widths=(8, 16), seed=3, **settings), images)


def by_hand(network: keras.Model, images: np.ndarray) -> list[np.ndarray]:
    """Return mean and variance of each normalisation's input, with the statistics of this batch."""
    found, values = [], keras.ops.convert_to_tensor(images)
    for layer in network.layers:
        if isinstance(layer, NORMALISATION):
            values = np.asarray(values, np.float64)
            found += [values.mean(axis=(0, 1, 2)), values.var(axis=(0, 1, 2))]
            values = (values - found[-2]) / np.sqrt(found[-1] + layer.epsilon) + np.asarray(layer.beta)
            values = keras.ops.convert_to_tensor(values.astype(np.float32))
        else:
            values = layer(values)
    return found


def test_statistics_are_averaged_over_batches_of_plain_images(drawn: Dataset) -> None:
    train = drawn.train.take(np.arange(2 * 256 + 20) % len(drawn.train))
    plan = planned(train, mixing=1.0, colour=1.0, cutout=8, batch_size=64)
    network = compile_network(plan, plan.batches(train))
    before = [weights.copy() for weights in network.get_weights()]
    momenta = [layer.momentum for layer in network.layers if isinstance(layer, NORMALISATION)]
    seen: list[Progress] = []
    recompute_batchnorm_statistics(network, train, plan, seen.append)

    shifted = plan.recipe.changed(mixing=0.0, colour=0.0, cutout=0, pruning=0.0, batch_size=256)
    batches = [images for images, _ in Batches(train, shifted, seed=3).epoch(0)]
    expected = np.mean([np.concatenate(by_hand(network, images)) for images in batches], axis=0)
    layers = [layer for layer in network.layers if isinstance(layer, NORMALISATION)]
    found = np.concatenate(
        [np.asarray(v) for layer in layers for v in (layer.moving_mean, layer.moving_variance)]
    )
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert [layer.momentum for layer in layers] == momenta
    assert [progress.done for progress in seen] == [0, 1] == list(range(len(batches)))
    changed = [
        name
        for name, old, new in zip(
            (v.path for v in network.weights), before, network.get_weights(), strict=True
        )
        if not np.array_equal(old, new)
    ]
    assert len(changed) == 2 * len(layers)
    assert all("moving_" in name for name in changed)


def test_a_network_without_batchnorm_is_unchanged(drawn: Dataset) -> None:
    plan = Plan.make(TrainConfig(preset="tutorial"), drawn.train)
    network = compile_network(plan, plan.batches(drawn.train))
    before = network.get_weights()
    seen: list[Progress] = []
    recompute_batchnorm_statistics(network, drawn.train, plan, seen.append)
    assert not seen
    assert all(np.array_equal(old, new) for old, new in zip(before, network.get_weights(), strict=True))


@pytest.mark.parametrize("preset", ["fast", "tutorial"])
def test_a_time_budget_includes_precise_batchnorm(preset: PresetName, drawn: Dataset) -> None:
    plan = Plan.make(TrainConfig(preset=preset), drawn.train)
    speed = measure_speed(plan, drawn.split(seed=0), seconds=0.0)
    assert (speed.finish_s > speed.step_s) == (preset == "fast")
    assert (speed.finish_s == 0) == (preset == "tutorial")
