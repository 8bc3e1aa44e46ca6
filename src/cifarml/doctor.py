"""Diagnostic checks of this machine and of Azure, each with a hint."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from cifarml.environment import SUSPECTS, check_native_flags, variables_of_libraries
from cifarml.errors import CifarMLError, SettingsError
from cifarml.hardware.devices import Memory, cpu_features, has_nvidia_driver, measure_memory
from cifarml.registry.local.mlflow_mirror import mirror_failure
from cifarml.settings import Settings, describe_settings, load_settings

_GB: Final = 1e9
_RECREATE_HINT: Final = "move mlflow.db out of registry_dir; the next training creates a new one"
_PROBE = """
import json, tempfile, time
from cifarml.environment import explain_environment
from cifarml.errors import CifarMLError
from cifarml.extras import explain_missing_extra

def report(**found):
    print(json.dumps(found), flush=True)

try:
    with explain_missing_extra(), explain_environment(), tempfile.TemporaryDirectory() as folder:
        import tensorflow
        from cifarml import TrainConfig, load_dataset, train_model
        from cifarml.hardware.devices import describe_environment
        from cifarml.settings import Settings
        report(**describe_environment())
        started = time.perf_counter()
        images = load_dataset("drawn:40", settings=Settings.model_construct())  # they are checked already
        train_model(TrainConfig(num_epochs=1, widths=(8,)), images, folder + "/run")
        report(training_s=time.perf_counter() - started)
except CifarMLError as error:
    report(problem=error.message, hint=error.hint)
