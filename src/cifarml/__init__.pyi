"""Public API of cifarml: every public name and the module that defines it.

Type checkers read this file, and ``__init__.py`` reads it to import a name on first use.
"""

from cifarml.azure.workspace import AzureWorkspace as AzureWorkspace
from cifarml.data.blob.store import BlobStore as BlobStore
from cifarml.data.check import check_dataset as check_dataset
from cifarml.data.check import check_source as check_source
from cifarml.data.dataset import Dataset as Dataset
from cifarml.data.load import load_dataset as load_dataset
from cifarml.deploy.azure.host import AzureHost as AzureHost
from cifarml.deploy.local.host import LocalHost as LocalHost
from cifarml.deploy.rollout import deploy_model as deploy_model
from cifarml.errors import CifarMLError as CifarMLError
from cifarml.evaluation.compare_runs import compare_runs as compare_runs
from cifarml.evaluation.evaluate import evaluate_model as evaluate_model
from cifarml.explain.drawing import explanation_figure as explanation_figure
from cifarml.explain.gradcam import explain_image as explain_image
from cifarml.images import ImageLike as ImageLike
from cifarml.images import decode_image as decode_image
from cifarml.model.presets import build_model as build_model
from cifarml.predict import Prediction as Prediction
from cifarml.predict import Predictor as Predictor
from cifarml.progress import show_progress as show_progress
from cifarml.registry.azure.registry import AzureRegistry as AzureRegistry
from cifarml.registry.local.registry import LocalRegistry as LocalRegistry
from cifarml.registry.promotion import compare_models as compare_models
from cifarml.registry.promotion import promote_if_better as promote_if_better
from cifarml.report.image_grids import image_grid as image_grid
from cifarml.report.image_grids import prediction_grid as prediction_grid
from cifarml.report.live_plot import live_plot as live_plot
from cifarml.report.plots import confusion_matrix as confusion_matrix
from cifarml.report.plots import learning_curves as learning_curves
from cifarml.report.reliability_diagram import reliability_diagram as reliability_diagram
from cifarml.run import Run as Run
from cifarml.train.config import TrainConfig as TrainConfig
from cifarml.train.trainer import resume_training as resume_training
from cifarml.train.trainer import train_model as train_model
from cifarml.tune.search import tune_model as tune_model

__all__: list[str]
__version__: str
