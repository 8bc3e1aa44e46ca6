"""Agreement of served and trained models for every preset: ``python -m tests.benchmarks onnx``."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.benchmarks.pairs import LARGE, SMALL
from tests.benchmarks.training.command import line, run_program, table

EPOCHS = os.environ.get("CIFARML_BENCHMARK_EPOCHS", "5")


def onnx(work: Path) -> None:
    """Largest difference in a probability, and the accuracies, on the 10,000 test images."""
    from cifarml.model.presets import PRESETS

    table(
        "preset, precision", "ONNX - Keras", "ONNX - as trained", "accuracy: ONNX, Keras, as trained", "bar"
    )
    for preset in PRESETS:
        file = work / f"{preset}.onnx"
        found = json.loads(run_program("agreement", preset, SMALL, LARGE, EPOCHS, file, work=work))
        line(
            f"{preset}, {found['precision']}",
            f"{found['keras']:.1g}",
            f"{found['trained']:.1g}",
            ", ".join(f"{share:.2%}" for share in found["accuracies"]),
            "1e-3, and 0.1 points",
        )
