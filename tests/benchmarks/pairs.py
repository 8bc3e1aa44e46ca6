"""Paired comparisons: two sides run alternately, each in its own process."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

DATA = Path(os.environ.get("CIFARML_TEST_DATA", "."))
SMALL, LARGE = DATA / "2000pics_cifar10.zip", DATA / "cifar10-images.zip"


def peer(*arguments: object, cache: Path, **variables: str) -> tuple[float, int]:
    """Run one side of a comparison; return seconds and peak memory in bytes."""
    command = [sys.executable, "-m", "tests.benchmarks.peers", *map(str, arguments)]
    environment = os.environ | {"CIFARML_CACHE_DIR": str(cache)} | variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds, memory = done.stdout.split()[-2:]
    return float(seconds), int(memory)


def timed(command: list[object], **variables: str) -> float:
    """Run a command; return its wall-clock seconds."""
    started = time.perf_counter()
    subprocess.run(list(map(str, command)), env=os.environ | variables, capture_output=True, check=True)
    return time.perf_counter() - started


def row(what: str, ours: list[float], theirs: list[float], bar: str) -> None:
    """Print a line of the table: medians, and the median of the ratios of the pairs."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
    print(
        f"| {what} | {statistics.median(ours):.2f} s | {statistics.median(theirs):.2f} s "
        f"| {statistics.median(ratios):.2f} ({spread}) | {bar} |",
        flush=True,
    )
