"""Training cost by number of images: ``python -m tests.benchmarks scale``."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

from tests.benchmarks.pairs import LARGE
from tests.benchmarks.training.command import line, run_program, table, train

SIZES = [int(size) for size in os.environ.get("CIFARML_BENCHMARK_SIZES", "2000,10000,50000").split(",")]
ROUNDS = int(os.environ.get("CIFARML_BENCHMARK_ROUNDS", "3"))


def scale(work: Path) -> None:
    """Time per image with the same recipe, and the peak memory for 50,000 images."""
    times: dict[int, list[float]] = {size: [] for size in SIZES}
    table("images", "round", "time per image")
    for number in range(ROUNDS):
        for size in SIZES:
            times[size].append(_ms_an_image(work, size))
            line(f"{size:,}", number + 1, f"{times[size][-1]:.3f} ms")
    ratios = [
        max(each) / min(each)
        for each in zip(*times.values(), strict=True)  # of each round
    ]
    print(
        f"\nHighest time per image of a round relative to the lowest: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f}-{max(ratios):.2f}; bar 1.15).",
        flush=True,
    )
    run = train(work, "--data", LARGE, "--epochs", 1)
    print(f"Peak memory of `cifarml train` for 50,000 images: {run.peak_bytes / 1e9:.2f} GB (bar 2.5).")


def _ms_an_image(work: Path, size: int) -> float:
    return float(run_program("steady", LARGE, size, max(SIZES), work=work))
