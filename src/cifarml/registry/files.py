"""Helpers of all registries: verified copies of runs, and version lookup."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from cifarml.errors import ModelFileError, RegistryError
from cifarml.locks import hold, own_partial
from cifarml.registry.base import CHAMPION, LATEST, RegisteredModel
from cifarml.run import MANIFEST, Run


def copy_whole(run: Run, to: Path) -> None:
    """Copy a run into a new folder, verify each file and flush it to disk.

    Raises:
        ModelFileError: If a file is missing or changed.
    """
    to.mkdir(parents=True)
    contents = ((name, run.read(name)) for name in run.files)
    for name, content in (*contents, (MANIFEST, (run.path / MANIFEST).read_bytes())):
        with (to / name).open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    if Run.open(to).sha256 != run.sha256:
        raise ModelFileError(f"{run.path} was modified while it was copied", hint="try again")


def download_into(to: Path, model: RegisteredModel, fetch: Callable[[Path], None]) -> Run:
    """Fetch a version's files atomically into a new folder; reuse the folder if it has the same files.

    Args:
        to: The new folder.
        model: The version.
        fetch: Creates the folder that it is given, with the files in it.

    Raises:
        RegistryError: If ``to`` has other content, or can't be written.
    """
    if found := _find_copy(to, model):
        return found
    partial = own_partial(to)
    try:
        fetch(partial)
        partial.replace(to)
    except OSError as error:
        if found := _find_copy(to, model):  # of another process
            return found
        raise RegistryError(f"can't write {to}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Run.open(to)


def _find_copy(to: Path, model: RegisteredModel) -> Run | None:
    """Return the run in a folder if it is the version's, or None if the folder is missing or empty."""
    if not to.is_dir() or to.is_symlink() or not any(to.iterdir()):
        return None
    with suppress(ModelFileError):
        run = Run.open(to)
        run.verify()
        if run.sha256 == model.run_sha256:
            return run
    raise RegistryError(f"{to} contains other files than {model}", hint="choose a new folder")


def cached_copy(cache_dir: Path, model: RegisteredModel, fetch: Callable[[Path], None]) -> Run:
    """Return a version's run from the content-addressed cache; fetch it if it is missing or damaged.

    Raises:
        RegistryError: If the cache can't be written.
    """
    to = cache_dir / "models" / model.run_sha256
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with hold(FileLock(f"{to}.lock"), f"the copy of {model}"):
            try:
                return download_into(to, model, fetch)
            except RegistryError:
                if not to.exists():
                    raise
                shutil.rmtree(to)
                return download_into(to, model, fetch)
    except OSError as error:
        raise RegistryError(
            f"can't write to the cache {to.parent}: {error.strerror or error}",
            hint="set CIFARML_CACHE_DIR to a writable folder",
        ) from error


def find_version(
    versions: Sequence[RegisteredModel], name: str, version: str, location: object
) -> RegisteredModel:
    """Find a version by number, alias or ``latest`` among all versions of a model, the oldest first.

    Raises:
        RegistryError: If it does not exist; ``location`` names the registry in the message.
    """
    if not versions:
        raise RegistryError(
            f"there is no model named {name!r} in {location}",
            hint="register one with: cifarml models register RUN",
        )
    if version == LATEST:
        return versions[-1]
    for model in versions:
        if version == model.version or version in model.aliases:
            return model
    shown = [f"{m.version} ({', '.join(m.aliases)})" if m.aliases else m.version for m in versions[-10:]]
    raise RegistryError(
        f"model {name!r} has no version {version[:100]!r}; it has {', '.join(shown)}",
        hint="list them with: cifarml models list",
    )


def check_content(model: RegisteredModel, expected: RegisteredModel) -> None:
    """Raise a RegistryError if the content differs from the caller's version, e.g. of another registry."""
    if model.run_sha256 != expected.run_sha256:
        raise RegistryError(
            f"{expected} and {model} of this registry differ in content",
            hint="get the model from this registry: registry.get(name, version)",
        )


def check_deletable(model: RegisteredModel) -> None:
    """Raise a RegistryError if the version is the champion."""
    if CHAMPION in model.aliases:
        raise RegistryError(
            f"can't delete {model} because it is the champion",
            hint=f"promote another version first: cifarml models promote {model.name}:VERSION",
        )
