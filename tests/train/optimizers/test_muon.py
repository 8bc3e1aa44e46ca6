"""Muon: updates of convolutions and of other weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from cifarml.model.recipe import Recipe
from cifarml.train.optimizers.muon import Muon
from cifarml.train.optimizers.schedule import build_optimizer

RATE = 0.1
Floats = npt.NDArray[np.float32]


def kernel(channels: int = 16, seed: int = 0) -> keras.Variable:
    return keras.Variable(np.random.default_rng(seed).normal(size=(3, 3, 8, channels)).astype(np.float32))


def steep(seed: int = 1, channels: int = 16) -> Floats:
    """A gradient that is a hundred times as large in one direction as in another."""
    random = np.random.default_rng(seed)
    left, _ = np.linalg.qr(random.normal(size=(72, channels)))
    right, _ = np.linalg.qr(random.normal(size=(channels, channels)))
    steep: Floats = (left * np.geomspace(1, 0.01, channels) @ right).astype(np.float32)
    return steep.reshape(3, 3, 8, channels)


@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
@pytest.mark.parametrize("channels", [16, 80])
def test_updates_of_convolutions_are_orthogonal(arithmetic: str, channels: int) -> None:
    weights = kernel(channels)
    before = keras.ops.convert_to_numpy(weights)
    before = before * np.sqrt(channels) / np.linalg.norm(before)
    gradient = steep(channels=16) if channels == 16 else kernel(channels, 2)
    Muon(RATE, arithmetic=arithmetic).apply([gradient], [weights])
    step = (before - keras.ops.convert_to_numpy(weights)).reshape(72, channels) / RATE
    sizes = np.linalg.svd(step, compute_uv=False)
    assert sizes.max() < 1.4
    assert np.median(sizes) > 0.5
    assert sizes.max() / np.median(sizes) < 2.5  # of the gradient: 10 or more
    along = np.sum(step * keras.ops.convert_to_numpy(gradient).reshape(72, channels))
    assert along > 0


def test_the_size_of_a_gradient_does_not_matter() -> None:
    results = []
    for scale in (1e-3, 1e3):
        weights = kernel()
        Muon(RATE).apply([scale * steep()], [weights])
        results.append(keras.ops.convert_to_numpy(weights))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-3, atol=1e-4)


def test_kernels_keep_their_norm() -> None:
    weights, optimizer = kernel(), Muon(RATE)
    for seed in range(20):
        optimizer.apply([steep(seed)], [weights])
    assert np.linalg.norm(keras.ops.convert_to_numpy(weights)) == pytest.approx(4, rel=RATE)


def test_a_zero_gradient_gives_no_nan() -> None:
    weights = kernel()
    Muon(RATE).apply([np.zeros((3, 3, 8, 16), np.float32)], [weights])
    assert np.isfinite(keras.ops.convert_to_numpy(weights)).all()


def test_other_weights_take_nesterov_steps() -> None:
    """They equal those of Keras' SGD, whose momentum includes the learning rate."""
    random = np.random.default_rng(0)
    bias, head = random.normal(size=7).astype(np.float32), random.normal(size=(5, 7)).astype(np.float32)
    ours = [keras.Variable(bias), keras.Variable(head)]
    theirs = [keras.Variable(bias), keras.Variable(head)]
    muon = Muon(RATE, momentum=0.9)
    plain = [keras.optimizers.SGD(rate, momentum=0.9, nesterov=True) for rate in (5 * RATE, 20 * RATE)]
    for _ in range(5):
        gradients = [random.normal(size=each.shape).astype(np.float32) for each in (bias, head)]
        muon.apply(gradients, ours if not muon.built else None)
        for optimizer, gradient, variable in zip(plain, gradients, theirs, strict=True):
            optimizer.apply([gradient], [variable] if not optimizer.built else None)
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our.numpy(), their.numpy(), rtol=1e-5, atol=1e-5)


def test_decay_shrinks_other_weights() -> None:
    head = keras.Variable(np.ones((2, 3), np.float32))
    Muon(RATE, decay=0.01).apply([np.zeros((2, 3), np.float32)], [head])
    np.testing.assert_allclose(head.numpy(), 1 - 20 * RATE * 0.01, rtol=1e-6)


@pytest.mark.parametrize("optimizer", ["muon", "sgd", "rmsprop"])
def test_every_optimizer_applies_the_weight_decay_of_the_recipe(optimizer: Any) -> None:
    """With a zero gradient, weight decay shrinks the head; without decay it is unchanged."""
    recipe = Recipe(num_epochs=1, batch_size=1, optimizer=optimizer, learning_rate=0.01, warm_up=0.0)
    for decay in (0.0, 0.5):
        head = keras.Variable(np.ones((3, 2), np.float32))
        built = build_optimizer(recipe.changed(weight_decay=decay), 10)
        built.apply([keras.ops.zeros((3, 2))], [head])
        assert (keras.ops.convert_to_numpy(head) < 1).all() == (decay > 0)


def test_config_round_trip() -> None:
    made = Muon.from_config(Muon(RATE, momentum=0.7, decay=0.01, arithmetic="bfloat16").get_config())
    assert (made.momentum, made.decay, made.arithmetic) == (0.7, 0.01, "bfloat16")
