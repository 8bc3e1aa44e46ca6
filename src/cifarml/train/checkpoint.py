"""Checkpoint of an unfinished run, from which training resumes after a kill.

The file checkpoint/state.zip in the run folder contains about.json and the raw bytes of every variable, in
order: of the network (weights, running statistics, dropout seeds) and of the optimizer state (momentum, step
count, losses for data pruning). Nothing in it can run code. Batches need no other state: their content
depends on seed, epoch and index.
"""

from __future__ import annotations

import errno
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

import keras
import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cifarml.errors import SettingsError, TrainingError
from cifarml.hardware.devices import describe_environment
from cifarml.locks import acquire
from cifarml.run_folders import (
    ABOUT,
    CHECKPOINT,
    CONFIG,
    LOCK,
    MAX_ABOUT_BYTES,
    SOURCE,
    STATE,
    being_trained,
    resume_command,
)
from cifarml.train.data_source import Source
from cifarml.train.out_of_memory import is_out_of_memory
from cifarml.train.plan import Plan

_WAIT_S: Final = 1.0
"""Lock timeout; checking whether a run is being trained holds the lock briefly."""
_UNREADABLE: Final = (OSError, ValueError, LookupError, EOFError, RuntimeError, MemoryError, zipfile.error)
_FORMAT: Final = "cifarml-checkpoint/2"
"""The number changes with the variables, and with what a network computes from them."""
_DATE: Final = (1980, 1, 1, 0, 0, 0)


class TrainingState(NamedTuple):
    """Progress of a training run at the end of an epoch.

    Attributes:
        history: ``loss``, ``accuracy`` and so on, a value per epoch; empty before the first epoch has ended.
        training_s: Training time in seconds.
    """

    history: Mapping[str, list[float]]
    training_s: float

    @property
    def num_epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.history.get("loss", ()))


