"""Comparison of two registered models, shown in a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cifarml.cli.console import note_ignored, print_table
from cifarml.cli.figures import figure_rows
from cifarml.cli.target import target_flag
from cifarml.progress import OnProgress, show_progress

if TYPE_CHECKING:
    from cifarml.data.dataset import Dataset
    from cifarml.evaluation.compare_models import Comparison
    from cifarml.registry.base import RegisteredModel
    from cifarml.registry.promotion_gate import GateCheck
    from cifarml.train.data_source import Source


@contextmanager
def test_images(source: Source, *, quiet: bool) -> Iterator[tuple[Dataset, OnProgress]]:
    """Load the test images of a source; yield them with a progress callback."""
    with show_progress(quiet=quiet) as on_progress:
        yield note_ignored(source.load(on_progress=on_progress)).test, on_progress


def compare_versions(
    first: RegisteredModel,
    second: RegisteredModel,
    source: Source,
    target: str | None,
    *,
    json: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Compare two versions on the test images of a source, print the result, and return it for JSON."""
    from cifarml.registry.promotion import compare_models
    from cifarml.registry.promotion_gate import check_gate

    with test_images(source, quiet=quiet) as (dataset, on_progress):
        comparison = compare_models(second.registry, first, second, dataset, on_progress=on_progress)
    checks = check_gate(comparison)
    if not json:
        print_comparison(comparison, checks)
        images = shlex.join(["--data", source.data, *source.flags])
        if all(check.holds for check in checks):
            print(f"Next: cifarml models promote {second} --if-better {images}{target_flag(target)}")
    return comparison.to_json() | {"checks": [check._asdict() for check in checks]}


def print_comparison(comparison: Comparison, checks: list[GateCheck]) -> None:
    """Print the metrics of two versions side by side, and the checks of the promotion gate."""
    first, second = comparison.first, comparison.second
    figures = figure_rows((first, second), comparison.class_counts)
    counts = [f"{count:,}" for count in comparison.class_counts.values()]
    counts = [*[""] * (len(figures) - len(counts)), *counts]
    rows = [(*row, count) for row, count in zip(figures, counts, strict=True)]
    title = f"{comparison.num_images:,} test images of {comparison.data}"
    print_table(title, ("", f"{first.name} ", f"{second.name} ", "images "), rows)
    print(comparison.gain_text)
    for check in checks:
        print(f"{'yes' if check.holds else 'no '}  {check.name}: {check.reason}")
    better = all(check.holds for check in checks)
    print(f"{second.name} is {'better' if better else 'not better'} than {first.name}")
