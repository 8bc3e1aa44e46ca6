"""Print the tables of docs/benchmarks.md: ``python -m tests.benchmarks [loading] [training] ...``.

Requires CIFARML_TEST_DATA, a folder with 2000pics_cifar10.zip and cifar10-images.zip. Each comparison runs
the two sides alternately, each in its own process, and reports the median of the ratios of the pairs.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.azure import azure
from tests.benchmarks.pairs import LARGE, SMALL, peer, row, timed
from tests.benchmarks.serving.table import long_run, serving
from tests.benchmarks.storage import small_blobs, storage
from tests.benchmarks.training.accuracy import best_small, fast_full, fast_small, full
from tests.benchmarks.training.convolution import convolution
from tests.benchmarks.training.gpu import gpu
from tests.benchmarks.training.onnx import onnx
from tests.benchmarks.training.scale import scale
from tests.benchmarks.training.step import step, waiting

ARRAY_BYTES = 60_000 * 3072
CLI = Path(sys.executable).with_name("cifarml")


def loading(work: Path, pairs: int = 5) -> None:
    """First and second load of the 60,000 images, against the article's loop."""
    folder = work / "unpacked"
    with zipfile.ZipFile(LARGE) as archive:
        archive.extractall(folder)
    peer("article_load", folder, cache=work / "none")  # warms the file cache
    first, again, article, memory = [], [], [], []
    for number in range(pairs):
        cache = work / f"cache{number}"
        article.append(peer("article_load", folder, cache=cache)[0])
        first.append(peer("our_load", LARGE, cache=cache)[0])
        seconds, peak = peer("our_load", LARGE, cache=cache)
        again.append(seconds)
        memory.append(peak)
    row("60,000 images, first load, against the article's loop", first, article, "at most 0.33")
    row("60,000 images, second load, against the article's loop", again, article, "under 1 s")
    code = "import cifarml.data; from tests.benchmarks.peers import peak_memory_bytes as p; print(p())"
    empty = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    print(
        f"\nMemory of the second load over the imports: {(max(memory) - empty) / ARRAY_BYTES:.2f} times the "
        f"array of {ARRAY_BYTES / 1e6:.0f} MB (bar: at most 2)."
    )


def training(work: Path, pairs: int = 5, epochs: int = 5) -> None:
    """Training of the article's network on the 2000 images, against model.fit as in the article."""
    ours, article = [], []
    for number in range(pairs):
        ours.append(peer("our_train", SMALL, epochs, work / f"run{number}", cache=work / "cache")[0])
        article.append(peer("article_train", SMALL, epochs, cache=work / "cache")[0])
    row(f"training, {epochs} epochs, against model.fit", ours, article, "at most 1.1")


def answering(work: Path, pairs: int = 15) -> None:
    """Latency of ``cifarml predict``, process start included, against ``python -c "import numpy"``."""
    peer("our_train", "drawn:100", 1, work / "answering", cache=work / "cache")
    image = work / "image.png"
    with zipfile.ZipFile(SMALL) as archive:
        image.write_bytes(archive.read("ship_1.png"))

    ours, numpy = [], []
    for _ in range(pairs):
        ours.append(timed([CLI, "predict", image, "--run", work / "answering"]))
        numpy.append(timed([sys.executable, "-c", "import numpy"]))
    row("predict image.png, against import numpy", ours, numpy, "at most 8")


def drawing(work: Path, times: int = 5) -> None:
    """Generation of 2000 drawn images."""
    from cifarml import load_dataset

    seconds = []
    for seed in range(times):
        started = time.perf_counter()
        load_dataset(f"drawn:2000:{seed}")
        seconds.append(time.perf_counter() - started)
    print(f"\n2000 drawings: {statistics.median(seconds):.2f} s (bar: under 5 s).")


TABLES: dict[str, Callable[[Path], None]] = {
    "loading": loading,
    "training": training,
    "answering": answering,
    "drawing": drawing,
    "storage": storage,
    "small_blobs": small_blobs,
    "serving": serving,
    "long_run": long_run,
    "azure": azure,
    "step": step,
    "convolution": convolution,
    "waiting": waiting,
    "fast_full": fast_full,
    "full": full,
    "fast_small": fast_small,
    "best_small": best_small,
    "scale": scale,
    "onnx": onnx,
    "gpu": gpu,
}


def main() -> None:
    """Run the benchmarks named on the command line, or all."""
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}\n")
    print("| what | ours | theirs | ratio: median (spread) | bar |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or TABLES:
            TABLES[name](Path(folder))


if __name__ == "__main__":
    main()
