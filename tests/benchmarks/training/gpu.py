"""Training on all images on a GPU, compile time included: ``python -m tests.benchmarks gpu``."""

from __future__ import annotations

import json
from pathlib import Path

from cifarml.hardware.devices import has_nvidia_driver
from tests.benchmarks.pairs import LARGE
from tests.benchmarks.training.command import SEEDS, line, run_program, spread, table

EPOCHS = 35


def gpu(work: Path) -> None:
    """Train ``best`` for 35 epochs, each seed in its own process; ``KERAS_BACKEND=jax`` for JAX."""
    if not has_nvidia_driver():
        print("\nskipped: no NVIDIA GPU")
        return
    table("on a GPU", "seed", "test accuracy", "time, compiling included", "images/s")
    accuracies, seconds = [], []
    for seed in SEEDS:
        found = json.loads(run_program("on_gpu", LARGE, "best", EPOCHS, seed, work=work))
        accuracies.append(found["accuracy"])
        seconds.append(found["seconds"])
        what = f"best, {found['device']}, {found['precision']}"
        took = f"{found['seconds']:.1f} s"
        line(what, seed, f"{found['accuracy']:.1%}", took, f"{found['images_per_second']:,.0f}")
    line("best", "mean (range)", spread(accuracies), f"{spread(seconds, '.1f')} s", "bar: 91 % under 60 s")
