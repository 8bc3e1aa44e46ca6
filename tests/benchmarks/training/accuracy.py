"""Test accuracy of the presets within the article's training time or a multiple of it."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.pairs import LARGE, SMALL
from tests.benchmarks.training.command import (
    EPOCHS,
    SEEDS,
    article_seconds,
    line,
    spread,
    table,
    test_accuracy,
    train,
)

NUM_TRAIN = 47_500
"""2,500 of the 50,000 images are for validation, in the article's training too."""


def fast_full(work: Path) -> None:
    """Accuracy of ``fast`` on all images in a fortieth of the article's time."""
    _full(work, "fast", part=1 / 40, bar="at least 75.9 % in at most 1/40")


def full(work: Path) -> None:
    """Accuracy of ``best`` on all images in the article's time."""
    _full(work, "best", part=0.99, bar="at least 91 % in at most 1")


def fast_small(work: Path) -> None:
    """Accuracy of ``fast`` on 2000 images in the article's time for them."""
    _small(work, "fast", times=1.0, bar="at least 66 % in at most 1; both sources within 2 points")


def best_small(work: Path) -> None:
    """Accuracy of ``best`` on 2000 images in nine and a half times the article's time for them."""
    _small(work, "best", times=9.5, bar="at least 74 % in at most 10; both sources within 2 points")


def _full(work: Path, preset: str, *, part: float, bar: str) -> None:
    table("all images", "seed", "test accuracy", "time", "the article's time, scaled", "ratio")
    accuracies, ratios = [], []
    for seed in SEEDS:
        article_s = article_seconds(NUM_TRAIN)
        budget = ("--time-budget", f"{article_s * part:.1f}")
        run = train(work, "--data", LARGE, "--preset", preset, *budget, "--seed", seed)
        accuracies.append(run.info["test_accuracy"])
        ratios.append(run.info["training_s"] / article_s)
        seconds = f"{run.info['training_s']:.0f} s"
        line(preset, seed, f"{accuracies[-1]:.1%}", seconds, f"{article_s:.0f} s", f"{ratios[-1]:.4f}")
    line(preset, "mean (range)", spread(accuracies), "", "", f"{spread(ratios, '.4f')}; bar: {bar}")


def _small(work: Path, preset: str, *, times: float, bar: str) -> None:
    everything = ("--validation-fraction", 0)  # 1,800 to train on, as in the article
    table("2000 images", "seed", "test accuracy", "time", "the article's accuracy, time", "ratio")
    for name, source in (
        ("the article's", ("--data", SMALL)),
        ("others", ("--data", LARGE, "--subset", 2000, "--subset-seed", 1)),
    ):
        accuracies, ratios = [], []
        for seed in SEEDS:
            article = train(
                work, *source, *everything, "--preset", "tutorial", "--epochs", EPOCHS, "--seed", seed
            )
            article_s = article.info["training_s"]
            there = f"{test_accuracy(work, article.path):.1%}, {article_s:.0f} s"
            budget = ("--time-budget", f"{article_s * times:.1f}")
            run = train(work, *source, *everything, "--preset", preset, *budget, "--seed", seed)
            accuracies.append(test_accuracy(work, run.path))
            ratios.append(run.info["training_s"] / article_s)
            seconds = f"{run.info['training_s']:.0f} s"
            line(f"{preset}, {name}", seed, f"{accuracies[-1]:.1%}", seconds, there, f"{ratios[-1]:.2f}")
        line(f"{preset}, {name}", "mean (range)", spread(accuracies), "", "", spread(ratios, ".2f"))
    print(f"\nBar: {bar}.", flush=True)
