"""What machine this is: for the record that every run keeps, and for the doctor."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Memory", "cpu_features", "describe_environment", "has_nvidia_driver", "measure_memory"]

_PACKAGES = ("cifarml", "keras", "tensorflow", "jax", "numpy", "pillow", "onnx", "onnxruntime", "tf2onnx")
_FEATURES: Final = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")
"""What networks are quicker with, on Intel, AMD and ARM."""


def describe_environment() -> dict[str, object]:
    """Return versions, machine and devices, as plain JSON values; nothing that names a person."""
    import keras  # here, so that the rest answers where keras can't be imported

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "keras_backend": keras.config.backend(),
        "devices": keras.distribution.list_devices(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...] | None:
    """Return what the processor can do that makes training quicker; None where the system doesn't say."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), None)
    return None if flags is None else tuple(name for name in _FEATURES if name in flags.split())


def has_nvidia_driver() -> bool:
    """Tell whether an NVIDIA driver is at work (on Linux)."""
    return Path("/proc/driver/nvidia/version").exists()


class Memory(NamedTuple):
    """Memory in bytes: all that this process may use, and what is free of it."""

    total: int
    free: int


def measure_memory(
    meminfo: Path = Path("/proc/meminfo"), limit: Path = Path("/sys/fs/cgroup/memory.max")
) -> Memory | None:
    """Return the memory of the machine, or of the container this runs in; None where nobody says."""
    try:
        lines = dict(line.split(":") for line in meminfo.read_text(encoding="ascii").splitlines())
        total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, ValueError, LookupError):
        return None
    with suppress(OSError, ValueError):  # no container, or one without a limit
        total = min(total, int(limit.read_text(encoding="ascii")))
    return Memory(total, min(total, free))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
