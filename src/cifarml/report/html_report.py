"""Self-contained HTML report of a run, created from the files of its folder."""

from __future__ import annotations

import base64
import io
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from cifarml.data.dataset import Dataset
from cifarml.data.describe import list_counts
from cifarml.evaluation.calibration import scale_probabilities
from cifarml.evaluation.metrics import Evaluation, Reliability, measure_reliability
from cifarml.hardware.devices import describe_machine
from cifarml.report.figure import percent
from cifarml.report.plots import confusion_matrix, learning_curve
from cifarml.report.reliability_diagram import reliability_diagram
from cifarml.run_folders import CONFIG, HISTORY, METRICS, REPORT

_MISTAKES: Final = 24
_CONFUSIONS: Final = 6
_SKIPPED: Final = 20
"""Maximum number shown in the report."""


def write_report(
    run_dir: Path, info: Mapping[str, Any], test: Dataset, probabilities: npt.NDArray[np.float32]
) -> Path:
    """Write `report.html` into a run folder.

    The page is self-contained: plots and images are embedded, and it contains no scripts and loads nothing.
    Names and addresses come from users' files and are escaped. Settings, history, metrics, data set and
    environment are read from the folder's JSON files.

    Args:
        run_dir: The run folder.
        info: The entries of the manifest.
        test: The test set.
        probabilities: float32, shape (N, classes), the served model's predictions for the test set.

    Returns:
        The path of the report.

    Raises:
        OSError: If a file is missing or the page can't be written.
    """

    def read(name: str) -> Any:
        return json.loads((run_dir / name).read_text(encoding="utf-8"))

    evaluation = Evaluation.from_json(read(METRICS)["test"])
    history, data, machine = read(HISTORY), read("dataset.json"), read("environment.json")
    trained_on = {each["name"]: each["train"] + each["validation"] for each in data.get("classes", ())}
    calibration = _calibration(probabilities, test.labels, float(info["temperature"]))
    settings = read(CONFIG)
    made_on = settings.pop("machine")
    page = _ENVIRONMENT.get_template(REPORT).render(
        name=info["run"],
        argument=shlex.quote(str(info["run"])),
        info=info,
        evaluation=evaluation,
        by_class=evaluation.by_class,
        cautions=[*evaluation.by_class.cautions(), *(f"Data: {each}" for each in data.get("warnings", ()))],
        trained_on=trained_on,
        classes=list_counts(trained_on, width=160) if trained_on else "",
        has_validation="val_loss" in history,
        curves={key: _plot(learning_curve(history, key)) for key in ("accuracy", "loss")},
        matrix=_plot(confusion_matrix(evaluation)),
        confusions=_worst_confusions(evaluation),
        mistakes=_confident_mistakes(test, probabilities),
        num_mistakes=round((1 - evaluation.accuracy) * evaluation.num_images),
        calibration={title: each.calibration_error for title, each in calibration.items()},
        diagrams={title: _plot(reliability_diagram({title: each})) for title, each in calibration.items()},
        settings=_shown(settings),
        data=data,
        skipped=data["skipped"][:_SKIPPED],
        machine=_shown(machine) | {"machine": describe_machine(made_on["devices"])},
        packages=machine["packages"],
    )
    path = run_dir / REPORT
    # Escapes surrogates, which represent file names that are not valid Unicode.
    path.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def _calibration(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], temperature: float
) -> dict[str, Reliability]:
    """Measure calibration before and after temperature scaling, or once if there was none."""
    served = measure_reliability(probabilities, labels)
    if temperature == 1:
        return {"served model": served}
    before = measure_reliability(scale_probabilities(probabilities, 1 / temperature), labels)
    return {"before temperature scaling": before, "after temperature scaling": served}


def _worst_confusions(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the most frequent confusions of two classes, the most frequent first."""
    wrong = evaluation.confusion * (1 - np.eye(len(evaluation.confusion), dtype=np.int64))
    totals = evaluation.confusion.sum(axis=1)
    names = [each.name for each in evaluation.classes]
    found = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS].tolist():
        truth, predicted = divmod(place, len(names))
        if wrong[truth, predicted]:
            counts = {"num_confused": int(wrong[truth, predicted]), "num_images": int(totals[truth])}
            found.append({"truth": names[truth], "predicted": names[predicted], **counts})
    return found


def _confident_mistakes(test: Dataset, probabilities: npt.NDArray[np.float32]) -> list[dict[str, Any]]:
    """Return the wrong predictions with the highest confidence, the most confident first."""
    predicted, names = probabilities.argmax(axis=1), test.class_names
    wrong = np.flatnonzero(predicted != test.labels)
    order = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")]
    return [
        {
            "image": _image(test.images[index]),
            "predicted": names[predicted[index]],
            "probability": float(probabilities[index, predicted[index]]),
            "truth": names[test.labels[index]],
            "truth_probability": float(probabilities[index, test.labels[index]]),
            "source": test.sources[index],
        }
        for index in order[:_MISTAKES].tolist()
    ]


def _plot(figure: Figure) -> str:
    """Return a figure as an SVG data URI with a transparent background, for light and dark mode."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _data_uri("image/svg+xml", file.getvalue())


def _image(image: npt.NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return _data_uri("image/png", file.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _shown(values: Mapping[str, Any]) -> dict[str, str]:
    """Format settings for display: lists separated by commas, nested dicts omitted."""
    return {
        name.replace("_", " "): ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in values.items()
        if not isinstance(value, dict)
    }


def _percent(share: float, digits: int = 0) -> str:
    return percent(share, digits).replace(" ", "\N{NO-BREAK SPACE}")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 120 else f"{minutes} min {left} s"


_ENVIRONMENT: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"percent": _percent, "duration": _duration}
