"""Hyperparameter search within a time budget."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import keras

from cifarml.data.dataset import Dataset, DatasetSplits
from cifarml.errors import DataError, SettingsError, TrainingError
from cifarml.extras import explain_missing_extra
from cifarml.progress import OnProgress, Progress, ignore_progress
from cifarml.train.config import TrainConfig
from cifarml.train.fit import FitResult, fit_network
from cifarml.train.interrupts import interrupts_noted
from cifarml.train.network import predict_in_blocks
from cifarml.train.out_of_memory import is_out_of_memory
from cifarml.train.plan import Plan
from cifarml.train.time_budget import Clock
from cifarml.tune.search_space import search_space
from cifarml.tune.trials import (
    OWN,
    TuneResult,
    accuracy_by_class,
    baseline_trial,
    encode_bits,
    find_best,
    p_value_of,
    read_trial,
)

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from cifarml.tune.study import Study

SETTINGS: Final = "best.toml"
_STORED: Final = {"preset", "precision", "validation_fraction", "seed"}
"""Settings of the config that are stored, besides the recipe."""
_OVER: Final = 1.1
"""A trial that would exceed the budget by this factor is not started, or is stopped."""
_MAX_FAILURES: Final = 3
"""The search ends after this number of failures in a row."""


def tune_model(
    config: TrainConfig,
    dataset: Dataset,
    study_dir: str | Path,
    *,
    time_budget_s: float = 1800.0,
    num_trials: int | None = None,
    on_progress: OnProgress = ignore_progress,
    clock: Clock = time.monotonic,
) -> TuneResult:
    """Search the hyperparameters of a preset, and write the best settings.

    Every trial is evaluated on the same validation images, which are split off the training images as in
    `train_model`; the test images are not used. The first trial has the preset's own settings. A
    tree-structured Parzen estimator (J. Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011)
    chooses the others, and a median pruner (D. Golovin et al., "Google Vizier", 2017, section 3.2.2) stops
    them early. Settings in `config` are fixed, not searched.

    The folder contains study.db, an Optuna study, and best.toml. Another call with the same folder resumes
    the search; a killed process loses only its current trial, and several can search concurrently.

    Args:
        config: The preset and the fixed settings.
        dataset: Images for training and validation.
        study_dir: The folder of the search; created if it is missing.
        time_budget_s: Duration of this call in seconds; no trial may exceed it by more than a tenth.
        num_trials: Stop when the search has this number of trials, those of earlier calls included.
        on_progress: Called several times a second, and with a line after every trial.
        clock: Returns the time in seconds, for the budget.

    Returns:
        The result of the search so far, also after Ctrl-C.

    Raises:
        SettingsError: If Optuna is not installed, a limit is not positive, or the folder contains another
            search (of other settings or images).
        DataError: If there are no validation images.
        TrainingError: If no trial finishes in time, or the study is damaged or not writable.
        KeyboardInterrupt: If interrupted before the first trial finishes.

    Example:
        ```python
        result = cifarml.tune_model(cifarml.TrainConfig(), dataset, "runs/tuning/first")
        config = cifarml.TrainConfig.load(result.settings_file)
        ```
    """
    with explain_missing_extra():
        import optuna

        from cifarml.tune.study import Study

    if not 0 < time_budget_s < float("inf"):
        raise SettingsError(f"the time budget must be positive and finite. Received: {time_budget_s}")
    if num_trials is not None and num_trials < 1:
        raise SettingsError(f"the number of trials must be at least 1. Received: {num_trials}")
    splits = dataset.split(validation_fraction=config.validation_fraction, seed=config.seed)
    if not len(splits.validation):
        raise DataError(
            f"{dataset.origin}: a search requires validation images. Received: 0",
            hint="use more images, or a larger share of them: --validation-fraction 0.2",
        )
    plan = Plan.make(config, splits.train)
    about = {
        "data": dataset.fingerprint,
        **config.model_dump(include=_STORED, exclude_none=True),
        **plan.recipe.model_dump(mode="json"),
        "set": sorted(config.changes),
    }
    warm_up = max(2, plan.recipe.num_epochs // 4)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=warm_up)
    logging.getLogger("tensorflow").addFilter(_is_no_retracing_warning)
    study = Study(Path(study_dir), about, pruner=pruner, seed=config.seed)
    search = _Search(study, plan, splits, time_budget_s, on_progress, clock)
    on_progress(Progress("tuning", 0, round(time_budget_s), unit="s", line=plan.describe(len(splits.train))))
    search.keep_best()
    with interrupts_noted() as search.interrupts:
        try:
            while search.can_start_trial() and (num_trials is None or search.num_ended() < num_trials):
                search.run_trial()
        except KeyboardInterrupt:
            if search.keep_best() is None:
                raise
        return search.result()


class _OutOfTime(Exception):  # noqa: N818 - control flow, not an error
    """The time budget is used up within an epoch."""


class _Search:
    """The trials of one call."""

    def __init__(
        self,
        study: Study,
        plan: Plan,
        splits: DatasetSplits,
        budget_s: float,
        on_progress: OnProgress,
        clock: Clock,
    ) -> None:
        self.study = study
        self._plan = plan
        self._splits = splits
        self._on_progress = on_progress
        self._budget_s = budget_s
        self._clock = clock
        self._started = clock()
        self.interrupts: Sequence[object] = ()
        self._whole_s: list[float] = []
        self._needed_s = 0.0
        self._failure: TrainingError | None = None
        self._num_failures = 0
        space = search_space(plan.config.preset, plan.recipe)
        self._space = {name: each for name, each in space.items() if name not in plan.config.changes}
        self._best = ""

    def can_start_trial(self) -> bool:
        """Check whether another trial fits into the time budget."""
        spent = self._clock() - self._started
        if self.interrupts or self._num_failures >= _MAX_FAILURES:
            return False
        if not self._whole_s:  # no duration known yet: the first trial is stopped by its own speed
            return spent < self._budget_s and not self._needed_s
        return spent + median(self._whole_s) <= self._budget_s * _OVER

    def num_ended(self) -> int:
        """Count the trials that have ended."""
        return sum(trial.state.name in {"COMPLETE", "PRUNED"} for trial in self.study.trials)

    def run_trial(self) -> None:
        """Run the next trial, and write its settings if it is the best."""
        own = {name: getattr(self._plan.recipe, name) for name in self._space}
        trial = self.study.ask_trial(self._space, own)
        plan = self._plan._replace(recipe=self._plan.recipe.changed(**trial.params))
        started = self._clock()
        ended, fitted = self._fit(trial, plan)
        duration_s = self._clock() - started
        accuracy, more = None, {}
        if fitted is not None and ended == "finished":
            self._whole_s.append(duration_s)
            validation = self._splits.validation
            right = predict_in_blocks(fitted.network, validation.images).argmax(axis=1) == validation.labels
            accuracy, more = float(right.mean()), {"right": encode_bits(right)}
        self.study.tell(trial, ended, accuracy, duration_s=duration_s, **more)
        self.keep_best()
        reached = "" if accuracy is None else f" {accuracy:.1%}"
        values = [(key, f"{v:.3g}" if isinstance(v, float) else v) for key, v in trial.params.items()]
        settings = "  ".join(f"{name} {value}" for name, value in values)
        whose = "the preset's own settings" if OWN in trial.user_attrs else settings
        self._report(line=f"trial {trial.number} {ended}{reached}  {whose}")
        if ended == "interrupted":
            raise KeyboardInterrupt

    def keep_best(self) -> FrozenTrial | None:
        """Write the settings of the best trial, if there is one, and return it."""
        with self.study.locked():
            best = find_best(self.study.trials)
            if best is not None:
                self._best = f"best {best.value:.1%} (trial {best.number})"
                self._write_settings(best)
        return best

    def result(self) -> TuneResult:
        """Summarise the search.

        Raises:
            TrainingError: If no trial has finished.
        """
        self.study.close_lost()
        trials = self.study.trials
        best, own = self.keep_best(), baseline_trial(trials)
        if best is None:
            if self._failure is not None:
                raise self._failure
            needed = f": one needs about {self._needed_s:.0f} s" if self._needed_s else ""
            raise TrainingError(
                f"no trial finished in {self._budget_s:.0f} s{needed}",
                hint="increase --time-budget, or use fewer --epochs or fewer images: --subset 2000",
            )
        return TuneResult(
            best=read_trial(best),
            own=None if own is None else read_trial(own),
            trials=tuple(map(read_trial, trials)),
            num_validation=len(self._splits.validation),
            p_value=None if own is None else p_value_of(best, own, trials),
            settings_file=self.study.folder / SETTINGS,
            interrupted=bool(self.interrupts),
            by_class=accuracy_by_class(best, self._splits.validation),
        )

    def _fit(self, trial: optuna.Trial, plan: Plan) -> tuple[str, FitResult | None]:
        """Train one trial; return its outcome and, if training ended, its result."""
        ended = "finished"
        started = first_ended = self._clock()
        total = plan.recipe.num_epochs

        def on_epoch(epoch: int, figures: Any) -> bool:
            nonlocal ended, first_ended
            worse = self.study.report(trial, epoch, float(figures["val_accuracy"]))
            now = self._clock()
            if epoch == 1:  # includes the compile time
                first_ended = now
            if epoch == total:
                return False
            needed_s = first_ended - started + (now - first_ended) / max(epoch - 1, 1) * (total - 1)
            if self.interrupts:
                ended = "interrupted"
            elif epoch > 1 and started + needed_s > self._started + self._budget_s * _OVER:
                ended, self._needed_s = "out of time", needed_s
            elif worse:
                ended = "pruned"
            return ended != "finished"

        def on_progress(progress: Progress) -> None:
            self._report(detail=f"trial {trial.number}  {progress.detail.partition('  ')[0]}")
            now = self._clock()
            if now > self._started + self._budget_s * _OVER:
                if progress.task == "training" and progress.done and progress.total:
                    self._needed_s = (now - started) * progress.total / progress.done
                raise _OutOfTime

        try:
            keras.utils.clear_session()
            fitted = fit_network(
                plan, self._splits.train, self._splits.validation, on_progress=on_progress, on_epoch=on_epoch
            )
        except TrainingError as error:
            self._failure = error
            self._num_failures += 1
            short = error.__cause__ is not None and is_out_of_memory(error.__cause__)
            return "out of memory" if short else "diverged", None
        except KeyboardInterrupt:
            return "interrupted", None
        except _OutOfTime:
            return "out of time", None
        self._num_failures = 0
        return ("interrupted" if fitted.interrupted else ended), fitted

    def _report(self, detail: str = "", line: str = "") -> None:
        total = round(self._budget_s)
        done = min(round(self._clock() - self._started), total)
        detail = "  ".join(part for part in (detail, self._best) if part)
        self._on_progress(Progress("tuning", done, total, unit="s", detail=detail, line=line))

    def _write_settings(self, best: FrozenTrial) -> None:
        """Write a file for ``train --config``, atomically."""
        config = self._plan.config
        values = config.model_dump(include=_STORED, exclude_none=True)
        values |= self._plan.recipe.changed(**best.params).model_dump(mode="json")
        about = (
            f"# Validation accuracy {best.value:.2%} on {len(self._splits.validation):,} images, after "
            f"training on {len(self._splits.train):,}; trial {best.number} of the search in this folder.\n"
        )
        text = about + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
        partial = self.study.folder / f".{SETTINGS}.partial"
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.study.folder / SETTINGS)


def _is_no_retracing_warning(record: logging.LogRecord) -> bool:
    """Drop TensorFlow's warning about retracing, which is expected: each trial has its own network."""
    return "tf.function retracing" not in record.getMessage()
