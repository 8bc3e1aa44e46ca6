"""Lazy imports: heavy packages are imported only when they are needed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

import cifarml
from cifarml import Run
from tests.image_files import image_bytes
from tests.processes import run_on

HEAVY = {
    "tensorflow",
    "keras",
    "azure",
    "mlflow",
    "numpy",
    "PIL",
    "onnxruntime",
    "matplotlib",
    "requests",
    "optuna",
}

LOADED = """
import sys
{code}
print(*sorted({{name.partition(".")[0] for name in sys.modules}} & {heavy!r}))
"""


def loaded(python: Callable[[str], str], code: str) -> set[str]:
    return set(python(LOADED.format(code=code, heavy=HEAVY)).splitlines()[-1].split())


def test_importing_loads_nothing_heavy(python: Callable[[str], str]) -> None:
    assert loaded(python, "import cifarml, cifarml.cli.main, cifarml.train") == set()


def test_importing_azure_modules_loads_no_azure_sdk(python: Callable[[str], str]) -> None:
    modules = "cifarml.deploy, cifarml.deploy.azure.host, cifarml.registry.azure.registry"
    assert "azure" not in loaded(python, f"import {modules}")


COMMANDS = (
    "",
    "train",
    "tune",
    "evaluate",
    "predict",
    "quickstart",
    "data",
    "data show",
    "data check",
    "runs",
    "runs list",
    "runs compare",
    "explain",
    "config show",
    "doctor",
    "models list",
    "deploy",
    "endpoint list",
    "endpoint logs",
    "compute create",
    "jobs list",
    "down",
    "serve",
)


def test_help_loads_nothing_heavy(python: Callable[[str], str]) -> None:
    """All commands run in one process, since modules are never unloaded."""
    code = f"""
from cifarml.cli.main import main
for command in {COMMANDS!r}:
    sys.argv = ["cifarml", *command.split(), "--help"]
    try:
        main()
    except SystemExit as ended:
        assert ended.code == 0
    heavy = {{name.partition(".")[0] for name in sys.modules}} & {HEAVY!r}
    assert not heavy, (command, heavy)
"""
    assert loaded(python, code) == set()


def test_predict_loads_no_tensorflow(python: Callable[[str], str], trained: Run, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(image_bytes())
    code = f"""
sys.argv = ["cifarml", "predict", "image.png", "--run", {str(trained.path)!r}]
from cifarml.cli.main import main
try:
    main()
except SystemExit as ended:
    assert not ended.code
"""
    assert loaded(python, code) == {"numpy", "PIL", "onnxruntime"}


def test_evaluate_loads_no_tensorflow(python: Callable[[str], str], trained: Run) -> None:
    code = f"""
from cifarml import Run, evaluate_model, load_dataset
evaluate_model(Run.open({str(trained.path)!r}).predictor(), load_dataset("drawn:100"))
"""
    assert "tensorflow" not in loaded(python, code)


def test_training_loads_no_optuna() -> None:
    """Neither does any other module that the fork server has loaded."""
    code = "import sys\nfrom cifarml import train_model\nprint('optuna' in sys.modules)"
    assert run_on("tensorflow", code).strip() == "False"


def test_comparing_runs_loads_no_tensorflow(python: Callable[[str], str], trained: Run) -> None:
    code = f"""
sys.argv = ["cifarml", "runs", "compare", {str(trained.path)!r}, {str(trained.path)!r}]
from cifarml.cli.main import main
try:
    main()
except SystemExit as ended:
    assert not ended.code
"""
    assert not loaded(python, code) & {"tensorflow", "keras", "matplotlib"}


def test_importing_does_not_change_the_environment(python: Callable[[str], str]) -> None:
    code = """
import logging, os
before = dict(os.environ)
handlers = list(logging.root.handlers)
import cifarml.cli.main, cifarml.data, cifarml.predict, cifarml.train.config, cifarml.report.plots
assert dict(os.environ) == before
assert logging.root.handlers == handlers
"""
    python(code)


PUBLIC = [
    "AzureHost",
    "AzureRegistry",
    "AzureWorkspace",
    "BlobStore",
    "CifarMLError",
    "Dataset",
    "ImageLike",
    "LocalHost",
    "LocalRegistry",
    "Prediction",
    "Predictor",
    "Run",
    "TrainConfig",
    "__version__",
    "build_model",
    "check_dataset",
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


def test_every_public_name_can_be_imported() -> None:
    assert sorted(PUBLIC) == sorted(cifarml.__all__)
    for name in cifarml.__all__:
        assert getattr(cifarml, name) is not None
        assert name in dir(cifarml)
    with pytest.raises(AttributeError, match="nothing"):
        cifarml.nothing  # type: ignore[attr-defined]  # noqa: B018
    names: dict[str, object] = {}
    exec("from cifarml import *", names)
    assert set(PUBLIC) <= set(names)
    assert cifarml.__version__ == metadata.version("cifarml")


def test_python_version_is_supported() -> None:
    assert (3, 11) <= sys.version_info[:2] <= (3, 13)
