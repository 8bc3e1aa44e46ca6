"""Comparison of the settings and metrics of two runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from cifarml.data.dataset import Dataset
from cifarml.errors import ModelFileError
from cifarml.evaluation.compare_models import Comparison, ModelFigures, compare_on_dataset
from cifarml.evaluation.evaluate import stored_evaluation
from cifarml.progress import OnProgress, ignore_progress
from cifarml.run import ONNX_MODEL, Run, RunLike
from cifarml.run_folders import ANSWERS, CONFIG, shown_settings

_SHOWN: Final = ("training_s", "images_per_second", "num_parameters")
_UNKNOWN: Final = "Cannot tell which is better"


class Answers(NamedTuple):
    """Predictions of a model on its test images, stored in its run folder for comparisons.

    Attributes:
        fingerprint: Fingerprint of the test images, equal if two runs were tested on the same images.
        labels: True labels, int64, shape (N,).
        predicted: Predicted labels, int64, shape (N,).
    """

    fingerprint: str
    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        return self._asdict() | {"labels": self.labels.tolist(), "predicted": self.predicted.tolist()}

    @classmethod
    def read(cls, run: Run) -> Self | None:
        """Read the predictions from a run folder; None if an earlier version stored none."""
        if ANSWERS not in run.files:
            return None
        values = run.read_json(ANSWERS)
        try:
            labels, predicted = (np.array(values[name], np.int64) for name in ("labels", "predicted"))
            if labels.ndim != 1 or labels.shape != predicted.shape:
                raise ValueError("expected as many labels as predictions")
            return cls(str(values["fingerprint"]), labels, predicted)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise ModelFileError(f"{run.path / ANSWERS} is damaged: {error}") from error


class RunFigures(NamedTuple):
    """Metrics, settings and size of a run.

    Attributes:
        figures: Accuracy, loss, calibration error and recall on its own test images.
        class_counts: Number of test images of each class.
        config: Settings of the training.
        info: Entries of the manifest, such as ``training_s``.
        model_bytes: Size of the ONNX model.
    """

    figures: ModelFigures
    class_counts: Mapping[str, int]
    config: Mapping[str, Any]
    info: Mapping[str, Any]
    model_bytes: int

    @classmethod
    def read(cls, run: Run, name: str) -> Self:
        """Read a run folder; ``name`` is the display name of the run.

        Raises:
            ModelFileError: If a file is missing, changed or damaged.
        """
        config, evaluation, info = run.read_json(CONFIG), stored_evaluation(run), run.info
        try:
            figures = ModelFigures.of_run(name, run, evaluation, info["test_calibration_error"])
            counts = {each.name: int(each.num_images) for each in evaluation.classes if each.num_images}
            settings = shown_settings(config)
            for shown in _SHOWN:
                float(info[shown])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ModelFileError(f"the metrics in {run.path} are damaged: {error!r}") from error
        return cls(figures, counts, settings, info, len(run.read(ONNX_MODEL)))


class RunComparison(NamedTuple):
    """Comparison of two runs.

    Attributes:
        first: The first run.
        second: The second run.
        differing: Both values of each setting that differs; None if a run does not have the setting.
        comparison: Comparison on the same images; None if the runs were tested on different images.
        verdict: Sentence that says which run is better, or why that is unknown.
    """

    first: RunFigures
    second: RunFigures
    differing: Mapping[str, tuple[Any, Any]]
    comparison: Comparison | None
    verdict: str


def compare_runs(
    first: RunLike,
    second: RunLike,
    dataset: Dataset | None = None,
    *,
    names: tuple[str, str] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> RunComparison:
    """Compare two runs, and test whether the difference in accuracy is significant (McNemar's test).

    By default the stored predictions of both runs on the same test images are compared. With `dataset`, both
    models predict its images.

    Args:
        first: A run, the path of its folder, or a registered model.
        second: The other run.
        dataset: Images for the comparison, all of which are used. By default the test images of the runs.
        names: Display names of the runs. By default the names of their folders.
        on_progress: Called after every batch.

    Returns:
        The metrics of both runs, the settings that differ, and a verdict.

    Raises:
        DataError: If `dataset` has no images, or images of a class that one of the models was not trained
            on.
        ModelFileError: If a run is missing or damaged.

    Example:
        ```python
        comparison = compare_runs("runs/first", "runs/second")
        print(comparison.verdict)
        print(comparison.differing)
        ```
    """
    first, second = Run.open(first), Run.open(second)
    names = names or (first.path.name, second.path.name)
    a, b = (RunFigures.read(run, name) for run, name in zip((first, second), names, strict=True))
    settings = [*a.config, *(name for name in b.config if name not in a.config)]
    both = {name: (a.config.get(name), b.config.get(name)) for name in settings}
    differing = {name: values for name, values in both.items() if values[0] != values[1]}
    if dataset is not None:
        comparison = compare_on_dataset(first, second, dataset, names=names, on_progress=on_progress)
        return RunComparison(a, b, differing, comparison, comparison.summary)
    compared = _compare_answers(a, b, Answers.read(first), Answers.read(second))
    if isinstance(compared, str):
        return RunComparison(a, b, differing, None, compared)
    return RunComparison(a, b, differing, compared, compared.summary)


def _compare_answers(
    a: RunFigures, b: RunFigures, first: Answers | None, second: Answers | None
) -> Comparison | str:
    """Compare stored predictions, or return the reason why they cannot be compared."""
    if first is None or second is None:
        without = a if first is None else b
        return f"{_UNKNOWN}: {without.figures.name} has no stored predictions on its test images"
    if first.fingerprint != second.fingerprint or len(first.labels) != len(second.labels):
        tested = [
            f"{run.figures.name} on {len(answers.labels):,} of {run.info.get('dataset')}"
            for run, answers in ((a, first), (b, second))
        ]
        return f"{_UNKNOWN}: they were tested on different images, {', '.join(tested)}"
    right = [each.predicted == each.labels for each in (first, second)]
    return Comparison(
        first=a.figures,
        second=b.figures,
        data=str(a.info.get("dataset")),
        fingerprint=first.fingerprint,
        class_counts=a.class_counts,
        num_only_first=int(np.sum(right[0] & ~right[1])),
        num_only_second=int(np.sum(right[1] & ~right[0])),
    )
