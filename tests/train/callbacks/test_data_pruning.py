"""Data pruning (InfoBatch): which images are skipped, weights, losses, and reproducibility."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from cifarml import Dataset, Run, TrainConfig, resume_training, train_model
from cifarml.model.recipe import Recipe
from cifarml.progress import Progress
from cifarml.train.callbacks.data_pruning import LossTracker, WeightedCrossentropy
from cifarml.train.inputs.batches import Batches, one_hot
from cifarml.train.inputs.keras_feed import feed_training
from cifarml.train.plan import Plan

RECIPE = Recipe(num_epochs=1, batch_size=4, optimizer="sgd", learning_rate=0.1, pruning=0.25)


def shown(batches: Batches, epoch: int) -> np.ndarray:
    return np.concatenate([batches.shown(epoch, index) for index in range(len(batches))])


def test_the_easiest_images_are_shown_half_as_often(drawn: Dataset) -> None:
    batches = Batches(drawn.train, RECIPE, seed=3)
    total, kept = len(drawn.train), len(batches) * 4
    assert batches.pruning.num_pruned == total - kept
    assert kept == pytest.approx(0.75 * total, abs=4)
    losses = np.random.default_rng(0).uniform(0.1, 3, total).astype(np.float32)
    unseen = np.arange(0, total, 10)
    losses[unseen] = 0
    batches.record_losses(5, losses)
    assert len(np.unique(shown(batches, 6))) == kept, "without losses of two epochs before"
    order = shown(batches, 7)
    assert len(np.unique(order)) == kept
    hard = np.where(losses == 0, np.inf, losses)
    known = np.argsort(hard)[: 2 * batches.pruning.num_pruned]
    assert np.isin(known, order).sum() == batches.pruning.num_pruned
    assert np.isin(unseen, order).all()
    weights = np.concatenate([targets.sum(axis=1) for _, targets in batches.epoch(7)])
    assert len(np.unique(weights.round(5))) == 2
    assert weights[np.isin(order, known)].min() == pytest.approx(2 * weights[~np.isin(order, known)].max())
    assert weights.mean() == pytest.approx(1)
    again = Batches(drawn.train, RECIPE, seed=3)
    again.record_losses(5, losses)
    assert (shown(again, 7) == order).all()
    assert (shown(again, 8) != order).any()


def test_the_plan_describes_the_share_of_pruned_images(drawn: Dataset) -> None:
    plan = Plan.make(TrainConfig(preset="best"), drawn.train)
    for pruning, batch_size in ((0.25, 4), (0.25, 32), (0.0, 4)):
        plan = plan._replace(recipe=plan.recipe.changed(pruning=pruning, batch_size=batch_size))
        pruned = Batches(drawn.train, plan.recipe, seed=0).pruning.num_pruned / len(drawn.train)
        described = f"data pruning skips {pruned:.0%} per epoch" in plan.describe(len(drawn.train))
        assert described == (pruned > 0) == ((pruning, batch_size) == (0.25, 4))


@pytest.mark.parametrize(
    ("changes", "num_replicas"), [({"batch_size": 32}, 1), ({}, 2), ({"pruning": 0.0}, 1)]
)
def test_short_epochs_and_replicas_are_not_pruned(
    drawn: Dataset, changes: dict[str, float], num_replicas: int
) -> None:
    """Short epochs are prefetched before losses are known, and replicas split each batch."""
    batches = Batches(drawn.train, RECIPE.changed(**changes), seed=0, num_replicas=num_replicas)
    assert batches.pruning.num_pruned == 0
    batches.record_losses(0, np.ones(len(drawn.train), np.float32))
    assert np.allclose(np.concatenate([targets for _, targets in batches.epoch(2)]).sum(axis=1), 1)


def test_pruning_half_of_the_images(drawn: Dataset) -> None:
    batches = Batches(drawn.train, RECIPE.changed(pruning=0.5), seed=0)
    batches.record_losses(0, np.ones(len(drawn.train), np.float32))
    weights = np.concatenate([targets for _, targets in batches.epoch(2)]).sum(axis=1)
    assert np.isfinite(weights).all()
    assert weights.mean() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("count", [3, 5, 8])
def test_the_loss_is_weighted(count: int, smoothing: float) -> None:
    random = np.random.default_rng(0)
    targets, logits = one_hot(random.integers(0, 4, count), 4), random.normal(size=(count, 4)).astype("f4")
    weights = random.uniform(0.5, 2, count).astype(np.float32)
    settings = {"from_logits": True, "label_smoothing": smoothing}
    ours = WeightedCrossentropy(5, **settings)
    expected = keras.losses.CategoricalCrossentropy(**settings, reduction=None)(targets, logits)
    expected = keras.ops.convert_to_numpy(expected)
    loss = float(ours(targets * weights[:, None], logits))
    assert loss == pytest.approx(float((expected * weights).mean()), rel=1e-5)
    kept = keras.ops.convert_to_numpy(ours.last.values)
    np.testing.assert_allclose(kept, np.concatenate([expected, np.zeros(5)])[:5], rtol=1e-5)


def test_the_loss_of_each_image_is_tracked(drawn: Dataset) -> None:
    """With a learning rate of 0, the loss of an image is always the same."""
    images = drawn.train
    batches = Batches(images, RECIPE, seed=0)
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [keras.Input((32, 32, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    )
    network.add(keras.layers.Dense(len(images.class_names)))
    optimizer = keras.optimizers.SGD(0.0)
    optimizer.example_losses = optimizer.add_variable((2, len(images)), "zeros", "float32")
    loss = WeightedCrossentropy(4, from_logits=True)
    network.last_losses = loss.last
    network.compile(optimizer, loss, jit_compile=False)
    history = network.fit(
        **feed_training(batches), epochs=4, callbacks=[LossTracker(batches, network, 0)], verbose=0
    ).history
    assert set(history) == {"loss"}, "the last losses are not a metric"
    logits = network.predict(images.images, verbose=0)
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=None)(
        one_hot(images.labels, len(images.class_names)), logits
    )
    before, now = keras.ops.convert_to_numpy(optimizer.example_losses)
    seen = np.unique(np.concatenate([shown(batches, epoch) for epoch in (2, 3)]))
    assert (now > 0).sum() >= (before > 0).sum() > 0
    np.testing.assert_allclose(now[seen], keras.ops.convert_to_numpy(expected)[seen], rtol=1e-4)


def test_a_resumed_run_prunes_the_same_images(drawn: Dataset, tmp_path: Path) -> None:
    config = TrainConfig(num_epochs=4, batch_size=4, widths=(4, 8), pruning=0.25, mixing=0.0)

    def stop(progress: Progress) -> None:
        if "epoch 3/" in progress.line:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train_model(config, drawn, tmp_path / "stopped", on_progress=stop)
    whole = train_model(config, drawn, tmp_path / "whole")
    lines: list[str] = []
    resume_training(tmp_path / "stopped", drawn, on_progress=lambda each: lines.append(each.line))
    assert not [line for line in lines if "epoch 1/" in line]
    one, other = (
        json.loads((path / "history.json").read_text()) for path in (whole.path, tmp_path / "stopped")
    )
    assert one == other
    accuracies = [Run.open(path).info["test_accuracy"] for path in (whole.path, tmp_path / "stopped")]
    assert accuracies[0] == accuracies[1]
