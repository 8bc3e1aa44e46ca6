"""What machine this is: for the record that every run keeps, and for the doctor."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NamedTuple

__all__ = [
    "Memory",
    "choose_precision",
    "cpu_features",
    "describe_environment",
    "describe_machine",
    "has_nvidia_driver",
    "measure_memory",
]

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


def choose_precision(features: tuple[str, ...] | None = None) -> str:
    """Return the Keras dtype policy that trains fastest here without a loss of accuracy.

    A processor with bfloat16 instructions multiplies matrices about twice as fast in them, through oneDNN,
    which TensorFlow has; an NVIDIA chip has them from compute capability 8 on, and float16 from 7 on.

    Args:
        features: What the processor can do; asked of the system when left out.
    """
    import keras

    gpus = [name for name in keras.distribution.list_devices() if not name.startswith("cpu")]
    if gpus:
        return _gpu_precision()
    features = features if features is not None else cpu_features() or ()
    quick = keras.config.backend() == "tensorflow" and {"avx512_bf16", "amx_bf16"} & set(features)
    return "mixed_bfloat16" if quick else "float32"


def _gpu_precision() -> str:
    import keras

    if keras.config.backend() == "jax":
        import jax

        capability = float(getattr(jax.devices()[0], "compute_capability", 0) or 0)
    else:
        import tensorflow as tf

        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        capability = float(details.get("compute_capability", (0,))[0])
    return "mixed_bfloat16" if capability >= 8 else "mixed_float16" if capability >= 7 else "float32"


def describe_machine() -> str:
    """Say in one line what trains here, such as ``AMD EPYC, 2 cores, avx512_bf16``."""
    import keras

    gpus = [name for name in keras.distribution.list_devices() if not name.startswith("cpu")]
    if gpus:
        return f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}"
    features = [name for name in cpu_features() or () if name in {"avx512_bf16", "amx_bf16", "bf16"}]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ", ".join([cpu_name(), f"{cores} core{'s' if cores > 1 else ''}", *features])


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor, as far as the system tells."""
    with suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


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