"""
"""Prints the environment, and then how long a small training took; instead of either, a problem."""


class Check(NamedTuple):
    """Result of one check; ``hint`` says how to fix a problem."""

    name: str
    status: Literal["ok", "warning", "problem"]
    message: str
    hint: str | None = None


def run_checks(
    settings: Settings | None = None,
    *,
    target: str | None = None,
    on_check: Callable[[Check], None] = lambda _: None,
) -> list[Check]:
    """Check Python, settings, disk, memory, TensorFlow, processors, a training, and permissions in Azure.

    Args:
        settings: The settings to use. By default they are loaded; if that fails, the failure is a check with
            the status "problem".
        target: ``"azure"`` includes the Azure ML workspace, ``"local"`` skips it; by default it is checked if
            one is set.
        on_check: Called with each check when it is done; the slow ones come last.

    Returns:
        All checks; problems are reported, never raised.

    Example:
        >>> [check.name for check in run_checks() if check.status == "problem"]  # doctest: +SKIP
        []
    """
    checks = []
    for check in _checks(settings, target):
        on_check(check)
        checks.append(check)
    return checks


def _checks(settings: Settings | None, target: str | None) -> Iterator[Check]:
    yield _check_python(sys.version_info[:2])
    found: Settings | None = settings
    if settings is None:
        try:
            found = load_settings()
            yield _check_origins()
        except SettingsError as error:
            yield Check("settings", "problem", error.message, error.hint)
    if found:
        for name in ("cache_dir", "runs_dir", "registry_dir"):
            yield _check_folder(name, getattr(found, name))
        if failure := mirror_failure(found.registry_dir):
            yield Check("mlflow", "warning", f"the MLflow copy is out of date: {failure}", _RECREATE_HINT)
    yield _check_memory(measure_memory())
    yield from _check_training()
    if found:
        yield from _check_cloud("storage", _check_storage(found))
        if (target or found.effective_target) == "azure":
            yield from _check_cloud("azure", _check_workspace(found))


def _check_python(version: tuple[int, ...]) -> Check:
    if (3, 11) <= version <= (3, 13):
        return Check("python", "ok", platform.python_version())
    return Check(
        "python",
        "problem",
        f"{'.'.join(map(str, version))} is not supported",
        "install Python 3.11, 3.12 or 3.13, and recreate the environment",
    )


def _check_origins() -> Check:
    places = {each.origin.partition(" ")[0] if each.origin.startswith("environment ") else each.origin
              for each in describe_settings() if each.origin != "default"}  # fmt: skip
    return Check("settings", "ok", f"from {', '.join(sorted(places))}" if places else "the defaults")


def _check_folder(name: str, folder: Path) -> Check:
    """Check that a folder, or its nearest existing parent, is writable and has free space."""
    hint = f"set CIFARML_{name.upper()} to another folder"
    try:
        folder = folder.absolute()
        there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        with tempfile.TemporaryFile(dir=there):
            pass
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Check(name, "problem", f"can't write to {folder}: {error.strerror}", hint)
    return _check_room(name, folder, free)


def _check_room(name: str, folder: Path, free_bytes: int) -> Check:
    message = f"{folder}, {free_bytes / _GB:,.1f} GB free"
    if free_bytes >= 5 * _GB:
        return Check(name, "ok", message)
    hint = f"free some space, or set CIFARML_{name.upper()} to another folder"
    return Check(name, "problem" if free_bytes < 0.5 * _GB else "warning", message, hint)


def _check_memory(memory: Memory | None) -> Check:
    if memory is None:
        return Check("memory", "ok", "unknown on this system")
    message = f"{memory.total / _GB:,.1f} GB, {memory.free / _GB:,.1f} GB free"
    if memory.free >= 2 * _GB:
        return Check("memory", "ok", message)
    return Check("memory", "warning", message, "close other programs; training takes about 2 GB")


def _check_training() -> Iterator[Check]:
    """Import TensorFlow and train a small network, in a child process, since native code can crash it."""
    try:
        check_native_flags()
    except SettingsError as error:
        yield Check("tensorflow", "problem", error.message, error.hint)
        return
    lines, failure = _run_probe()
    environment = lines[0] if lines and "packages" in lines[0] else None
    if environment is None:
        yield failure or Check("tensorflow", "problem", lines[-1]["problem"], lines[-1]["hint"])
        yield _check_processor([], cpu_features(), nvidia_driver=False)
        return
    packages = environment["packages"]
    yield Check(
        "tensorflow",
        "ok",
        f"{packages['tensorflow']}, Keras {packages['keras']} on {environment['keras_backend']}",
    )
    yield _check_processor(environment["devices"], cpu_features(), nvidia_driver=has_nvidia_driver())
    if failure:
        yield failure._replace(name="training")
    elif "problem" in lines[-1]:
        yield Check("training", "problem", lines[-1]["problem"], lines[-1]["hint"])
    else:
        yield Check("training", "ok", f"trained a small network in {lines[-1]['training_s']:.0f} s")


def _run_probe() -> tuple[list[dict[str, Any]], Check | None]:
    """Return what the probe reports, and a check if it failed without an explanation."""
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter, with a constant script
            [sys.executable, "-P", "-c", _PROBE],
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=300,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [], Check("tensorflow", "problem", "a small training took over five minutes", "try again")
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode == 0:
        return lines, None
    reason = f"killed by signal {-done.returncode}" if done.returncode < 0 else "no error message"
    if written := [
        line for line in done.stderr.splitlines() if line.strip() and not line.startswith(SUSPECTS)
    ]:
        last = written[-1].strip()[:300]
        reason = f"{reason}: {last}" if done.returncode < 0 else last
    what = "a small training fails" if lines else "can't be imported"
    hint = "reinstall it: uv sync --inexact --locked"
    if suspects := variables_of_libraries():
        hint = f"try without these variables: env -u {' -u '.join(suspects)} cifarml doctor"
    elif lines:
        hint = "see the whole error: cifarml train --data drawn:40 --epochs 1"
    return lines, Check("tensorflow", "problem", f"{what}: {reason}", hint)


def _check_processor(devices: list[str], features: tuple[str, ...] | None, *, nvidia_driver: bool) -> Check:
    gpus = [device for device in devices if not device.startswith("cpu")]
    if gpus:
        return Check("processor", "ok", f"trains on {', '.join(gpus)}")
    cores = f"no GPU; {os.cpu_count()} processor cores"
    message = f"{cores} with {', '.join(features)}" if features else cores
    if nvidia_driver:
        return Check(
            "processor",
            "warning",
            f"TensorFlow can't use the NVIDIA GPU; {os.cpu_count()} processor cores",
            "install the GPU libraries: uv sync --inexact --extra gpu",
        )
    if platform.machine().lower() in {"x86_64", "amd64"} and features is not None and "avx" not in features:
        return Check(
            "processor",
            "problem",
            f"{message}; TensorFlow requires AVX",
            "use another machine; on a virtual one, expose the host's processor to it",
        )
    return Check("processor", "ok", message)


def _check_storage(settings: Settings) -> Iterator[Check]:
    if settings.storage_account is None and settings.storage_connection_string is None:
        yield Check(
            "storage",
            "ok",
            "not configured; images are read from this machine",
            "to use Azure Storage, set AZURE_STORAGE_ACCOUNT to the account's name",
        )
        return
    from cifarml.data.blob.permissions import check_permissions  # imports azure, which is slow

    for right, refused in check_permissions(settings):
        yield _check_right(f"storage: {right}", refused, essential=right not in {"write", "delete"})


def _check_workspace(settings: Settings) -> Iterator[Check]:
    from cifarml.azure.permissions import check_workspace  # imports azure, which is slow
    from cifarml.azure.workspace import AzureWorkspace

    workspace = AzureWorkspace(settings)
    yield Check("azure", "ok", str(workspace))
    for what, refused in check_workspace(workspace):
        yield _check_right(f"azure: {what}", refused, essential=what in {"sign in", "workspace", "rights"})


def _check_right(name: str, refused: CifarMLError | None, *, essential: bool) -> Check:
    if refused is None:
        return Check(name, "ok", "allowed")
    return Check(name, "problem" if essential else "warning", refused.message, refused.hint)


def _check_cloud(area: str, checks: Iterator[Check]) -> Iterator[Check]:
    """Yield the checks; report an exception as a failed check."""
    try:
        yield from checks
    except CifarMLError as error:
        yield Check(area, "problem", error.message, error.hint)
    except ImportError as error:
        yield Check(area, "problem", f"can't be used: {error}", "uv sync --inexact --locked")
