"""Out of memory, told so that a person knows what to try."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cifarml.errors import TrainingError

__all__ = ["explained_memory", "is_out_of_memory"]


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of Python, TensorFlow, JAX or CUDA says that memory is used up.

    TensorFlow has a class for it; JAX, XLA and CUDA say it in words only.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return True
    text = str(error)
    return "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()


@contextmanager
def explained_memory(batch_size: int, devices: Sequence[str]) -> Iterator[None]:
    """Turn such an error into one that names the batch size to try.

    Args:
        batch_size: Images in a step, over all devices.
        devices: What it is trained on.

    Raises:
        TrainingError: In place of whatever says that memory is used up.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, TrainingError) or not is_out_of_memory(error):
            raise
        smaller = f"--batch-size {batch_size // 2}" if batch_size > 1 else "another --device"
        raise TrainingError(
            f"there is not enough memory on {', '.join(devices)} for batches of {batch_size:,} images",
            hint=f"try smaller ones: {smaller}" if batch_size > 1 else f"try {smaller}",
        ) from error
