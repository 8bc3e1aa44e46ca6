"""Study of a hyperparameter search: Optuna's SQLite file in a folder.

A killed process loses only its current trial, and several processes may work on one search at once: a lock in
the folder is held while a trial is handed out or the best settings are written.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import optuna
import psutil
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from cifarml.errors import SettingsError, TrainingError
from cifarml.train.interrupts import interrupts_delayed
from cifarml.tune.trials import ENDED, OWN

_FILE: Final = "study.db"
_NAME: Final = "cifarml"
_TIMEOUT_S: Final = 60
_OWNER, _ABOUT = "owner", "about"


class Study:
    """Trials of a search, each owned by the process that asked for it.

    The folder is created if it is missing; ``about`` is what all trials share, as plain JSON values by name.

    Raises:
        SettingsError: If a search about something else lies there.
        TrainingError: Also from the methods, if the file is damaged, is no search, or can't be written.
    """

    def __init__(
        self, folder: Path, about: Mapping[str, Any], *, pruner: optuna.pruners.BasePruner, seed: int
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder = folder
        self.path = folder / _FILE
        self._seed = seed
        self._lock = FileLock(folder / ".lock", timeout=_TIMEOUT_S)
        with self.locked():
            if not self.path.exists():
                self._create(about)
            self._check()
            self._study = optuna.load_study(study_name=_NAME, storage=_storage(self.path), pruner=pruner)
            kept = self._study.user_attrs.get(_ABOUT, {})
        for name in {**about, **kept}:
            if about.get(name) != kept.get(name):
                raise SettingsError(
                    f"the search in {folder} is about other settings: {name} is {kept.get(name)!r} there, "
                    f"and not {about.get(name)!r}",
                    hint="give this one another name: --name NAME",
                )

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, in their order."""
        with self.translated():
            return self._study.get_trials(deepcopy=False)

    def ask_trial(self, space: Mapping[str, BaseDistribution], own: Mapping[str, Any]) -> optuna.Trial:
        """Begin a trial: the baseline first; lost trials are closed."""
        with self.locked():
            self.close_lost()
            trials = self._study.get_trials(deepcopy=False)
            if not any(map(_settles_own, trials)):
                self._study.enqueue_trial(dict(own), user_attrs={OWN: True})
            # Of seed and number only, so that a search which goes on draws nothing twice.
            self._study.sampler = optuna.samplers.TPESampler(seed=(self._seed + len(trials)) % 2**32)
            asked = self._study.ask(fixed_distributions=dict(space))
            asked.set_user_attr(_OWNER, [os.getpid(), psutil.Process().create_time()])
            return asked

    def report(self, trial: optuna.Trial, epoch: int, accuracy: float) -> bool:
        """Report a trial's accuracy after an epoch; return whether it should be pruned."""
        with self.translated():
            trial.report(accuracy, epoch)
            return OWN not in trial.user_attrs and trial.should_prune()

    def tell(self, trial: optuna.Trial, ended: str, accuracy: float | None, **more: Any) -> None:
        """End a trial as ``finished``, or else why not, and store more plain JSON values with it."""
        states = {"finished": TrialState.COMPLETE, "interrupted": TrialState.FAIL}
        with self.locked():
            for name, value in {**more, ENDED: ended}.items():
                trial.set_user_attr(name, value)
            self._study.tell(trial, accuracy, state=states.get(ended, TrialState.PRUNED))

    def close_lost(self) -> None:
        """Close the trials of processes that died, and earlier ones of this process."""
        with self.locked():
            for trial in self.trials:
                if trial.state == TrialState.RUNNING and not _is_alive(trial.user_attrs.get(_OWNER)):
                    self._study.tell(trial.number, state=TrialState.FAIL)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder; the lock of a process that dies is released.

        Raises:
            TrainingError: If another one holds it for a minute, or something can't be read or written.
        """
        with self.translated():
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout:
                raise TrainingError(
                    f"another process has been writing to the search in {self.folder} for a minute",
                    hint="wait for it, or end it, and try again",
                ) from None
            try:
                yield
            finally:
                self._lock.release()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Delay Ctrl-C, and translate errors of the database into a TrainingError."""
        try:
            with interrupts_delayed():
                yield
        except (SQLAlchemyError, sqlite3.Error, optuna.exceptions.OptunaError, RuntimeError) as error:
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            raise TrainingError(
                f"can't use the search in {self.path}: {reason}",
                hint="move that file away to begin anew, or take another name: --name NAME",
            ) from error
        except OSError as error:
            raise TrainingError(
                f"can't write the search in {self.folder}: {error.strerror or error}",
                hint="make room and rights there, or take another folder: --runs-dir DIR",
            ) from error

    def _create(self, about: Mapping[str, Any]) -> None:
        """Create the file atomically."""
        with tempfile.TemporaryDirectory() as folder:
            made, partial = Path(folder, _FILE), self.folder / f".{_FILE}.partial"
            storage = optuna.storages.RDBStorage(f"sqlite:///{made}")
            study = optuna.create_study(study_name=_NAME, storage=storage, direction="maximize")
            study.set_user_attr(_ABOUT, dict(about))
            storage.engine.dispose()
            shutil.copyfile(made, partial)
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(self.path)

    def _check(self) -> None:
        """Refuse other files, before Optuna creates its tables in them."""
        with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(f"it is damaged ({found.strip().splitlines()[-1]})")
            query = "SELECT count(*) FROM sqlite_master WHERE name IN ('studies', 'trials', 'version_info')"
            (tables,) = connection.execute(query).fetchone()
            if (
                tables != 3
                or not connection.execute("SELECT 1 FROM studies WHERE study_name = ?", (_NAME,)).fetchone()
            ):
                raise sqlite3.DatabaseError("it holds no search of cifarml")


def _storage(path: Path) -> optuna.storages.RDBStorage:
    """Open Optuna's file by a URI of SQLite, since SQLAlchemy's URLs can't express every path."""
    uri = f"{path.resolve().as_uri()}?mode=rw"
    return optuna.storages.RDBStorage(
        "sqlite://",
        engine_kwargs={
            "creator": lambda: sqlite3.connect(uri, uri=True, timeout=_TIMEOUT_S),
            "poolclass": NullPool,
        },
    )


def _is_alive(owner: Any) -> bool:
    """Check whether another process still works on its trial; this one works on one at a time."""
    try:
        number, created = owner
        process = psutil.Process(number)
        same = abs(process.create_time() - created) < 1
        return bool(same and number != os.getpid() and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, TypeError, ValueError):
        return False


def _settles_own(trial: FrozenTrial) -> bool:
    """Check whether a trial makes another one of the baseline unnecessary."""
    waits = trial.state in {TrialState.WAITING, TrialState.RUNNING}
    return bool(trial.user_attrs.get(OWN)) and (
        waits or trial.user_attrs.get(ENDED) in {"finished", "diverged", "out of memory"}
    )
