"""Input pipeline for `keras.Model.fit`.

The autotuning thread of tf.data sleeps for 10, 20, 40 ms and so on, up to a minute, and the end of an
iterator sometimes waits until that thread wakes up (seen with TensorFlow 2.21): half a minute after a
training of 45 s. Keras autotunes every input except a ``tf.data.Dataset``, so it gets one with autotuning
disabled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras

from cifarml.cifar10 import IMAGE_SHAPE
from cifarml.data.dataset import Dataset
from cifarml.train.inputs.batches import Batch, Batches, one_hot


def feed_training(batches: Batches, first_epoch: int = 0) -> dict[str, Any]:
    """Return the arguments of ``fit`` for training batches, starting at an epoch.

    One iterator covers all epochs: Keras needs up to a second to begin each epoch of a
    ``keras.utils.PyDataset``, as long as an epoch of 2000 images takes.
    """
    fed: Any = batches.endless(first_epoch)
    if keras.config.backend() == "tensorflow":
        num_classes = len(batches.dataset.class_names)
        fed = _dataset_without_autotune(lambda: batches.endless(first_epoch), num_classes)
    return {"x": fed, "steps_per_epoch": len(batches), "shuffle": False}


def feed_validation(dataset: Dataset, batch_size: int, *, num_replicas: int = 1) -> dict[str, Any]:
    """Return the arguments of ``fit`` for validation after every epoch; empty without images.

    All replicas get the same number of images, so a few may be dropped.
    """
    batch_size -= batch_size % num_replicas
    images = dataset.images[: len(dataset) - len(dataset) % num_replicas]
    if not len(images):
        return {}
    targets = one_hot(dataset.labels[: len(images)], len(dataset.class_names))
    if keras.config.backend() != "tensorflow":
        return {"validation_data": (images, targets), "validation_batch_size": batch_size}

    def validation_batches() -> Iterator[Batch]:
        for start in range(0, len(images), batch_size):
            yield images[start : start + batch_size], targets[start : start + batch_size]

    num_batches = math.ceil(len(images) / batch_size)
    fed = _dataset_without_autotune(validation_batches, len(dataset.class_names), num_batches)
    return {"validation_data": fed}


def _dataset_without_autotune(
    make: Callable[[], Iterator[Batch]], num_classes: int, num_batches: int | None = None
) -> Any:
    import tensorflow as tf

    signature = (
        tf.TensorSpec((None, *IMAGE_SHAPE), tf.uint8, name="images"),
        tf.TensorSpec((None, num_classes), tf.float32, name="targets"),
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    made = tf.data.Dataset.from_generator(make, output_signature=signature)
    made = made.apply(tf.data.experimental.assert_cardinality(num_batches or tf.data.INFINITE_CARDINALITY))
    return made.prefetch(2).with_options(options)
