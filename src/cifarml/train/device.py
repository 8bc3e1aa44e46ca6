"""What machine this is, for the record that every run keeps."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import keras

__all__ = ["describe_environment"]

_PACKAGES = ("cifarml", "keras", "tensorflow", "jax", "numpy", "pillow", "onnx", "onnxruntime", "tf2onnx")


def describe_environment() -> dict[str, object]:
    """Return versions, machine and devices, as plain JSON values; nothing that names a person."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "keras_backend": keras.config.backend(),
        "devices": keras.distribution.list_devices(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
