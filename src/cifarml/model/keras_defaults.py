"""Keras' defaults while cifarml builds, trains and converts networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from cifarml.environment import check_backend


@contextmanager
def keras_defaults() -> Iterator[None]:
    """Apply Keras' original defaults to all networks in this context, and restore the user's afterwards.

    A keras.json, or calls such as `keras.config.set_floatx`, change the data format, dtype and length of any
    training in the process. Can be used as a decorator.

    Raises:
        SettingsError: If Keras runs on a backend other than TensorFlow or JAX.
    """
    config = keras.config
    check_backend(config.backend())
    policy, floatx, epsilon = config.dtype_policy(), config.floatx(), config.epsilon()
    layout, epochs, steps = config.image_data_format(), config.max_epochs(), config.max_steps_per_epoch()
    try:
        config.set_floatx("float32")
        config.set_dtype_policy("float32")
        config.set_epsilon(1e-7)
        config.set_image_data_format("channels_last")
        config.set_max_epochs(None)
        config.set_max_steps_per_epoch(None)
        yield
    finally:
        config.set_floatx(floatx)
        config.set_dtype_policy(policy)
        config.set_epsilon(epsilon)
        config.set_image_data_format(layout)
        config.set_max_epochs(epochs)
        config.set_max_steps_per_epoch(steps)
