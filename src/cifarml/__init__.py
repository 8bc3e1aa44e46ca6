"""cifarml: from labelled images to a prediction, by command line or by import.

Importing this package imports nothing heavy; each name below is loaded when it is first used.

Example:
    >>> import cifarml
    >>> dataset = cifarml.load_dataset("drawn:200")
    >>> config = cifarml.TrainConfig(num_epochs=1)
    >>> run = cifarml.train_model(config, dataset, "runs/first")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cifarml.data.check import check_source
    from cifarml.data.dataset import Dataset
    from cifarml.data.load import load_dataset
    from cifarml.deploy.local.host import LocalHost
    from cifarml.deploy.rollout import deploy_model
    from cifarml.errors import CifarMLError
    from cifarml.evaluation.compare_runs import compare_runs
    from cifarml.evaluation.evaluate import evaluate_model
    from cifarml.explain.drawing import explanation_figure
    from cifarml.explain.gradcam import explain_image
    from cifarml.images import decode_image
    from cifarml.model.presets import build_model
    from cifarml.predict import Prediction, Predictor
    from cifarml.progress import show_progress
    from cifarml.registry.local.registry import LocalRegistry
    from cifarml.registry.promotion import compare_models, promote_if_better
    from cifarml.report.image_grids import image_grid, prediction_grid
    from cifarml.report.live_plot import live_plot
    from cifarml.report.plots import confusion_matrix, learning_curves
    from cifarml.report.reliability_diagram import reliability_diagram
    from cifarml.run import Run
    from cifarml.train.config import TrainConfig
    from cifarml.train.trainer import resume_training, train_model
    from cifarml.tune.search import tune_model

_HOME = {
    "Run": "cifarml.run",
    "CifarMLError": "cifarml.errors",
    "Dataset": "cifarml.data.dataset",
    "LocalHost": "cifarml.deploy.local.host",
    "LocalRegistry": "cifarml.registry.local.registry",
    "Prediction": "cifarml.predict",
    "Predictor": "cifarml.predict",
    "TrainConfig": "cifarml.train.config",
    "build_model": "cifarml.model.presets",
    "check_source": "cifarml.data.check",
    "compare_models": "cifarml.registry.promotion",
    "compare_runs": "cifarml.evaluation.compare_runs",
    "confusion_matrix": "cifarml.report.plots",
    "decode_image": "cifarml.images",
    "deploy_model": "cifarml.deploy.rollout",
    "evaluate_model": "cifarml.evaluation.evaluate",
    "explain_image": "cifarml.explain.gradcam",
    "explanation_figure": "cifarml.explain.drawing",
    "learning_curves": "cifarml.report.plots",
    "live_plot": "cifarml.report.live_plot",
    "load_dataset": "cifarml.data.load",
    "image_grid": "cifarml.report.image_grids",
    "prediction_grid": "cifarml.report.image_grids",
    "promote_if_better": "cifarml.registry.promotion",
    "reliability_diagram": "cifarml.report.reliability_diagram",
    "resume_training": "cifarml.train.trainer",
    "show_progress": "cifarml.progress",
    "train_model": "cifarml.train.trainer",
    "tune_model": "cifarml.tune.search",
}

__all__ = [
    "CifarMLError",
    "Dataset",
    "LocalHost",
    "LocalRegistry",
    "Prediction",
    "Predictor",
    "Run",
    "TrainConfig",
    "build_model",
    "check_source",
    "compare_models",
    "compare_runs",
    "confusion_matrix",
    "decode_image",
    "deploy_model",
    "evaluate_model",
    "explain_image",
    "explanation_figure",
    "image_grid",
    "learning_curves",
    "live_plot",
    "load_dataset",
    "prediction_grid",
    "promote_if_better",
    "reliability_diagram",
    "resume_training",
    "show_progress",
    "train_model",
    "tune_model",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from cifarml.extras import explain_missing_extra

        with explain_missing_extra():
            return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'cifarml' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
