"""Training step of cifarml against PyTorch's, alternately: ``python -m tests.benchmarks step``."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.benchmarks.training.pytorch import pytorch_python

HERE = Path(__file__).parent
NETWORKS = (("64/256/256", 128, 16), ("32/128/128", 256, 24), ("16/64/64", 128, 120))
"""Widths, batch size, and steps per round: about four seconds on two cores."""
ROUNDS = int(os.environ.get("CIFARML_BENCHMARK_ROUNDS", "9"))


class Side:
    """One side of a comparison: a warm process that times a round of training on request."""

    def __init__(self, command: list[object]) -> None:
        self._process = subprocess.Popen(
            list(map(str, command)),
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.says = self._read().removeprefix("ready: ")

    @classmethod
    def ours(
        cls,
        preset: str,
        widths: str,
        batch_size: int,
        num_steps: int,
        *,
        few: bool = True,
        feed: str = "ready",
    ) -> Side:
        """Start ``fit`` of a preset, as in ``cifarml train``."""
        module = "tests.benchmarks.training.keras_step"
        num_images = 1_620 if few else 47_500
        return cls([sys.executable, "-m", module, preset, widths, batch_size, num_steps, num_images, feed])

    @classmethod
    def pytorch(cls, widths: str, batch_size: int, num_steps: int) -> Side:
        """Start the same training in PyTorch, in its own environment."""
        return cls([pytorch_python(), HERE / "torch_step.py", widths, batch_size, num_steps])

    def ms_an_image(self) -> float:
        """Train a round, and return milliseconds per image."""
        return self._train("")

    def waits(self) -> float:
        """Train a round, and return the share of its time that steps wait for their batches."""
        return self._train("waits")

    def _train(self, what: str) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return float(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        if text := self._process.stdout.readline():
            return text.strip()
        sys.exit(f"{self._process.args!r} ended with {self._process.wait()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its standard input, which ends it


def step(work: Path) -> None:
    """Milliseconds per image in training, for the same network and batch size."""
    print("\n| widths, batch | ours | PyTorch | ratio: median (spread) | bar |\n|---|---|---|---|---|")
    for widths, batch_size, num_steps in NETWORKS:
        ours, theirs = [], []
        with (
            Side.ours("fast", widths, batch_size, num_steps) as one,
            Side.pytorch(widths, batch_size, num_steps) as other,
        ):
            for _ in range(ROUNDS):
                ours.append(one.ms_an_image())
                theirs.append(other.ms_an_image())
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        medians = f"{statistics.median(ours):.2f} ms | {statistics.median(theirs):.2f} ms"
        print(
            f"| {widths}, {batch_size} ({one.says}; {other.says}) | {medians} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) | at most 1 |",
            flush=True,
        )


def waiting(work: Path) -> None:
    """Share of the time that steps wait for batches, and the overhead of the input pipeline.

    The overhead is relative to precomputed batches; it includes the CPU time of the thread that prepares
    batches.
    """
    columns = ("recipe", "waits: median (spread)", "bar", "prefetched", "precomputed", "overhead")
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for preset, few, batch_size, num_steps in (
        ("fast", True, 64, 90),
        ("fast", False, 256, 24),
        ("best", True, 128, 16),
        ("best", False, 256, 8),
    ):
        beside, before, waits = [], [], []
        with (
            Side.ours(preset, "-", batch_size, num_steps, few=few, feed="made") as one,
            Side.ours(preset, "-", batch_size, num_steps, few=few) as other,
        ):
            for _ in range(ROUNDS):
                beside.append(one.ms_an_image())
                before.append(other.ms_an_image())
                waits.append(one.waits())
        added = [1 - b / a for a, b in zip(beside, before, strict=True)]
        print(
            f"| {preset}, {'few' if few else 'many'} images "
            f"| {statistics.median(waits):.2%} ({min(waits):.2%}-{max(waits):.2%}) | under 5 % "
            f"| {statistics.median(beside):.2f} ms | {statistics.median(before):.2f} ms "
            f"| {statistics.median(added):.1%} ({min(added):.1%} to {max(added):.1%}) |",
            flush=True,
        )
