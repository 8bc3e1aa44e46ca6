"""Run records of MLflow's experiment ``cifar10``: parameters, metrics and tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeGuard

from cifarml.run import Run
from cifarml.run_folders import CONFIG, HISTORY, METRICS, RunSummary

_MAX_TEXT: Final = 5000


class Metric(NamedTuple):
    """Value of a metric; ``step`` is the epoch (from 1), or 0 for a final value."""

    name: str
    value: float
    step: int = 0
    at: datetime | None = None


@dataclass(frozen=True)
class RunRecord:
    """Run as logged in the experiment.

    Args:
        run_id: 32 hexadecimal digits, derived from the run's content.
        name: Display name.
        started_at: Start time.
        ended_at: End time.
        folder: Run folder, if the run has files.
        metrics: Metrics by epoch, and final metrics.
        parameters: Configuration of the run.
        tags: Additional strings, such as the hashes of run and data.
        interrupted: True if training was stopped early.
    """

    run_id: str
    name: str
    started_at: datetime
    ended_at: datetime
    folder: Path | None = None
    metrics: tuple[Metric, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def identity(self) -> dict[str, str]:
        """Tags that identify the run, its preset and its training data."""
        names = ("run_sha256", "preset", "dataset", "dataset_fingerprint")
        return {name: self.tags[name] for name in names if name in self.tags}


def record_run(run: Run) -> RunRecord:
    """Create the record of a training run.

    Raises:
        ModelFileError: If one of the files it is read from is damaged.
    """
    info = run.info
    ended = _parse_time(info.get("created"))
    duration = info.get("training_s")
    duration_s = float(duration) if _is_number(duration) and 0 <= duration < 1e9 else 0.0
    started = datetime.fromtimestamp(ended.timestamp() - duration_s, UTC)
    config = _mapping(run, CONFIG)
    environment = _mapping(run, "environment.json")
    counts = {name: value for name, value in _mapping(run, "dataset.json").items() if _is_number(value)}
    devices = environment.get("devices")
    tags = {
        "run_sha256": run.sha256,
        **{name: info.get(name) for name in ("preset", "dataset", "dataset_fingerprint")},
        "machine": environment.get("platform"),
        "devices": ", ".join(map(str, devices)) if isinstance(devices, list) else None,
        "folder": run.path.resolve(),
    }
    final = [Metric(name, float(value), at=ended) for name, value in _final_metrics(run).items()]
    return RunRecord(
        run_id=run.sha256[:32],
        name=str(info.get("run", run.path.name)),
        started_at=started,
        ended_at=ended,
        folder=run.path.resolve(),
        metrics=(*_by_epoch(run, started, duration_s), *final),
        parameters=_strings(config | counts),
        tags=_strings(tags),
        interrupted=bool(info.get("interrupted")),
    )


def summarise(record: RunRecord) -> RunSummary:
    """Convert a record to a `RunSummary`, as returned by `cifarml.run_folders.list_runs`."""
    folder = record.folder or Path()
    state = "interrupted" if record.interrupted else "finished"
    info: dict[str, Any] = dict(record.identity)
    info |= {metric.name: metric.value for metric in record.metrics if metric.name in _FINAL}
    info["parameters"] = dict(record.parameters)
    return RunSummary(record.name, folder, state if folder.is_dir() else "deleted", info)


_FINAL: Final = (
    "test_accuracy",
    "test_loss",
    "num_epochs",
    "training_s",
    "images_per_second",
    "num_test_images",
    "test_majority_baseline",
    "test_balanced_accuracy",
)


def milliseconds(moment: datetime) -> int:
    """Convert a time to milliseconds since the Unix epoch, for MLflow's API."""
    return int(moment.timestamp() * 1000)


def _by_epoch(run: Run, started: datetime, duration_s: float) -> Iterable[Metric]:
    """Yield the metrics of each epoch, with times that assume epochs of equal length."""
    for name, values in _mapping(run, HISTORY).items():
        if isinstance(values, list):
            for epoch, value in enumerate(values, start=1):
                if _is_number(value):
                    at = datetime.fromtimestamp(started.timestamp() + duration_s * epoch / len(values), UTC)
                    yield Metric(name[:250], float(value), epoch, at)


def _final_metrics(run: Run) -> dict[str, float]:
    figures: dict[str, Any] = {name: run.info.get(name) for name in _FINAL}
    test = _mapping(run, METRICS).get("test")
    figures["test_macro_f1"] = test.get("macro_f1") if isinstance(test, dict) else None
    return {name: float(value) for name, value in figures.items() if _is_number(value)}


def _mapping(run: Run, name: str) -> dict[str, Any]:
    """Return the JSON object in a file of a run; empty if the file is missing."""
    values = run.read_json(name) if name in run.files else {}
    return values if isinstance(values, dict) else {}


def _strings(values: Mapping[str, object]) -> dict[str, str]:
    return {key[:250]: str(value)[:_MAX_TEXT] for key, value in values.items() if value is not None}


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def _parse_time(text: object) -> datetime:
    try:
        moment = datetime.fromisoformat(str(text)).astimezone(UTC)
    except (ValueError, OverflowError):
        return datetime.now(UTC)
    return moment if 2000 <= moment.year < 3000 else datetime.now(UTC)
