"""A run: the folder that holds a trained model, its metrics, its plots and a manifest with their hashes.

The manifest is written last, so a folder without one is unfinished.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from cifarml.errors import ModelFileError

if TYPE_CHECKING:
    from cifarml.predict import Predictor

MANIFEST: Final = "manifest.json"
ONNX_MODEL: Final = "model.onnx"
KERAS_MODEL: Final = "model.keras"
_FORMAT: Final = "cifarml-run/1"
_MAX_MANIFEST_BYTES: Final = 2**20
_MAX_FILE_BYTES: Final = 2 * 2**30
_ALLOWED: Final = frozenset({".json", ".keras", ".onnx", ".png", ".html"})


@dataclasses.dataclass(frozen=True)
class Run:
    """Trained model on disk: a folder with the model, its metrics and the hash of each file.

    Args:
        path: The folder.
        class_names: The classes, in the order of the model's outputs.
        info: The manifest's other entries, such as preset, accuracy and data fingerprint.
        files: SHA-256 (hexadecimal) of each file by name.

    Example:
        >>> run = Run.open("runs/first")  # doctest: +SKIP
        >>> run.metrics["test_accuracy"]  # doctest: +SKIP
        0.715
        >>> run.predictor().predict("ship.png").label  # doctest: +SKIP
        'ship'
    """

    path: Path
    class_names: tuple[str, ...]
    info: Mapping[str, Any]
    files: Mapping[str, str]

    @classmethod
    def open(cls, source: RunLike) -> Run:
        """Open a run: read its manifest, and no other file.

        Args:
            source: Its folder, or a registered model, whose registry opens it. A run is returned as it is.

        Raises:
            ModelFileError: If there is no run, it is unfinished or damaged, or it contains a kind of file
                that does not belong in a run, such as .h5 files, pickles and programs.
            RegistryError: If the registered model does not exist, or can't be fetched.
        """
        if isinstance(source, Run):
            return source
        if not isinstance(source, str | os.PathLike):
            if hasattr(source, "open_run"):
                return source.open_run()
            raise ModelFileError(
                f"expected a run as a Run, the path of its folder or a RegisteredModel; "
                f"got {type(source).__name__}"
            )
        path = Path(source)
        if path.is_file():
            raise ModelFileError(
                f"{path} is a single file; a model is loaded from its run folder, which contains its hash",
                hint="list run folders with: cifarml runs list",
            )
        if not path.is_dir():
            raise ModelFileError(f"there is no run folder {path}", hint="list them with: cifarml runs list")
        run = cls._read_manifest(path)
        for entry in path.iterdir():
            if entry.is_symlink() or not entry.is_file() or entry.suffix.lower() not in _ALLOWED:
                raise ModelFileError(
                    f"{path}: {entry.name!r} has no place in a run folder, which contains only "
                    f"{', '.join(sorted(_ALLOWED))} files; nothing is loaded",
                    hint="only load models that you trust; move the file away if it is yours",
                )
        return run

    @classmethod
    def _read_manifest(cls, path: Path) -> Run:
        try:
            with (path / MANIFEST).open("rb") as file:
                manifest = json.loads(file.read(_MAX_MANIFEST_BYTES))
            if manifest.pop("format") != _FORMAT:
                raise ValueError(f"its format is not {_FORMAT}")
            names = tuple(manifest.pop("class_names"))
            files = dict(manifest.pop("files"))
            if not all(isinstance(text, str) for text in (*names, *files, *files.values())):
                raise ValueError("names and hashes must be strings")
            if any(Path(name).name != name for name in files):
                raise ValueError("it names files outside its folder")
        except FileNotFoundError:
            raise ModelFileError(
                f"the run in {path} is unfinished: it has no {MANIFEST}",
                hint="see how to resume it with: cifarml runs list",
            ) from None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ModelFileError(f"{path / MANIFEST} is damaged: {error or type(error).__name__}") from error
        return cls(path, names, manifest, files)

    def read(self, name: str) -> bytes:
        """Return the content of a file of the run, after checking its hash.

        Raises:
            ModelFileError: If it is missing or changed.
        """
        if name not in self.files:
            raise ModelFileError(f"the manifest of {self.path} lists no file {name}")
        try:
            if (size := (self.path / name).stat().st_size) > _MAX_FILE_BYTES:
                raise ModelFileError(f"{self.path / name} has {size:,} bytes, more than {_MAX_FILE_BYTES:,}")
            content = (self.path / name).read_bytes()
        except OSError as error:
            raise ModelFileError(f"can't read {self.path / name}: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != self.files[name]:
            raise ModelFileError(
                f"{self.path / name} was changed after training: its SHA-256 is not the manifest's",
                hint="train again, or copy the run folder again",
            )
        return content

    def read_json(self, name: str) -> Any:
        """Return the values in a JSON file of the run, after checking its hash.

        Raises:
            ModelFileError: If it is missing, changed or not JSON.
        """
        try:
            return json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise ModelFileError(f"{self.path / name} is not JSON: {error}") from error

    @property
    def metrics(self) -> Mapping[str, float]:
        """Final metrics, such as ``test_accuracy`` (0 to 1) and ``test_loss``: the manifest's numbers."""
        return {
            name: float(value)
            for name, value in self.info.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }

    def predictor(self, *, num_threads: int | None = None) -> Predictor:
        """Load the model for predictions.

        Args:
            num_threads: How many cores to use; all of them by default.

        Raises:
            ModelFileError: If the model is missing, changed or can't be loaded.
        """
        from cifarml.predict import Predictor  # numpy and ONNX Runtime

        try:
            return Predictor(self.read(ONNX_MODEL), self.class_names, num_threads=num_threads)
        except ModelFileError as error:
            raise ModelFileError(f"{self.path}: {error.message}", error.hint) from error

    @property
    def sha256(self) -> str:
        """SHA-256 (hexadecimal) of its class names, and of each file's name and hash."""
        content = json.dumps([self.class_names, sorted(self.files.items())])
        return hashlib.sha256(content.encode()).hexdigest()

    def verify(self) -> None:
        """Check the hash of every file; raise ModelFileError if one is missing or changed."""
        for name in self.files:
            self.read(name)


