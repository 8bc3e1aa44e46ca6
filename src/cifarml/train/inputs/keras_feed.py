"""Images as ``keras.Model.fit`` takes them, so that it never waits for them.

TensorFlow's tf.data tunes itself in a thread that sleeps for 10, 20, 40 ms and so on, up to a minute. The end
of an iterator now and then waits until that thread wakes up (seen with TensorFlow 2.21): after a training of
45 s that may be half a minute. Keras makes iterators of that kind of all that it is given, but of a
``tf.data.Dataset``; so it is given one that does not tune itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras

from cifarml.cifar10 import IMAGE_SHAPE
from cifarml.data.dataset import Dataset
from cifarml.train.inputs.batches import Batch, Batches, one_hot

__all__ = ["feed_training", "feed_validation"]


def feed_training(batches: Batches, first_epoch: int = 0) -> dict[str, Any]:
    """Return arguments of ``fit``: the batches from an epoch on, epoch after epoch.

    Keras would need up to a second to begin each epoch of a ``keras.utils.PyDataset``, as long as an epoch
    of 2000 images takes; here one iterator goes through all of them.
    """
    made: Any
    if keras.config.backend() == "tensorflow":
        made = _steady(lambda: batches.endless(first_epoch), batches.num_classes)
    else:
        made = batches.endless(first_epoch)
    return {"x": made, "steps_per_epoch": len(batches), "shuffle": False}


def feed_validation(dataset: Dataset, batch_size: int, *, num_replicas: int = 1) -> dict[str, Any]:
    """Return arguments of ``fit``: images to look at after every epoch, if there are any.

    Args:
        dataset: Those to look at; with several replicas a few may be left out.
        batch_size: How many at once, in all replicas together.
        num_replicas: Each looks at as many as the others.
    """
    batch_size -= batch_size % num_replicas
    images = dataset.images[: len(dataset) - len(dataset) % num_replicas]
    if not len(images):
        return {}
    targets = one_hot(dataset.labels[: len(images)], len(dataset.class_names))
    if keras.config.backend() != "tensorflow":
        return {"validation_data": (images, targets), "validation_batch_size": batch_size}

    def look() -> Iterator[Batch]:
        for start in range(0, len(images), batch_size):
            yield images[start : start + batch_size], targets[start : start + batch_size]

    num_batches = math.ceil(len(images) / batch_size)
    return {"validation_data": _steady(look, len(dataset.class_names), num_batches)}


def _steady(make: Callable[[], Iterator[Batch]], num_classes: int, num_batches: int | None = None) -> Any:
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
