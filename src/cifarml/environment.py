"""Settings of other tools that reach in: environment variables, and the keras.json of the user.

The command line calls :func:`shield_environment` first, which replaces what it has to choose itself. For
whatever is left, and in Python, where the process belongs to the user, :func:`explain_environment` turns the
failure of a library into an error that names the variable or file, and its value.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from cifarml.errors import SettingsError

BACKENDS: Final = ("tensorflow", "jax")
"""Backends of Keras that cifarml supports."""
SUSPECTS: Final = "Perhaps caused by:"
"""Start of the note on an error that lists the variables of libraries."""
_REPLACED: Final = {
    "MPLBACKEND": "agg",  # a notebook's backend can't be imported, or opens windows
    "KERAS_HOME": os.devnull,  # no keras.json is read or written
}
_REMOVED: Final = (
    "KERAS_MAX_EPOCHS",
    "KERAS_MAX_STEPS_PER_EPOCH",
    "KERAS_NNX_ENABLED",
    "PYTHONWARNINGS",  # also in child processes
    "SSLKEYLOGFILE",  # every TLS connection fails if the file can't be written
)
_NUMBERS: Final = (
    *("COLUMNS", "LINES", "TERMINAL_WIDTH"),  # Rich and Typer
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),  # TensorFlow aborts if they are negative
)
"""Variables that must be positive numbers to have an effect."""
_FLAGS: Final = ("XLA_FLAGS", "TF_XLA_FLAGS")
"""Variables whose unknown flags make native code end the process."""
_PLATFORMS: Final = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME")
_IGNORED_WARNINGS: Final = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
_KERAS_JSON: Final[dict[str, tuple[object, ...]]] = {
    "backend": BACKENDS,
    "floatx": ("float16", "float32", "float64"),
    "image_data_format": ("channels_last", "channels_first"),
}
_LIBRARIES: Final = {"keras", "tensorflow", "jax", "matplotlib", "onnxruntime", "numpy"}
_PREFIXES: Final = (
    *("KERAS_", "TF_", "XLA_", "JAX_", "CUDA_", "NVIDIA_", "OMP_", "KMP_", "MKL_", "OPENBLAS_", "ORT_"),
    *("MPL", "MATPLOTLIB", "LD_"),
)
_OWN: Final = {*_REPLACED, "TF_CPP_MIN_LOG_LEVEL", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_CLI_CONFIG_FILE"}
_USE_FLAGS: Final = """
import tensorflow as tf
tf.function(lambda x: x + x, jit_compile=True)(tf.constant(1.0))
"""


def shield_environment() -> None:
    """Replace settings of other tools that would change or break a command, in this process and its children.

    `KERAS_BACKEND` is the user's choice and stays.
    """
    os.environ.update(_REPLACED)
    for name in _REMOVED:
        os.environ.pop(name, None)
    for name in _NUMBERS:
        if not re.fullmatch("0*[1-9][0-9]{0,4}", os.environ.get(name, "1")):
            del os.environ[name]
    if sys.warnoptions:  # from PYTHONWARNINGS or -W: errors in the middle of a library
        sys.warnoptions.clear()
        warnings.resetwarnings()
        for category in _IGNORED_WARNINGS:
            warnings.simplefilter("ignore", category)


def check_native_flags() -> None:
    """Check the variables with flags for XLA, in a child process, since invalid ones end the process.

    Raises:
        SettingsError: If a flag is unknown.
    """
    if not any(os.environ.get(name) for name in _FLAGS):
        return
    done = subprocess.run(  # noqa: S603  # this interpreter, with a constant script
        [sys.executable, "-P", "-c", _USE_FLAGS],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        names = [name for name in _FLAGS if name in done.stderr] or [n for n in _FLAGS if n in os.environ]
        name = min(names, key=lambda each: done.stderr.rfind(f" in {each}:") < 0)
        raise _invalid(name, "contains a flag that XLA does not accept")


@contextmanager
def explain_environment() -> Iterator[None]:
    """Translate the failure of a library that an environment variable or keras.json has caused.

    Raises:
        SettingsError: If the block raises an exception in Keras, JAX or matplotlib, and a setting of that
            library is invalid.
    """
    try:
        yield
    except Exception as error:
        if found := _find_cause(error):
            raise found from error
        if (set_here := variables_of_libraries()) and _packages(error.__traceback__) & _LIBRARIES:
            error.add_note(f"{SUSPECTS} {', '.join(f'{n}={os.environ[n]!r:.100}' for n in set_here)}")
        raise


def variables_of_libraries() -> list[str]:
    """Return the names of the variables that are set for the libraries that cifarml is built on."""
    return sorted(name for name in os.environ if name.startswith(_PREFIXES) and name not in _OWN)


def check_backend(backend: str) -> None:
    """Check the name of the backend on which Keras runs.

    Raises:
        SettingsError: If cifarml does not support it.
    """
    if backend not in BACKENDS:
        raise _find_keras_cause() or SettingsError(
            f"Keras must run on {' or '.join(BACKENDS)}. Received: {backend!r}",
            hint="set KERAS_BACKEND=tensorflow before Keras is imported",
        )


def _find_cause(error: Exception) -> SettingsError | None:
    if isinstance(error, SettingsError):
        return None
    raising = _packages(error.__traceback__)
    if "keras" in raising and (found := _find_keras_cause()):
        return found
    named = next((name for name in variables_of_libraries() if name in str(error)), None)
    if "jax" in raising and "initialize backend" in str(error):
        named = next((name for name in _PLATFORMS if os.environ.get(name)), named)
    if named and raising & _LIBRARIES:
        return _invalid(named, f"can't be used ({str(error).strip().splitlines()[0]:.200})")
    if "matplotlib" in raising and "backend" in str(error) and "MPLBACKEND" in os.environ:
        return _invalid("MPLBACKEND", "is not a backend of matplotlib")
    return None


def _find_keras_cause() -> SettingsError | None:
    """Return the error for an invalid variable of Keras, or an invalid entry of keras.json."""
    backend = os.environ.get("KERAS_BACKEND", "")
    if backend and backend not in BACKENDS:
        return _invalid("KERAS_BACKEND", f"must be {' or '.join(BACKENDS)}")
    for name in _REMOVED[:2]:
        if not os.environ.get(name, "0").lstrip("-").isdecimal():
            return _invalid(name, "must be a number")
    path = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "keras.json"
    try:
        values: Any = json.loads(path.read_bytes())
    except (OSError, ValueError):  # Keras ignores such a file
        return None
    problem = None
    if not isinstance(values, dict):
        problem = f"must contain a JSON object. Received: {values!r:.60}"
    else:
        for name, allowed in _KERAS_JSON.items():
            if name == "backend" and backend:
                continue
            if name in values and values[name] not in allowed:
                problem = f"{name} must be {' or '.join(map(str, allowed))}. Received: {values[name]!r:.60}"
        if not isinstance(values.get("epsilon", 0.1), float):
            problem = f"epsilon must be a number such as 1e-07. Received: {values['epsilon']!r:.60}"
    return SettingsError(f"{path}: {problem}", hint=f"correct {path}, or delete it") if problem else None


def _invalid(name: str, problem: str) -> SettingsError:
    value = os.environ.get(name, "")
    return SettingsError(f"{name} {problem}. Received: {value!r:.100}", hint=f"unset {name}")


def _packages(traceback: TracebackType | None) -> set[str]:
    """Return the top-level packages whose code a traceback passes."""
    found = set()
    while traceback:
        found.add(str(traceback.tb_frame.f_globals.get("__name__", "")).partition(".")[0])
        traceback = traceback.tb_next
    return found
