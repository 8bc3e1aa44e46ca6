"""The command line in its own process, and the training time of the article's network."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.pairs import LARGE
from tests.benchmarks.training.step import Side

CLI = Path(sys.executable).with_name("cifarml")
SEEDS = [int(seed) for seed in os.environ.get("CIFARML_BENCHMARK_SEEDS", "0,1,2").split(",")]
EPOCHS = int(os.environ.get("CIFARML_BENCHMARK_EPOCHS", "30"))
TIMED_STEPS = 300


class Trained(NamedTuple):
    """A finished run: its folder, its manifest's info, and the peak memory of its process."""

    path: str
    info: dict[str, Any]
    peak_bytes: int


def train(work: Path, *flags: object) -> Trained:
    """Run ``cifarml train`` with these flags."""
    info, peak = _run("train", *flags, "--runs-dir", work / "runs", work=work)
    return Trained(info["path"], info, peak)


def test_accuracy(work: Path, run: str) -> float:
    """Return the accuracy of a run's exported model on the 10,000 test images."""
    result, _ = _run("evaluate", run, "--data", LARGE, work=work)
    assert result["num_images"] == 10_000
    return float(result["accuracy"])


def _run(*command: object, work: Path) -> tuple[dict[str, Any], int]:
    """Run a cifarml command; return its JSON output, and its peak memory in bytes (on Linux)."""
    variables = {
        "CIFARML_CACHE_DIR": str(work / "cache"),
        "CIFARML_REGISTRY_DIR": str(work / "registry"),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    with (work / "output").open("wb+") as output, (work / "errors").open("wb+") as errors:
        process = subprocess.Popen(
            list(map(str, (CLI, *command, "--json", "--quiet"))),
            env=os.environ | variables,
            stdout=output,
            stderr=errors,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.exit(f"cifarml {' '.join(map(str, command))}:\n{errors.read().decode()[-3000:]}")
        output.seek(0)
        return json.loads(output.read()), usage.ru_maxrss * 1024


def run_program(name: str, *arguments: object, work: Path) -> str:
    """Run a program of this folder; return the last line of its output."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.training.{name}", *map(str, arguments)],
        env=os.environ | {"CIFARML_CACHE_DIR": str(work / "cache"), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return done.stdout.splitlines()[-1]


def article_seconds(num_images: int) -> float:
    """Return the training time of the article's network for a number of images, scaled from 300 steps.

    The first steps, in which TensorFlow builds the graph, and validation passes are excluded.
    """
    with Side.ours("tutorial", "-", 32, TIMED_STEPS) as side:
        return side.ms_an_image() / 1000 * num_images * EPOCHS


def spread(values: list[float], form: str = ".1%") -> str:
    """Format the mean and the range."""
    return f"{statistics.mean(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def table(*titles: str) -> None:
    """Print the header of a table."""
    print(f"\n| {' | '.join(titles)} |\n|{'---|' * len(titles)}", flush=True)


def line(*cells: object) -> None:
    """Print a row of a table, and flush."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
