"""Input pipeline for `keras.Model.fit`: every image, in order, without autotuning."""

from __future__ import annotations

from itertools import islice

import keras
import numpy as np
import pytest

from cifarml import Dataset
from cifarml.model.recipe import Recipe
from cifarml.train.inputs.batches import Batches, one_hot
from cifarml.train.inputs.keras_feed import feed_training, feed_validation

RECIPE = Recipe(
    num_epochs=1, batch_size=32, optimizer="sgd", learning_rate=0.1, flip=True, shift=2, mixing=0.5
)


def test_training_batches_continue_over_epochs(drawn: Dataset) -> None:
    batches = Batches(drawn.train, RECIPE, seed=0)
    fed = feed_training(batches, first_epoch=3)
    assert fed["steps_per_epoch"] == len(batches)
    expected = [*batches.epoch(3), *batches.epoch(4)]
    for (images, targets), batch in zip(islice(fed["x"], 2 * len(batches)), expected, strict=True):
        assert np.array_equal(images, batch[0])
        assert np.array_equal(targets, batch[1])


@pytest.mark.parametrize(("batch_size", "num_replicas"), [(64, 1), (7, 2), (1000, 3)])
def test_validation_contains_each_image_once(drawn: Dataset, batch_size: int, num_replicas: int) -> None:
    fed = feed_validation(drawn, batch_size, num_replicas=num_replicas)["validation_data"]
    for _ in range(2):  # after every epoch
        images, targets = (np.concatenate(parts) for parts in zip(*fed, strict=True))
        assert len(images) == len(drawn) - len(drawn) % num_replicas
        assert np.array_equal(images, drawn.images[: len(images)])
        assert np.array_equal(targets, one_hot(drawn.labels[: len(images)], len(drawn.class_names)))
    assert all(len(images) % num_replicas == 0 for images, _ in fed)
    assert len(fed) == len(list(fed)), "Keras warns if the number of batches is unknown"


def test_no_validation_images(drawn: Dataset) -> None:
    assert feed_validation(drawn.take(np.arange(0)), 64) == {}
    assert feed_validation(drawn.take(np.arange(1)), 64, num_replicas=2) == {}


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="tf.data is TensorFlow's")
def test_autotuning_is_off(drawn: Dataset) -> None:
    for fed in (
        feed_training(Batches(drawn.train, RECIPE, seed=0))["x"],
        feed_validation(drawn, 64)["validation_data"],
    ):
        assert fed.options().autotune.enabled is False
