"""Data-parallel training: a replica of the network on each device, gradients summed.

The batch size is the total over all devices. On TensorFlow, each replica normalises over its own share of
the batch (S. Ioffe and C. Szegedy, "Batch Normalization", 2015, on a smaller batch), and the running
statistics are averaged over the replicas; on JAX, normalisation is over the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras

from cifarml.hardware.devices import list_devices


def on_devices(devices: Sequence[str]) -> AbstractContextManager[Any]:
    """Return a context in which a network is built, compiled and trained on these devices, such as ``gpu:0``.

    With several devices, the batch size must be a multiple of their number.
    """
    there = list_devices()
    usual = next((device for device in there if not device.startswith("cpu")), there[0])
    scope: AbstractContextManager[Any] = nullcontext()
    if keras.config.backend() == "jax":
        if len(devices) > 1:
            scope = keras.distribution.DataParallel(devices=list(devices)).scope()
        elif devices[0] != usual:
            scope = keras.device(devices[0])
    else:
        import tensorflow as tf

        if len(devices) > 1:
            scope = tf.distribute.MirroredStrategy([device.upper() for device in devices]).scope()
        elif devices[0] != usual:
            scope = tf.distribute.OneDeviceStrategy(devices[0].upper()).scope()
    return scope
