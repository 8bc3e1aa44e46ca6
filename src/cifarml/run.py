"""Run folder: a trained model, its metrics, its plots and a manifest with the hash of each file.

The manifest is written last, so a folder without one is unfinished.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from cifarml.errors import ModelFileError
from cifarml.paths import expand_home

if TYPE_CHECKING:
    from cifarml.predict import Predictor

MANIFEST: Final = "manifest.json"
ONNX_MODEL: Final = "model.onnx"
KERAS_MODEL: Final = "model.keras"
_FORMAT: Final = "cifarml-run/1"
_NEWER: Final = re.compile(r"cifarml-run/(?!1$)[1-9][\d.]{0,9}")
_MAX_MANIFEST_BYTES: Final = 2**20
_MAX_FILE_BYTES: Final = 2 * 2**30
_ALLOWED: Final = frozenset({".json", ".keras", ".onnx", ".png", ".html"})


@dataclasses.dataclass(frozen=True)
class Run:
    """Trained model on disk: a folder with the model, its metrics and the hash of each file.

    `train_model` returns one, and `Run.open` opens an existing folder.

    Args:
        path: The run folder.
        class_names: The classes, in the order of the model's outputs.
        info: Remaining entries of the manifest, such as the preset, accuracy and data fingerprint.
        files: SHA-256 (hexadecimal) of each file, by file name.

    Example:
        ```python
        run = Run.open("runs/first")
        print(run.metrics["test_accuracy"])
        print(run.predictor().predict("ship.png").label)
        ```
    """

    path: Path
    class_names: tuple[str, ...]
    info: Mapping[str, Any]
    files: Mapping[str, str]

    @classmethod
    def open(cls, source: RunLike) -> Run:
        """Open a run by reading its manifest; no other file is read.

        Args:
            source: Path of the run folder, or a registered model, which its registry fetches if necessary.
                A `Run` is returned unchanged.

        Returns:
            The run.

        Raises:
            ModelFileError: If there is no run folder, the run is unfinished or damaged, or the folder
                contains files that do not belong in it, such as .h5 files, pickles or programs.
            RegistryError: If the registered model does not exist, or can't be fetched.

        Example:
            ```python
            run = Run.open("runs/first")
            champion = Run.open(LocalRegistry().get("cifar10", "champion"))
            ```
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
        path = expand_home(source)
        if path.is_file():
            raise ModelFileError(
                f"{path} is a single file; expected a run folder, which contains the hash of the model",
                hint="list run folders with: cifarml runs list",
            )
        if not path.is_dir():
            raise ModelFileError(f"there is no run folder {path}", hint="list them with: cifarml runs list")
        run = cls._read_manifest(path)
        for entry in path.iterdir():
            if entry.is_symlink() or not entry.is_file() or entry.suffix.lower() not in _ALLOWED:
                raise ModelFileError(
                    f"{path}: {entry.name!r} is not allowed in a run folder, which may only contain "
                    f"{', '.join(sorted(_ALLOWED))} files; nothing was loaded",
                    hint="only load models that you trust; if the file is yours, move it elsewhere",
                )
        return run

    @classmethod
    def _read_manifest(cls, path: Path) -> Run:
        try:
            with (path / MANIFEST).open("rb") as file:
                manifest = json.loads(file.read(_MAX_MANIFEST_BYTES))
            found = manifest.pop("format")
            if isinstance(found, str) and _NEWER.fullmatch(found):
                raise newer_error(f"the run in {path}", f"its format is {found}, this one reads {_FORMAT}")
            if found != _FORMAT:
                raise ValueError(f"its format is not {_FORMAT}")
            names = tuple(manifest.pop("class_names"))
            files = dict(manifest.pop("files"))
            if not all(isinstance(text, str) for text in (*names, *files, *files.values())):
                raise ValueError("names and hashes must be strings")
            if any(Path(name).name != name for name in files):
                raise ValueError("it lists files outside its folder")
        except FileNotFoundError:
            raise ModelFileError(
                f"the run in {path} is unfinished: it has no {MANIFEST}",
                hint="see how to resume it with: cifarml runs list",
            ) from None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ModelFileError(f"{path / MANIFEST} is damaged: {error or type(error).__name__}") from error
        return cls(path, names, manifest, files)

    def read(self, name: str) -> bytes:
        """Read a file of the run and verify its hash.

        Args:
            name: File name, such as `"model.onnx"`.

        Returns:
            The content of the file.

        Raises:
            ModelFileError: If the file is missing, or was changed.
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
                f"{self.path / name} was changed after training: its SHA-256 differs from the manifest",
                hint="train again, or copy the run folder again",
            )
        return content

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the run and verify its hash.

        Args:
            name: File name, such as `"history.json"`.

        Returns:
            The parsed content.

        Raises:
            ModelFileError: If the file is missing, was changed, or is not valid JSON.
        """
        try:
            return json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise ModelFileError(f"{self.path / name} is not JSON: {error}") from error

    @property
    def metrics(self) -> Mapping[str, float]:
        """Final metrics: the numbers of the manifest, such as `test_accuracy` (0 to 1) and `test_loss`."""
        return {
            name: float(value)
            for name, value in self.info.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }

    def predictor(self, *, num_threads: int | None = None) -> Predictor:
        """Load the model for prediction.

        Args:
            num_threads: Number of cores to use. All by default.

        Returns:
            The loaded model.

        Raises:
            ModelFileError: If the model is missing, was changed or can't be loaded.
        """
        from cifarml.predict import Predictor  # imports numpy and ONNX Runtime

        try:
            return Predictor(self.read(ONNX_MODEL), self.class_names, num_threads=num_threads)
        except ModelFileError as error:
            raise ModelFileError(f"{self.path}: {error.message}", error.hint) from error

    @property
    def sha256(self) -> str:
        """SHA-256 (hexadecimal) of the class names and of the name and hash of each file."""
        content = json.dumps([self.class_names, sorted(self.files.items())])
        return hashlib.sha256(content.encode()).hexdigest()

    def verify(self) -> None:
        """Verify the hash of every file.

        Raises:
            ModelFileError: If a file is missing, or was changed.
        """
        for name in self.files:
            self.read(name)


class _OpensRun(Protocol):
    """Registered model, which can open its run."""

    def open_run(self) -> Run: ...


RunLike: TypeAlias = Run | str | os.PathLike[str] | _OpensRun
"""Trained model: a :class:`Run`, the path of a run folder, or a registered model."""


def newer_error(what: str, reason: str) -> ModelFileError:
    """Return the error for files that a newer version of cifarml has written."""
    error = ModelFileError(
        f"{what} was written by a newer version of cifarml: {reason}", hint="pip install --upgrade cifarml"
    )
    error.newer = True
    return error


def write_json(path: Path, values: object) -> None:
    """Write a JSON file atomically, so that a killed process leaves either the old or the new content."""
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
    just before the manifest is renamed; if the process is killed in between, :func:`finish_manifest`
    completes the run.
    """
    entries = [entry for entry in sorted(path.iterdir()) if entry.is_file() and entry.name != MANIFEST]
    files = {entry.name: _hash_file(entry) for entry in entries}
    manifest = {"format": _FORMAT, **info, "class_names": class_names, "files": files}
    partial = _write_partial(path / MANIFEST, manifest)
    clear()
    with suppress(FileNotFoundError):  # another process has completed the run
        partial.replace(path / MANIFEST)
    return Run.open(path)


def finish_manifest(path: Path, *, clear: Callable[[], None]) -> Run | None:
    """Finish a run whose writer was killed just before renaming the manifest.

    Returns:
        The finished run, or None if more than the renaming is missing.
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
