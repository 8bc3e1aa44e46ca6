"""cifarml: from labelled pictures to a prediction, by command line or by import.

Importing this package imports nothing heavy; each name below is loaded when it is first used.

Example:
    >>> import cifarml
    >>> dataset = cifarml.load_dataset("drawn:200")
    >>> config = cifarml.TrainConfig(num_epochs=1)
    >>> bundle = cifarml.train_model(config, dataset, "runs/first")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cifarml.bundle import Bundle
    from cifarml.data.check import check_source
    from cifarml.data.dataset import Dataset
    from cifarml.data.load import load_dataset
    from cifarml.deploy.local import LocalHost
    from cifarml.deploy.rollout import deploy_model
    from cifarml.errors import CifarMLError
    from cifarml.evaluate import evaluate_model
    from cifarml.explain.drawing import explanation_figure
    from cifarml.explain.gradcam import explain_picture
    from cifarml.images import decode_picture
    from cifarml.model import build_model
    from cifarml.predict import Prediction, Predictor
    from cifarml.progress import show_progress
    from cifarml.registry.compare import compare_models, promote_if_better
    from cifarml.registry.local import LocalRegistry
    from cifarml.run_comparison import compare_runs
    from cifarml.train.config import TrainConfig
    from cifarml.train.grids import picture_grid, prediction_grid
    from cifarml.train.live import live_plot
    from cifarml.train.reliability import reliability_diagram
    from cifarml.train.report import confusion_matrix, learning_curves
    from cifarml.train.trainer import resume_training, train_model
    from cifarml.train.tune import tune_model

_HOME = {
    "Bundle": "cifarml.bundle",
    "CifarMLError": "cifarml.errors",
    "Dataset": "cifarml.data.dataset",
    "LocalHost": "cifarml.deploy.local",
    "LocalRegistry": "cifarml.registry.local",
    "Prediction": "cifarml.predict",
    "Predictor": "cifarml.predict",
    "TrainConfig": "cifarml.train.config",
    "build_model": "cifarml.model",
    "check_source": "cifarml.data.check",
    "compare_models": "cifarml.registry.compare",
    "compare_runs": "cifarml.run_comparison",
    "confusion_matrix": "cifarml.train.report",
    "decode_picture": "cifarml.images",
    "deploy_model": "cifarml.deploy.rollout",
    "evaluate_model": "cifarml.evaluate",
    "explain_picture": "cifarml.explain.gradcam",
    "explanation_figure": "cifarml.explain.drawing",
    "learning_curves": "cifarml.train.report",
    "live_plot": "cifarml.train.live",
    "load_dataset": "cifarml.data.load",
    "picture_grid": "cifarml.train.grids",
    "prediction_grid": "cifarml.train.grids",
    "promote_if_better": "cifarml.registry.compare",
    "reliability_diagram": "cifarml.train.reliability",
    "resume_training": "cifarml.train.trainer",
    "show_progress": "cifarml.progress",
    "train_model": "cifarml.train.trainer",
    "tune_model": "cifarml.train.tune",
}

__all__ = [
    "Bundle",
    "CifarMLError",
    "Dataset",
    "LocalHost",
    "LocalRegistry",
    "Prediction",
    "Predictor",
    "TrainConfig",
    "build_model",
    "check_source",
    "compare_models",
    "compare_runs",
    "confusion_matrix",
    "decode_picture",
    "deploy_model",
    "evaluate_model",
    "explain_picture",
    "explanation_figure",
    "learning_curves",
    "live_plot",
    "load_dataset",
    "picture_grid",
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
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'cifarml' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