class _About(BaseModel):
    """Content of about.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["cifarml-checkpoint/2"] = _FORMAT
    made_with: dict[str, str]
    plan: dict[str, Any]
    fingerprint: str
    num_epochs: int = Field(ge=1)
    history: dict[str, list[float]]
    training_s: float = Field(ge=0)
    variables: list[tuple[str, list[Annotated[int, Field(ge=0)]]]] = Field(description="dtypes and shapes")


class Checkpoint:
    """Checkpoint in an unfinished run folder, which is locked while it is open.

    Raises:
        TrainingError: From ``with``, if another process trains that run.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._folder = run_dir / CHECKPOINT
        self._state = self._folder / STATE
        self._lock = FileLock(self._folder / LOCK, timeout=_WAIT_S)

    def __enter__(self) -> Self:
        self._folder.mkdir(exist_ok=True)
        try:
            acquire(self._lock, f"the run {self.run_dir.name}")
        except Timeout:
            raise being_trained(self.run_dir) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @property
    def source(self) -> dict[str, object]:
        """Entry of the manifest with the source of the images; empty if the run does not record it."""
        try:
            return {"source": Source.read(self.run_dir).model_dump()}
        except TrainingError:
            return {}

    def save(self, network: keras.Model, plan: Plan, fingerprint: str, state: TrainingState) -> None:
        """Save a checkpoint atomically: a kill leaves either the new or the previous one.

        Raises:
            OSError: If it can't be written; the previous one is unchanged.
        """
        arrays = [keras.ops.convert_to_numpy(variable) for variable in _variables(network)]
        about = _About(
            made_with=_made_with(),
            plan=plan.to_json(),
            fingerprint=fingerprint,
            num_epochs=state.num_epochs,
            history=dict(state.history),
            training_s=state.training_s,
            variables=[_describe(array) for array in arrays],
        )
        partial = self.run_dir / f".{STATE}.partial"
        try:
            with partial.open("wb") as file:
                with zipfile.ZipFile(file, "w") as archive:
                    archive.writestr(zipfile.ZipInfo(ABOUT, _DATE), about.model_dump_json())
                    for number, array in enumerate(arrays):
                        archive.writestr(zipfile.ZipInfo(str(number), _DATE), array.tobytes())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._state)
        except BaseException:  # including Ctrl-C: leave no partial file behind
            with suppress(OSError):
                partial.unlink()
            raise

    def load(self, network: keras.Model, plan: Plan, fingerprint: str) -> TrainingState:
        """Restore the network and its optimizer from the checkpoint, if there is one.

        Raises:
            TrainingError: If the checkpoint is damaged, or belongs to another training; the network is
                unchanged.
        """
        variables = _variables(network)
        expected = [keras.ops.convert_to_numpy(variable) for variable in variables]
        try:
            about, values = self._read_checkpoint(expected)
        except FileNotFoundError:
            return TrainingState({}, 0.0)
        except ValidationError as error:
            first = error.errors()[0]
            if first["loc"] == ("format",):
                reason = f"expected the format {_FORMAT!r}, got {first['input']!r:.60}"
                raise self._unusable(f"another version of cifarml wrote it: {reason}") from error
            where = ".".join(map(str, first["loc"]))
            raise self._unusable(f"{ABOUT}: {where}: {first['msg']}") from error
        except _UNREADABLE as error:
            raise self._unusable(str(error) or type(error).__name__) from error
        if about.made_with != (here := _made_with()):
            differ = sorted({name for name, _ in about.made_with.items() ^ here.items()})
            raise TrainingError(
                f"the run in {self.run_dir} requires {_versions(about.made_with, differ)}. "
                f"Received: {_versions(here, differ)}",
                hint="install those versions, or start a new run: the results would differ",
            )
        if about.plan | {"precision": plan.precision} != plan.to_json():  # resuming may change it
            raise self._unusable("it belongs to a training with other settings")
        if about.fingerprint != fingerprint:
            raise self._unusable("it belongs to a training on other images")
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return TrainingState(about.history, about.training_s)

    def remove(self) -> None:
        """Delete the files that only an unfinished run has, including the lock."""
        self._lock.release()
        for name in (STATE, SOURCE, LOCK):
            (self._folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # files of others are kept, and Run.open reports them
            self._folder.rmdir()

    def _read_checkpoint(self, expected: Sequence[npt.NDArray[Any]]) -> tuple[_About, list[npt.NDArray[Any]]]:
        """Read the file, and validate it against the arrays of the network."""
        size = self._state.stat().st_size
        names = list(map(str, range(len(expected))))
        if not self._state.is_file():
            raise ValueError("it is not a file")
        if size > sum(each.nbytes for each in expected) + 2 * MAX_ABOUT_BYTES:
            raise ValueError(f"it is too large for this network: {size:,} bytes")
        with zipfile.ZipFile(self._state) as archive:
            if archive.namelist() != [ABOUT, *names]:
                raise ValueError("it does not contain the variables of this network")
            sizes = [MAX_ABOUT_BYTES, *(each.nbytes for each in expected)]
            for info, most in zip(archive.infolist(), sizes, strict=True):
                if info.file_size > most or info.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{info.filename} is too large or compressed")
            about = _About.model_validate_json(archive.read(ABOUT))
            if about.variables != [_describe(array) for array in expected]:
                raise ValueError("its variables have other shapes than those of this network")
            if {len(values) for values in about.history.values()} != {about.num_epochs}:
                raise ValueError("its history must have a value for each epoch")
            values = [
                np.frombuffer(archive.read(name), array.dtype).reshape(array.shape)
                for name, array in zip(names, expected, strict=True)
            ]
        return about, values

    def _unusable(self, reason: str) -> TrainingError:
        return TrainingError(
            f"the checkpoint {self._state} can't be used: {reason}",
            hint=f"delete it to restart the run from the beginning: {resume_command(self.run_dir)}",
        )


@contextmanager
def explain_resource_errors(run_dir: Path) -> Iterator[None]:
    """Translate disk-full and out-of-memory errors into `TrainingError`s with a resume hint.

    Raises:
        TrainingError: If the folder can't be written, or memory runs out.
    """
    resume = f"resume with: {resume_command(run_dir)}"
    try:
        yield
    except (OSError, SettingsError) as error:
        reason = error.__cause__ if isinstance(error, SettingsError) else error
        if not isinstance(reason, OSError):
            raise
        began = (run_dir / CONFIG).is_file()
        full = reason.errno == errno.ENOSPC
        temporary = f" or temporary files in {tempfile.gettempdir()}" if full else ""
        raise TrainingError(
            f"can't write the run folder {run_dir}{temporary}: {reason.strerror or reason}",
            hint=f"free disk space or fix the permissions, then {resume}"
            if began
            else "free disk space, fix the permissions, or use another folder: --runs-dir DIR",
        ) from error
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            "there is not enough memory to train",
            hint=f"close other programs, then {resume}; or start a new run with a smaller --batch-size",
        ) from error


def _variables(network: keras.Model) -> list[keras.Variable]:
    """Return all variables that training changes, in a fixed order."""
    if not network.optimizer.built:
        network.optimizer.build(network.trainable_variables)
    return [*network.variables, *network.optimizer.variables]


def _describe(array: npt.NDArray[Any]) -> tuple[str, list[int]]:
    return array.dtype.name, list(array.shape)


def _made_with() -> dict[str, str]:
    """Return the backend and the library versions, on which the results depend."""
    packages: Any = describe_environment()["packages"]
    backend = keras.config.backend()
    found = {name: packages.get(name) for name in ("cifarml", "keras", backend, "numpy")}
    return {"backend": backend, **{name: version for name, version in found.items() if version}}


def _versions(made_with: Mapping[str, str], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {made_with.get(name, 'missing')}" for name in names)
