"""``python -m tests.benchmarks gpu``: all pictures on a GPU, everything that is compiled included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.pairs import LARGE
from tests.benchmarks.training.command import SEEDS, line, spread, table

EPOCHS = 35


def gpu(work: Path) -> None:
    """``best`` for 35 epochs, each seed in a process of its own; ``KERAS_BACKEND=jax`` for JAX."""
    table("on a GPU", "seed", "test accuracy", "time, compiling included", "pictures a second")
    accuracies, seconds = [], []
    for seed in SEEDS:
        command = [sys.executable, "-m", "tests.benchmarks.training.on_gpu", LARGE, "best", EPOCHS, seed]
        environment = os.environ | {"CIFARML_CACHE_DIR": str(work / "cache")}
        done = subprocess.run(
            list(map(str, command)), env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        found = json.loads(done.stdout.splitlines()[-1])
        accuracies.append(found["accuracy"])
        seconds.append(found["seconds"])
        what = f"best, {found['device']}, {found['precision']}"
        took = f"{found['seconds']:.1f} s"
        line(what, seed, f"{found['accuracy']:.1%}", took, f"{found['images_per_second']:,.0f}")
    line("best", "mean (range)", spread(accuracies), f"{spread(seconds, '.1f')} s", "bar: 91 % under 60 s")
