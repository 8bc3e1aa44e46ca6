"""The variables of a network in the midst of an epoch."""

from __future__ import annotations

import keras

__all__ = ["fetch_variables"]


def fetch_variables(network: keras.Model) -> None:
    """Bring them up to date: on JAX what they hold lies in Keras' trainer until the epoch ends."""
    if keras.config.backend() == "jax":
        network.jax_state_sync()
