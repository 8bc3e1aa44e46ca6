"""Search space: hyperparameters and their ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cifarml.model.recipe import Recipe

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def search_space(preset: str, own: Recipe) -> dict[str, BaseDistribution]:
    """Return the distribution of each hyperparameter; its range includes the preset's own value.

    Settings that determine the cost of training (epochs, widths, data pruning) are not searched, so that
    trials are comparable. Weight decay is not searched, since no preset uses it.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space: dict[str, BaseDistribution] = {
        "learning_rate": FloatDistribution(own.learning_rate / 8, min(own.learning_rate * 8, 100), log=True),
        "batch_size": CategoricalDistribution(
            sorted({max(own.batch_size // 2, 1), own.batch_size, min(own.batch_size * 2, 65_536)})
        ),
        "label_smoothing": FloatDistribution(0, max(0.3, own.label_smoothing)),
        "shift": IntDistribution(0, max(4, own.shift)),
        "cutout": IntDistribution(0, max(12, own.cutout)),
        "distortion": FloatDistribution(0, max(0.5, own.distortion)),
        "colour": FloatDistribution(0, max(0.5, own.colour)),
        "mixing": FloatDistribution(0, 1),
    }
    if preset != "tutorial":  # the article's network has its own dropout
        space["dropout"] = FloatDistribution(0, max(0.5, own.dropout))
    return space
