"""Devices, precision and memory of this machine."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NamedTuple

from cifarml.errors import SettingsError

_PACKAGES = ("cifarml", "keras", "tensorflow", "jax", "numpy", "pillow", "onnx", "onnxruntime", "tf2onnx")
_FEATURES: Final = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")
"""Instruction sets of Intel, AMD and ARM that speed up networks."""


def describe_environment() -> dict[str, object]:
    """Return package versions, machine and devices as plain JSON values, without personal data."""
    import keras  # not at the top, since other functions must work without it

    grow_gpu_memory()  # before Keras initializes the devices
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "keras_backend": keras.config.backend(),
        "devices": keras.distribution.list_devices(),
        "packages": _versions(),
    }


def choose_devices(name: str = "auto") -> tuple[str, ...]:
    """Return the Keras names of the devices to train on.

    Args:
        name: ``auto`` (all devices of the best kind), a kind (``cpu``, ``gpu``), or devices by number, such
            as ``gpu:0`` or ``gpu:0,2``.

    Raises:
        SettingsError: If this machine has no such device.
    """
    import keras

    grow_gpu_memory()
    available = list_devices()
    kinds = list(dict.fromkeys(_kind(device) for device in available))
    if name == "auto":
        name = next((kind for kind in kinds if kind != "cpu"), "cpu")
    kind, some, numbers = name.lower().partition(":")
    wanted = [f"{kind}:{number}" for number in numbers.split(",")] if some else []
    chosen = tuple(dict.fromkeys(wanted or (device for device in available if _kind(device) == kind)))
    if not chosen or not set(chosen) <= set(available):
        backend = keras.config.backend()
        raise SettingsError(
            f"{backend} has no device {name!r}. Available devices: {', '.join(available)}",
            hint=f"use an available one: --device {kinds[-1]}; or check the machine with: cifarml doctor",
        )
    return chosen


def list_devices() -> list[str]:
    """Return the Keras names of all devices of this machine, such as ``cpu:0``."""
    import keras

    return [device.lower() for device in keras.distribution.list_devices()]


def _kind(device: str) -> str:
    return device.partition(":")[0]


def grow_gpu_memory() -> None:
    """Make TensorFlow allocate GPU memory as needed rather than all at once."""
    import keras

    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU"):
            with suppress(RuntimeError):  # TensorFlow is already initialized
                tf.config.experimental.set_memory_growth(gpu, True)


def choose_precision(devices: Sequence[str], features: tuple[str, ...] | None = None) -> str:
    """Return the Keras dtype policy that trains fastest on the devices without a loss of accuracy.

    A processor with bfloat16 instructions multiplies matrices about twice as fast in bfloat16, through
    oneDNN, which TensorFlow uses; NVIDIA GPUs support bfloat16 from compute capability 8 on, and float16
    from 7 on.
    """
    import keras

    if _kind(devices[0]) != "cpu":
        capability = min(_gpu(device).capability for device in devices)
        return "mixed_bfloat16" if capability >= 8 else "mixed_float16" if capability >= 7 else "float32"
    features = features if features is not None else cpu_features() or ()
    quick = keras.config.backend() == "tensorflow" and {"avx512_bf16", "amx_bf16"} & set(features)
    return "mixed_bfloat16" if quick else "float32"


def explain_precision(devices: Sequence[str], precision: str) -> str:
    """Return the reason for the result of :func:`choose_precision`, for display."""
    import keras

    kind = precision.removeprefix("mixed_")
    if _kind(devices[0]) != "cpu":
        return f"this GPU is fastest in {kind}"
    if kind == "bfloat16":
        return "this processor multiplies bfloat16 about twice as fast"
    if keras.config.backend() != "tensorflow":
        return "on a CPU, bfloat16 is faster with TensorFlow only"
    return "this processor has no bfloat16 instructions"


class _Gpu(NamedTuple):
    name: str
    capability: float


def _gpu(device: str) -> _Gpu:
    """Return the name and compute capability of a GPU, such as ``NVIDIA H100 80GB HBM3`` and 9.0."""
    import keras

    number = int(device.partition(":")[2])
    if keras.config.backend() == "jax":
        import jax

        chip = next(chip for chip in jax.devices() if chip.id == number)
        return _Gpu(chip.device_kind, float(getattr(chip, "compute_capability", 0) or 0))
    import tensorflow as tf

    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[number])
    major, minor = details.get("compute_capability", (0, 0))
    return _Gpu(details.get("device_name", "GPU"), major + minor / 10)


def describe_machine(devices: Sequence[str]) -> str:
    """Describe the training devices in one line, such as ``AMD EPYC, 2 cores, avx512_bf16``.

    GPUs that are not used are listed in parentheses.
    """
    others = [device for device in list_devices() if device not in devices and _kind(device) != "cpu"]
    rest = f" ({', '.join(others)} not used)" if others else ""
    if _kind(devices[0]) != "cpu":
        names = Counter(_gpu(device).name for device in devices)
        return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in names.items()) + rest
    features = [name for name in cpu_features() or () if name in {"avx512_bf16", "amx_bf16", "bf16"}]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = [cpu_name(), f"{cores} core{'s' if cores > 1 else ''}", *features]
    if len(devices) > 1:
        parts.append(f"as {len(devices)} devices")
    return ", ".join(parts) + rest


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor, or its architecture if the name is unknown."""
    with suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...] | None:
    """Return the instruction sets of the processor that speed up training; None if unknown."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), None)
    return None if flags is None else tuple(name for name in _FEATURES if name in flags.split())


def has_nvidia_driver() -> bool:
    """Return whether an NVIDIA driver is loaded (on Linux)."""
    return Path("/proc/driver/nvidia/version").exists()


class Memory(NamedTuple):
    """Memory available to this process, in bytes: total and free."""

    total: int
    free: int


def measure_memory(
    meminfo: Path = Path("/proc/meminfo"), limit: Path = Path("/sys/fs/cgroup/memory.max")
) -> Memory | None:
    """Return the memory of the machine or container; None if unknown."""
    try:
        lines = dict(line.split(":") for line in meminfo.read_text(encoding="ascii").splitlines())
        total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, ValueError, LookupError):
        return None
    with suppress(OSError, ValueError):  # no container, or one without a limit
        total = min(total, int(limit.read_text(encoding="ascii")))
    return Memory(total, min(total, free))


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
