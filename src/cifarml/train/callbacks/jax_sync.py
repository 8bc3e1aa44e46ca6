"""Synchronise a network's variables within an epoch on JAX."""

from __future__ import annotations

import keras


def sync_jax_state(network: keras.Model) -> None:
    """Update the variables from Keras' JAX trainer, which holds their values until the epoch ends."""
    if keras.config.backend() == "jax":
        network.jax_state_sync()
