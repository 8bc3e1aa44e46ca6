"""Study of a hyperparameter search: Optuna's SQLite file in a folder.

A killed process loses only its current trial, and several processes can share a search: a lock in the folder
is held while a trial is started or ended, or the best settings are written.
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
from cifarml.locks import acquire, holder
from cifarml.paths import expand_home
from cifarml.train.interrupts import interrupts_delayed
from cifarml.tune.trials import ENDED, OWN

_FILE: Final = "study.db"
_NAME: Final = "cifarml"
_TIMEOUT_S: Final = 60
_OWNER, _ABOUT = "owner", "about"


class Study:
    """Optuna study whose trials are each owned by the process that started them.

    The folder is created if it is missing; ``about`` contains the settings that all trials share, as plain
    JSON values by name.

    Raises:
        SettingsError: If the folder contains a search with other settings.
        TrainingError: Also from the methods, if the file is damaged, not a search, or not writable.
    """

    def __init__(
        self, folder: Path, about: Mapping[str, Any], *, pruner: optuna.pruners.BasePruner, seed: int
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder = folder = expand_home(folder)
        self.path = folder / _FILE
        self._seed = seed
        self._lock = FileLock(folder / ".lock", timeout=_TIMEOUT_S)
        with self.locked():
            if not self.path.exists():
                self._create(about)
            self._check()
            self._study = optuna.load_study(study_name=_NAME, storage=_storage(self.path), pruner=pruner)
            stored = self._study.user_attrs.get(_ABOUT, {})
        for name in {**about, **stored}:
            if about.get(name) != stored.get(name):
                raise SettingsError(
                    f"the search in {folder} has other settings: {name} is {stored.get(name)!r}. "
                    f"Received: {about.get(name)!r}",
                    hint="use another name for this search: --name NAME",
                )

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        with self.translated():
            return self._study.get_trials(deepcopy=False)

    def ask_trial(self, space: Mapping[str, BaseDistribution], own: Mapping[str, Any]) -> optuna.Trial:
        """Start a trial, the baseline first, and close lost ones."""
        with self.locked():
            self.close_lost()
            trials = self._study.get_trials(deepcopy=False)
            if not any(map(_covers_baseline, trials)):
                self._study.enqueue_trial(dict(own), user_attrs={OWN: True})
            # Seeded by the trial's number, too, so that a resumed search draws nothing twice.
            self._study.sampler = optuna.samplers.TPESampler(seed=(self._seed + len(trials)) % 2**32)
            trial = self._study.ask(fixed_distributions=dict(space))
            trial.set_user_attr(_OWNER, [os.getpid(), psutil.Process().create_time()])
            return trial

    def report(self, trial: optuna.Trial, epoch: int, accuracy: float) -> bool:
        """Report a trial's accuracy after an epoch; return whether it should be pruned."""
        with self.translated():
            trial.report(accuracy, epoch)
            return OWN not in trial.user_attrs and trial.should_prune()

    def tell(self, trial: optuna.Trial, ended: str, accuracy: float | None, **more: Any) -> None:
        """End a trial with its outcome, such as ``finished``, and store plain JSON values with it."""
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
            TrainingError: If another process holds the lock for a minute, or a file can't be read or written.
        """
        with self.translated():
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                acquire(self._lock, "the search")
            except Timeout:
                raise TrainingError(
                    f"{holder(self._lock)} has been writing to the search in {self.folder} for a minute",
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
                hint="move that file away to start over, or use another name: --name NAME",
            ) from error
        except OSError as error:
            raise TrainingError(
                f"can't write the search in {self.folder}: {error.strerror or error}",
                hint="free disk space, fix the permissions, or use another folder: --runs-dir DIR",
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
        """Reject other files, before Optuna creates its tables in them."""
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
                raise sqlite3.DatabaseError("it is not a cifarml search")


def _storage(path: Path) -> optuna.storages.RDBStorage:
    """Open Optuna's file by an SQLite URI, since SQLAlchemy's URLs can't express every path."""
    uri = f"{path.resolve().as_uri()}?mode=rw"
    return optuna.storages.RDBStorage(
        "sqlite://",
        engine_kwargs={
            "creator": lambda: sqlite3.connect(uri, uri=True, timeout=_TIMEOUT_S),
            "poolclass": NullPool,
        },
    )


def _is_alive(owner: Any) -> bool:
    """Check whether another process still runs its trial; this process runs only one at a time."""
    try:
        number, created = owner
        process = psutil.Process(number)
        same = abs(process.create_time() - created) < 1
        return bool(same and number != os.getpid() and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, TypeError, ValueError):
        return False


def _covers_baseline(trial: FrozenTrial) -> bool:
    """Check whether a trial of the baseline is pending or has ended, so that none needs to start."""
    waits = trial.state in {TrialState.WAITING, TrialState.RUNNING}
    return bool(trial.user_attrs.get(OWN)) and (
        waits or trial.user_attrs.get(ENDED) in {"finished", "diverged", "out of memory"}
    )