class _OpensRun(Protocol):
    """A registered model, which opens its run."""

    def open_run(self) -> Run: ...


RunLike: TypeAlias = Run | str | os.PathLike[str] | _OpensRun
"""A trained model: a :class:`Run`, the path of its folder, or a registered model."""


def write_json(path: Path, values: object) -> None:
    """Write a JSON file atomically: if the process is killed, the old file or the whole new one remains."""
    _write_partial(path, values).replace(path)


def write_manifest(
    path: Path,
    class_names: tuple[str, ...],
    info: Mapping[str, object],
    *,
    clear: Callable[[], None] = lambda: None,
) -> Run:
    """Finish a run: hash the files in its folder and write the manifest.

    ``clear`` removes what does not belong in a finished run. It is called when everything else is on disk,
    just before the manifest gets its name; if killed in between, :func:`finish_manifest` completes it.
    """
    entries = [entry for entry in sorted(path.iterdir()) if entry.is_file() and entry.name != MANIFEST]
    files = {entry.name: _hash_file(entry) for entry in entries}
    manifest = {"format": _FORMAT, **info, "class_names": class_names, "files": files}
    partial = _write_partial(path / MANIFEST, manifest)
    clear()
    with suppress(FileNotFoundError):  # another process has completed it
        partial.replace(path / MANIFEST)
    return Run.open(path)


def finish_manifest(path: Path, *, clear: Callable[[], None]) -> Run | None:
    """Finish a run whose writer was killed just before it renamed the manifest.

    Returns:
        The finished run, or None if more than that is missing.
    """
    partial = _partial_path(path / MANIFEST)
    try:
        files = json.loads(partial.read_bytes())["files"]
        if any(_hash_file(path / name) != expected for name, expected in files.items()):
            return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    clear()
    partial.replace(path / MANIFEST)
    return Run.open(path)


def _partial_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _write_partial(path: Path, values: object) -> Path:
    partial = _partial_path(path)
    with partial.open("w", encoding="utf-8") as file:
        json.dump(values, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    return partial


def _hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
