"""The run: a folder with a model, what is known about it, and the hash of each of its files.

Its manifest is written last, so a folder without one is plainly unfinished.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from cifarml.errors import ModelFileError

__all__ = ["MANIFEST", "ONNX_MODEL", "Run", "finish_manifest", "write_json", "write_manifest"]

MANIFEST: Final = "manifest.json"
ONNX_MODEL: Final = "model.onnx"
KERAS_MODEL: Final = "model.keras"
_FORMAT: Final = "cifarml-run/1"
_MAX_MANIFEST_BYTES: Final = 2**20
_MAX_FILE_BYTES: Final = 2 * 2**30
_ALLOWED: Final = frozenset({".json", ".keras", ".onnx", ".png", ".html"})


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run; opening one reads its manifest and nothing else.

    Args:
        path: The folder.
        class_names: What the model tells apart, in the order of its outputs.
        info: The manifest's other entries: preset, accuracy, data fingerprint and so on.
        files: SHA-256 (hexadecimal) of each file by name.
    """

    path: Path
    class_names: tuple[str, ...]
    info: Mapping[str, Any]
    files: Mapping[str, str]

    @classmethod
    def open(cls, path: Run | str | Path) -> Run:
        """Open the run in a folder; an open run is returned as it is.

        Raises:
            ModelFileError: If there is none, it is unfinished or damaged, or it holds a kind of file that
                has no place in one, such as .h5, pickles and programs.
        """
        if isinstance(path, Run):
            return path
        path = Path(path)
        if path.is_file():
            raise ModelFileError(
                f"{path} is a single file; a model is loaded from its run folder, where its hash stands",
                hint="list run folders with: cifarml runs list",
            )
        if not path.is_dir():
            raise ModelFileError(f"there is no run folder {path}", hint="list them with: cifarml runs list")
        run = cls._parse(path)
        for entry in path.iterdir():
            if entry.is_symlink() or not entry.is_file() or entry.suffix.lower() not in _ALLOWED:
                raise ModelFileError(
                    f"{path}: {entry.name!r} has no place in a run folder, which holds only "
                    f"{', '.join(sorted(_ALLOWED))} files; nothing is loaded",
                    hint="only load models that you trust; move that file away if it is yours",
                )
        return run

    @classmethod
    def _parse(cls, path: Path) -> Run:
        try:
            with (path / MANIFEST).open("rb") as file:
                manifest = json.loads(file.read(_MAX_MANIFEST_BYTES))
            if manifest.pop("format") != _FORMAT:
                raise ValueError(f"it is not of the format {_FORMAT}")
            names = tuple(manifest.pop("class_names"))
            files = dict(manifest.pop("files"))
            if not all(isinstance(text, str) for text in (*names, *files, *files.values())):
                raise ValueError("names and hashes must be texts")
            if any(Path(name).name != name for name in files):
                raise ValueError("it names files outside its folder")
        except FileNotFoundError:
            raise ModelFileError(
                f"the run in {path} is unfinished: it has no {MANIFEST}",
                hint="see how it goes on with: cifarml runs list",
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
            raise ModelFileError(f"the manifest names no {name}")
        try:
            if (size := (self.path / name).stat().st_size) > _MAX_FILE_BYTES:
                raise ModelFileError(f"{self.path / name} has {size:,} bytes, too many for a model")
            content = (self.path / name).read_bytes()
        except OSError as error:
            raise ModelFileError(f"can't read {self.path / name}: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != self.files[name]:
            raise ModelFileError(
                f"{self.path / name} was changed after training: its SHA-256 is not the manifest's",
                hint="train again, or fetch the run folder again",
            )
        return content

    def read_json(self, name: str) -> Any:
        """Return the values in a JSON file of the run, after checking its hash.

        Raises:
            ModelFileError: If it is missing, changed or no JSON.
        """
        try:
            return json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise ModelFileError(f"{self.path / name} is no JSON: {error}") from error

    @property
    def sha256(self) -> str:
        """SHA-256 (hexadecimal) of its class names, and of each file's name and hash."""
        content = json.dumps([self.class_names, sorted(self.files.items())])
        return hashlib.sha256(content.encode()).hexdigest()

    def verify(self) -> None:
        """Check the hash of every file.

        Raises:
            ModelFileError: If one is missing or changed.
        """
        for name in self.files:
            self.read(name)


def write_json(path: Path, values: object) -> None:
    """Write a JSON file so that a kill leaves the whole new one, or what was there before."""
    _write_beside(path, values).replace(path)


def write_manifest(
    path: Path,
    class_names: tuple[str, ...],
    info: Mapping[str, object],
    *,
    clear: Callable[[], None] = lambda: None,
) -> Run:
    """Finish a run: hash the files in its folder and write the manifest.

    Args:
        path: The folder.
        class_names: What the model tells apart.
        info: Further JSON values for the manifest.
        clear: Removes what has no place in a finished run; called when all else is on the disk, just
            before the manifest gets its name. After a kill in between, :func:`finish_manifest` ends it.
    """
    files = {
        entry.name: _sha256(entry)
        for entry in sorted(path.iterdir())
        if entry.is_file() and entry.name != MANIFEST
    }
    manifest = {"format": _FORMAT, **info, "class_names": class_names, "files": files}
    beside = _write_beside(path / MANIFEST, manifest)
    clear()
    with suppress(FileNotFoundError):  # somebody has ended it for us
        beside.replace(path / MANIFEST)
    return Run.open(path)


def finish_manifest(path: Path, *, clear: Callable[[], None]) -> Run | None:
    """Finish a run whose writer was killed when only the name of its manifest was missing.

    Args:
        path: The folder.
        clear: See :func:`write_manifest`.

    Returns:
        The finished run, or None where more than that is missing.
    """
    beside = _beside(path / MANIFEST)
    try:
        files = json.loads(beside.read_bytes())["files"]
        if any(_sha256(path / name) != expected for name, expected in files.items()):
            return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    clear()
    beside.replace(path / MANIFEST)
    return Run.open(path)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _write_beside(path: Path, values: object) -> Path:
    beside = _beside(path)
    with beside.open("w", encoding="utf-8") as file:
        json.dump(values, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    return beside


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
