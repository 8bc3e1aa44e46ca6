"""Muon optimizer for networks whose convolutions are followed by batch normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import keras
from keras import ops

_QUINTIC: Final = (3.4445, -4.7750, 2.0315)
"""Newton-Schulz coefficients, which bring singular values near 1 in a few steps; K. Jordan, "Muon", 2024."""
_ROUNDS: Final = 3
_HEAD: Final = 20.0
_BIASES: Final = 5.0
"""Learning rates of the head and the biases, relative to that of the convolutions. A compromise: factors of
100 and 30 were better with 40,000 images in a narrow network for 4 epochs, and worse with 1,800 (one seed
each, docs/benchmarks.md)."""


class Muon(keras.optimizers.Optimizer):  # type: ignore[misc]
    """Muon: momentum with orthogonalised updates of convolutions.

    The update of a kernel is orthogonalised: its singular values become about 1 (K. Jordan et al., "Muon: An
    optimizer for hidden layers in neural networks", 2024). Each kernel is rescaled to the norm
    sqrt(channels), since the batch normalisation after it removes any scale; so the learning rate is the
    relative size of an update, and kernels need no weight decay. All other weights use stochastic gradient
    descent with the decoupled weight decay ``decay``. Both use Nesterov momentum. ``arithmetic`` is the dtype
    of the orthogonalisation; ``bfloat16`` is precise enough.
    """

    def __init__(
        self,
        learning_rate: Any,
        momentum: float = 0.6,
        decay: float = 0.0,
        arithmetic: str = "float32",
        **settings: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **settings)
        self.momentum = momentum
        self.decay = decay
        self.arithmetic = arithmetic
        self._momenta: list[keras.Variable] = []

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create a momentum variable for each weight."""
        if self.built:
            return
        super().build(variables)
        self._momenta = [
            self.add_variable_from_reference(variable, name="momentum") for variable in variables
        ]

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        """Update a variable; see :class:`keras.optimizers.Optimizer`."""
        kept = self._momenta[self._get_variable_index(variable)]
        rate, gradient = (ops.cast(value, variable.dtype) for value in (learning_rate, gradient))
        momentum = kept * self.momentum + gradient
        self.assign(kept, momentum)
        step = gradient + momentum * self.momentum
        if len(variable.shape) == 4:
            channels = variable.shape[-1]
            weights = ops.convert_to_tensor(variable)
            weights = weights * (channels**0.5 / _norm(weights))
            step = ops.reshape(self._orthogonal(ops.reshape(step, (-1, channels))), variable.shape)
            self.assign(variable, weights - rate * step)
        else:
            rate = rate * (_HEAD if len(variable.shape) == 2 else _BIASES)
            self.assign_sub(variable, rate * (step + self.decay * variable))

    def _orthogonal(self, matrix: Any) -> Any:
        """Orthogonalise a matrix by Newton-Schulz iteration on its smaller Gram matrix.

        Each step maps X to X P(G), with the Gram matrix G = X'X and a polynomial P. Polynomials of G commute,
        so the steps work on G only, and X is multiplied once, by the product of all P.
        """
        wide = matrix.shape[0] < matrix.shape[1]
        scaled = ops.cast(matrix / (_norm(matrix) + 1e-7), self.arithmetic)
        gram = (
            ops.matmul(scaled, ops.transpose(scaled)) if wide else ops.matmul(ops.transpose(scaled), scaled)
        )
        first, third, fifth = _QUINTIC
        identity = ops.eye(gram.shape[0], dtype=self.arithmetic)
        turn = identity
        for again in reversed(range(_ROUNDS)):
            factor = first * identity + third * gram + fifth * ops.matmul(gram, gram)
            turn = ops.matmul(turn, factor)
            if again:
                gram = ops.matmul(ops.matmul(factor, gram), factor)
        turned = ops.matmul(turn, scaled) if wide else ops.matmul(scaled, turn)
        return ops.cast(turned, matrix.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        settings: dict[str, Any] = super().get_config()
        return settings | {"momentum": self.momentum, "decay": self.decay, "arithmetic": self.arithmetic}


def _norm(values: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(values)))
