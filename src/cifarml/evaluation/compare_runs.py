"""Two runs side by side: settings, figures, and whether one is better than the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from cifarml.data.dataset import Dataset
from cifarml.errors import ModelFileError
from cifarml.evaluation.compare_models import Comparison, ModelFigures, compare_on_dataset
from cifarml.evaluation.metrics import Evaluation
from cifarml.progress import OnProgress, ignore_progress
from cifarml.run import ONNX_MODEL, Run, RunLike
from cifarml.run_folders import ANSWERS, CONFIG, METRICS, shown_settings

_SHOWN: Final = ("training_s", "images_per_second", "num_parameters")
_UNKNOWN: Final = "Nobody knows which is better"


class Answers(NamedTuple):
    """What a model answered on its test images, kept in a run folder, so that runs can be compared.

    Attributes:
        fingerprint: That of the test images: equal where two runs were asked about the same.
        labels: int64, shape (N,): what the images are.
        predicted: int64, shape (N,): what the model named.
    """

    fingerprint: str
    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        return self._asdict() | {"labels": self.labels.tolist(), "predicted": self.predicted.tolist()}

    @classmethod
    def read(cls, run: Run) -> Self | None:
        """Read the answers in a run folder; None if an earlier version has kept none."""
        if ANSWERS not in run.files:
            return None
        values = run.read_json(ANSWERS)
        try:
            labels, predicted = (np.array(values[name], np.int64) for name in ("labels", "predicted"))
            if labels.ndim != 1 or labels.shape != predicted.shape:
                raise ValueError("labels and answers must be as many")
            return cls(str(values["fingerprint"]), labels, predicted)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise ModelFileError(f"{run.path / ANSWERS} is damaged: {error}") from error


class RunFigures(NamedTuple):
    """What a run reached, and with what.

    Attributes:
        figures: Accuracy, loss, calibration error and recalls, on its own test images.
        class_counts: How many of those there are of each class.
        config: Its settings.
        info: The entries of its manifest, such as ``training_s``.
        model_bytes: Size of its ONNX model.
    """

    figures: ModelFigures
    class_counts: Mapping[str, int]
    config: Mapping[str, Any]
    info: Mapping[str, Any]
    model_bytes: int

    @classmethod
    def read(cls, run: Run, name: str) -> Self:
        """Read a run folder; the run is called ``name``.

        Raises:
            ModelFileError: If a file is missing, changed or damaged.
        """
        config, metrics, info = run.read_json(CONFIG), run.read_json(METRICS), run.info
        try:
            evaluation = Evaluation.from_json(metrics["test"])
            figures = ModelFigures.of_run(name, run, evaluation, info["test_calibration_error"])
            counts = {each.name: int(each.num_images) for each in evaluation.classes if each.num_images}
            settings = shown_settings(config)
            for shown in _SHOWN:
                float(info[shown])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ModelFileError(f"the figures in {run.path} are damaged: {error!r}") from error
        return cls(figures, counts, settings, info, len(run.read(ONNX_MODEL)))


class RunComparison(NamedTuple):
    """Two runs side by side.

    Attributes:
        first: One of them.
        second: The other.
        differing: The settings that differ, each with the value of both; None where one has no such setting.
        comparison: Both on the same images; None where no images are known that both were asked about.
        verdict: Whether one is better than the other, or why nobody knows, in words.
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
    """Lay two runs side by side, and say whether one is better or the difference is noise.

    Runs that were tested on the same images are compared by the answers that each has kept. With other
    images, or for runs that kept none, both models are asked again.

    Args:
        first: One model: a run, the path of its folder, or a registered model.
        second: The other one.
        dataset: Images to ask both about, all of which are used; their own test images when left out.
        names: What the runs are called; as their folders when left out.
        on_progress: Called after every batch.

    Raises:
        DataError: If there are no images in ``dataset``, or of a class that one of the models doesn't know.
        ModelFileError: If a run is damaged.

    Example:
        >>> compare_runs("runs/a", "runs/b").verdict  # doctest: +SKIP
        'No difference beyond noise: ...'
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
    """Compare what two runs answered; or say why that can't be done."""
    if first is None or second is None:
        without = a if first is None else b
        return f"{_UNKNOWN}: {without.figures.name} has kept no answers on its test images"
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
