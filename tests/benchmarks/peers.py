"""Both sides of the comparisons, the peers as in their documentation; run as a program, it prints seconds."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


def article_load(folder: str) -> float:
    """Load with the article's loop (step 4d): listdir, open, asarray, append."""
    started = time.perf_counter()
    images = []
    for split in os.listdir(folder):  # noqa: PTH208
        for name in os.listdir(f"{folder}/{split}"):  # noqa: PTH208
            for file in os.listdir(f"{folder}/{split}/{name}"):  # noqa: PTH208
                images.append(np.asarray(Image.open(f"{folder}/{split}/{name}/{file}")))  # noqa: PERF401
    assert len(images) == 60_000
    return time.perf_counter() - started


def our_load(source: str) -> float:
    """Load with load_dataset, cached in CIFARML_CACHE_DIR."""
    from cifarml import load_dataset

    started = time.perf_counter()
    assert len(load_dataset(source)) == 60_000
    return time.perf_counter() - started


def article_train(source: str, epochs: str) -> float:
    """Train the article's network with model.fit on numpy arrays, on the same images as train_model."""
    import keras
    from keras import layers

    from cifarml import load_dataset

    splits = load_dataset(source).split()

    def arrays(part: Any) -> tuple[npt.NDArray[np.float32], Any]:
        return part.images.astype("float32") / 255, keras.utils.to_categorical(part.labels, 10)

    x_train, y_train = arrays(splits.train)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, (3, 3), padding="same", activation="relu"),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Dropout(0.25),
            layers.Conv2D(64, (3, 3), padding="same", activation="relu"),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    rate = keras.optimizers.schedules.InverseTimeDecay(1e-4, 1, 1e-6)
    model.compile(keras.optimizers.RMSprop(rate), loss="categorical_crossentropy", metrics=["accuracy"])
    started = time.perf_counter()
    model.fit(
        x_train,
        y_train,
        batch_size=32,
        epochs=int(epochs),
        validation_data=arrays(splits.validation),
        shuffle=True,
        verbose=0,
    )
    return time.perf_counter() - started


def our_train(source: str, epochs: str, run_dir: str) -> float:
    """Train with train_model and the progress of the command line; the same part is timed."""
    from cifarml import TrainConfig, load_dataset, show_progress, train_model

    with show_progress() as on_progress:
        config = TrainConfig(num_epochs=int(epochs))
        run = train_model(config, load_dataset(source), Path(run_dir), on_progress=on_progress)
    return float(run.info["training_s"])


def sdk_read_blob(container: str, target: str) -> float:
    """Download a blob with azure-storage-blob alone, unverified."""
    from azure.storage.blob import BlobClient

    connection = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
    started = time.perf_counter()
    with (
        BlobClient.from_connection_string(connection, container, "large.bin") as blob,
        Path(target).open("wb") as file,
    ):
        blob.download_blob(max_concurrency=8).readinto(file)
    return time.perf_counter() - started


def our_read_blob(container: str, target: str, name: str = "large.bin") -> float:
    """Download a blob with BlobStore, verified by hash and written atomically."""
    from cifarml.data.blob.store import BlobStore

    started = time.perf_counter()
    with BlobStore(f"az://{container}") as store:
        store.download([(name, Path(target))])
    return time.perf_counter() - started


def our_write_blob(container: str, path: str) -> float:
    """Upload a large file."""
    from cifarml.data.blob.transfer import upload_path

    started = time.perf_counter()
    upload_path(path, f"az://{container}/{Path(path).name}")
    return time.perf_counter() - started


def nothing() -> float:
    """Do nothing: the memory of the interpreter alone."""
    return 0.0


def peak_memory_bytes() -> int:
    """Return the peak memory of this process (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    seconds = globals()[sys.argv[1]](*sys.argv[2:])
    print(seconds, peak_memory_bytes())
