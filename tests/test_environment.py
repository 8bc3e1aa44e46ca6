"""Commands and functions with the settings of other tools in the environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifarml import Run
from cifarml.environment import check_backend, explain_environment, variables_of_libraries
from cifarml.errors import SettingsError
from tests.conftest import CommandLine, in_folder
from tests.processes import run_new

FOREIGN = {
    "MPLBACKEND": "module://matplotlib_inline_of_another_environment.backend_inline",
    "KERAS_MAX_EPOCHS": "1",
    "KERAS_MAX_STEPS_PER_EPOCH": "many",
    "PYTHONWARNINGS": "error",
    "SSLKEYLOGFILE": "/proc/nothing/keys",
    "COLUMNS": "wide",
    "TERMINAL_WIDTH": "wide",
    "TF_NUM_INTRAOP_THREADS": "-4",
    "TF_NUM_INTEROP_THREADS": "many",
    "OMP_NUM_THREADS": "nonsense",
    "CUDA_VISIBLE_DEVICES": "nonsense",
    "TF_CONFIG": "{",
    "TF_USE_LEGACY_KERAS": "1",
    "HTTP_PROXY": "nonsense",
    "NO_COLOR": "1",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii",
    "PYTHONOPTIMIZE": "2",
}
KERAS_JSON = {"backend": "torch", "image_data_format": "channels_first", "floatx": "float64", "epsilon": 0.5}


@pytest.fixture
def installed(tmp_path: Path) -> CommandLine:
    return in_folder(run_new, tmp_path)


def write_keras_json(home: Path, content: object) -> Path:
    path = home / ".keras" / "keras.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_foreign_settings_do_not_change_a_training(installed: CommandLine, tmp_path: Path) -> None:
    path = write_keras_json(tmp_path / "home", KERAS_JSON)
    before = path.read_bytes()
    done = installed(
        *("train", "drawn:40", "--preset", "tutorial", "--epochs", "2", "--name", "first", "--json"),
        env=FOREIGN | {"HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_epochs"] == 2
    run = Run.open(tmp_path / "runs" / "first")
    assert run.read_json("environment.json")["keras_backend"] == "tensorflow"
    assert path.read_bytes() == before
    shown = installed("train", "--help", env=FOREIGN | {"PYTHONOPTIMIZE": ""})
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KERAS_BACKEND", "torch"),
        pytest.param("KERAS_BACKEND", "nonsense", marks=pytest.mark.exhaustive),
        ("XLA_FLAGS", "--nonsense"),
        pytest.param("TF_XLA_FLAGS", "--nonsense", marks=pytest.mark.exhaustive),
    ],
)
def test_variable_that_prevents_training_is_named(
    installed: CommandLine, tmp_path: Path, name: str, value: str
) -> None:
    done = installed("train", "drawn:40", "--epochs", "1", env={name: value})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith(f"Error: {name} ")
    assert repr(value) in error
    assert hint == f"Hint: unset {name}"
    assert not (tmp_path / "runs").exists()
    doctor = installed("doctor", env={name: value})
    assert doctor.returncode == 1
    assert f"{name} " in doctor.stdout
    assert repr(value) in doctor.stdout


def test_variable_of_jax_is_named(installed: CommandLine) -> None:
    pytest.importorskip("jax")
    variables = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "nonsense"}
    done = installed("train", "drawn:40", "--epochs", "1", env=variables)
    assert "Error: JAX_PLATFORMS can't be used" in done.stderr
    assert "Traceback" not in done.stderr


API = """
import cifarml
try:
    cifarml.train_model
except cifarml.CifarMLError as error:
    print(type(error).__name__, error.message, error.hint, sep="\\n")
"""


def run_python(code: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KERAS_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | variables,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"backend": "torch"}, "backend must be tensorflow or jax. Received: 'torch'"),
        pytest.param(
            {"floatx": "float128"},
            "floatx must be float16 or float32 or float64. Received: 'float128'",
            marks=pytest.mark.exhaustive,
        ),
        pytest.param([1], "must contain a JSON object. Received: [1]", marks=pytest.mark.exhaustive),
    ],
)
def test_python_api_names_the_file_of_keras(tmp_path: Path, content: object, problem: str) -> None:
    path = write_keras_json(tmp_path, content)
    done = run_python(API, tmp_path, HOME=str(tmp_path))
    expected = ["SettingsError", f"{path}: {problem}", f"correct {path}, or delete it"]
    assert done.stdout.splitlines() == expected, done.stderr


@pytest.mark.parametrize(
    ("name", "value"), [("KERAS_BACKEND", "torch"), ("KERAS_MAX_EPOCHS", "x"), ("MPLBACKEND", "nonsense")]
)
def test_python_api_names_the_variable(tmp_path: Path, name: str, value: str) -> None:
    done = run_python(API, tmp_path, **{name: value})
    kind, message, hint = done.stdout.splitlines()
    assert kind == "SettingsError"
    assert message.startswith(f"{name} ")
    assert repr(value) in message
    assert hint == f"unset {name}"


def test_python_api_keeps_the_settings_of_the_user(tmp_path: Path) -> None:
    """Training with a channels_first keras.json, in a process with a plot backend, changes neither."""
    settings = {"image_data_format": "channels_first", "floatx": "float64", "epsilon": 0.5}
    write_keras_json(tmp_path, settings)
    code = """
import keras, matplotlib.pyplot
keras.config.set_dtype_policy("mixed_float16")
keras.config.set_max_epochs(1)
import cifarml
dataset = cifarml.load_dataset("drawn:40")
config = cifarml.TrainConfig(num_epochs=2, widths=(8,), precision="float32")
run = cifarml.train_model(config, dataset, "run")
assert run.info["num_epochs"] == 2
assert cifarml.build_model("tutorial").outputs[0].dtype == "float32"
assert cifarml.explain_image(run, dataset.images[0]).heat.ndim == 2
print(keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon())
print(keras.config.dtype_policy().name, keras.config.max_epochs(), matplotlib.get_backend())
"""
    done = run_python(code, tmp_path, HOME=str(tmp_path), MPLBACKEND="svg")
    expected = ["channels_first float64 0.5", "mixed_float16 1 svg"]
    assert done.stdout.splitlines() == expected, done.stderr


def test_other_errors_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that does not come from the library is not attributed to its variable."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(ValueError, match="ours"), explain_environment():
        raise ValueError("ours")
    with pytest.raises(SettingsError, match="KERAS_BACKEND must be tensorflow or jax"):
        check_backend("torch")
    assert "KERAS_BACKEND" in variables_of_libraries()
