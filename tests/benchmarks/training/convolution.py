"""QuickConv2D against Keras' Conv2D in float32: ``python -m tests.benchmarks convolution``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

CONVOLUTIONS = (
    (15, 64, 256, True),
    (7, 256, 256, False),
    (7, 256, 256, True),
    (3, 256, 256, False),
    (15, 32, 128, True),
    (7, 128, 128, False),
    (7, 128, 128, True),
    (3, 128, 128, False),
)
"""Side of an image, channels in and out, and whether pooling follows: those of `best`, then of `fast`."""
NUM_IMAGES = 256
ROUNDS = 15


def convolution(work: Path) -> None:
    """Milliseconds per image of the forward and backward pass, pooling included."""
    print("\n| images, channels | ours | Keras' | ratio: median (spread) |\n|---|---|---|---|")
    for side, channels, filters, pooled in CONVOLUTIONS:
        ours, theirs = _sides(side, channels, filters, pooled=pooled)
        seconds: tuple[list[float], list[float]] = [], []
        for _ in range(ROUNDS):
            for took, run in zip(seconds, (ours, theirs), strict=True):
                started = time.perf_counter()
                run()
                took.append(time.perf_counter() - started)
        ratios = [one / other for one, other in zip(*seconds, strict=True)]
        one, other = (f"{1000 * statistics.median(took) / NUM_IMAGES:.2f} ms" for took in seconds)
        print(
            f"| {side}x{side}, {channels} to {filters}{', pooled' if pooled else ''} | {one} | {other} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) |",
            flush=True,
        )


def _sides(
    side: int, channels: int, filters: int, *, pooled: bool
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return two compiled functions that compute the same."""
    import keras
    import tensorflow as tf

    from cifarml.model.layers import QuickConv2D

    settings = {"padding": "same", "use_bias": False, "dtype": "float32"}
    ours = keras.Sequential([QuickConv2D(filters, 3, pooled=pooled, **settings)])
    theirs = keras.Sequential([keras.layers.Conv2D(filters, 3, **settings)])
    if pooled:
        theirs.add(keras.layers.MaxPooling2D(dtype="float32"))
    images = tf.random.stateless_normal((NUM_IMAGES, side, side, channels), seed=(0, 0))

    def prepared(network: keras.Sequential) -> Callable[[], object]:
        network.build(images.shape)

        @tf.function  # type: ignore[untyped-decorator]
        def run() -> object:
            with tf.GradientTape() as tape:
                tape.watch(images)
                outputs = network(images)
            return tape.gradient(outputs, [images, network.trainable_variables[0].value])

        for _ in range(2):
            run()
        return lambda: [each.numpy() for each in run()]

    return prepared(ours), prepared(theirs)
