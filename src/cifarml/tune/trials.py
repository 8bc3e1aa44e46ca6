"""Result of a search: its trials, and the gain of the best over the preset's own settings."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from cifarml.data.dataset import Dataset
from cifarml.evaluation.accuracy import AccuracyByClass
from cifarml.evaluation.statistics import mcnemar_p_value

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

OWN: Final = "own"
"""Attribute that marks the baseline: the trial with the preset's own settings."""

ENDED: Final = "ended"
"""Attribute with the outcome of a trial."""


@dataclass(frozen=True)
class Trial:
    """Trial of a search.

    Args:
        number: Counted from 0, in the order of their start.
        ended: Outcome: ``finished``; ``pruned`` (worse than the median of the others at the same epoch);
            ``out of time`` (it would have exceeded the budget); ``diverged``, ``out of memory``,
            ``interrupted``, ``killed``; or ``running``.
        is_own: Whether the settings are the preset's own.
        accuracy: Validation accuracy after its last epoch, 0 to 1; None before the first.
        num_epochs: Number of epochs that ended.
        duration_s: Duration in seconds; None if unknown.
        settings: Values of the searched hyperparameters, by name.
    """

    number: int
    ended: str
    is_own: bool
    accuracy: float | None
    num_epochs: int
    duration_s: float | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class TuneResult:
    """Result of a search.

    Args:
        best: The finished trial with the highest validation accuracy; the first of equals.
        own: The finished trial of the preset's own settings, if there is one.
        trials: All trials, by number, those of earlier calls included.
        num_validation: Number of validation images.
        p_value: Of the difference between the best trial and the preset's own settings; None without the
            latter. McNemar's exact test (Psychometrika 12, 1947), times the number of other finished trials
            (Bonferroni).
        settings_file: The best settings, to be loaded with ``TrainConfig.load``.
        interrupted: Whether Ctrl-C ended the search.
        by_class: Correct predictions of the best trial for each class of the validation images.
    """

    best: Trial
    own: Trial | None
    trials: tuple[Trial, ...]
    num_validation: int
    p_value: float | None
    settings_file: Path
    interrupted: bool
    by_class: AccuracyByClass | None = None

    @property
    def gain(self) -> float | None:
        """Gain in accuracy over the preset's own settings, 0 to 1."""
        if self.own is None or self.own.accuracy is None or self.best.accuracy is None:
            return None
        return self.best.accuracy - self.own.accuracy

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        settings_file = str(self.settings_file.resolve())
        values = asdict(self) | {"settings_file": settings_file}
        del values["by_class"]
        return {"gain": self.gain} | values | {"validation": self.by_class and self.by_class.to_json()}


def read_trial(trial: FrozenTrial) -> Trial:
    """Convert an Optuna trial."""
    reported = trial.intermediate_values
    last = reported[max(reported)] if reported else None
    ended = trial.user_attrs.get(ENDED)
    running = trial.state.name in {"RUNNING", "WAITING"}
    return Trial(
        number=trial.number,
        ended=str(ended or ("running" if running else "killed")),
        is_own=bool(trial.user_attrs.get(OWN)),
        accuracy=trial.value if ended == "finished" else last,
        num_epochs=len(reported),
        duration_s=trial.user_attrs.get("duration_s"),
        settings=dict(trial.params),
    )


def find_best(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the best finished trial; the first of equals."""
    return max(_finished(trials), key=lambda trial: trial.value or 0.0, default=None)


def baseline_trial(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the finished trial of the preset's own settings."""
    return next((trial for trial in _finished(trials) if trial.user_attrs.get(OWN)), None)


def p_value_of(best: FrozenTrial, own: FrozenTrial, trials: Sequence[FrozenTrial]) -> float:
    """Return the p-value of the best trial against the baseline; see :class:`TuneResult`."""
    first, second = (_decode_bits(trial.user_attrs["right"]) for trial in (own, best))
    won, lost = int((second & ~first).sum()), int((first & ~second).sum())
    return min(1.0, mcnemar_p_value(lost, won) * max(1, len(_finished(trials)) - 1))


def accuracy_by_class(trial: FrozenTrial, validation: Dataset) -> AccuracyByClass:
    """Count the correct predictions of a finished trial for each class of the validation images."""
    right = _decode_bits(trial.user_attrs["right"])[: len(validation)]
    num_right = np.bincount(validation.labels[right], minlength=len(validation.class_names))
    counts = validation.class_counts()
    return AccuracyByClass(validation.class_names, tuple(counts.tolist()), tuple(num_right.tolist()))


def encode_bits(right: npt.NDArray[np.bool_]) -> str:
    """Encode correct predictions, bool of shape (N,), as a string."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def _decode_bits(text: str) -> npt.NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8)).astype(np.bool_)


def _finished(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.user_attrs.get(ENDED) == "finished"]
