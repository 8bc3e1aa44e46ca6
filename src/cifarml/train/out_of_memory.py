"""Detect and explain out-of-memory errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cifarml.errors import TrainingError


def is_out_of_memory(error: BaseException) -> bool:
    """Check whether an error of Python, TensorFlow, JAX or CUDA means out of memory.

    Python and TensorFlow have exception classes for it, which become messages when another thread raises
    them; JAX, XLA and CUDA report it in the message only.
    """
    text = f"{type(error).__name__} {error}"
    names = ("MemoryError", "ResourceExhausted", "RESOURCE_EXHAUSTED")
    return any(name in text for name in names) or "out of memory" in text.lower()


@contextmanager
def oom_hint(batch_size: int, devices: Sequence[str]) -> Iterator[None]:
    """Translate an out-of-memory error into one whose hint names a smaller batch size.

    Raises:
        TrainingError: If memory runs out.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, TrainingError) or not is_out_of_memory(error):
            raise
        smaller = f"smaller ones: --batch-size {batch_size // 2}" if batch_size > 1 else "another --device"
        raise TrainingError(
            f"there is not enough memory on {', '.join(devices)} for batches of {batch_size:,} images",
            hint=f"try {smaller}",
        ) from error
