"""Runs in MLflow's experiment ``cifar10``: what was asked for, how it went, and what came of it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeGuard

from cifarml.cifar10 import EXPERIMENT
from cifarml.registry.local.database import Database
from cifarml.run import Run
from cifarml.run_folders import CONFIG, HISTORY, METRICS, RunSummary

__all__ = ["Metric", "RunRecord", "insert_run", "record_run", "select_runs"]

_MAX_TEXT: Final = 5000


class Metric(NamedTuple):
    """One value of a metric; ``step`` is the epoch, from 1, where there are several."""

    name: str
    value: float
    step: int = 0
    at: datetime | None = None


@dataclass(frozen=True)
class RunRecord:
    """A run as it is written into the experiment.

    Args:
        run_id: 32 hexadecimal digits; the same run always has the same.
        name: What people call it.
        started_at: When it began.
        ended_at: When it ended.
        folder: Where its files lie, if it has any.
        metrics: Its figures.
        parameters: What it was asked to do.
        tags: What else is known.
        interrupted: Whether it was stopped early.
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


def record_run(run: Run) -> RunRecord:
    """Return what is worth knowing of a training run.

    Raises:
        ModelFileError: If a file that says it is damaged.
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
    final = [Metric(name, float(value), at=ended) for name, value in _finals(run).items()]
    return RunRecord(
        run_id=run.sha256[:32],
        name=str(info.get("run", run.path.name)),
        started_at=started,
        ended_at=ended,
        folder=run.path.resolve(),
        metrics=(*_by_epoch(run, started, duration_s), *final),
        parameters=_texts(config | counts),
        tags=_texts(tags),
        interrupted=bool(info.get("interrupted")),
    )


def insert_run(connection: sqlite3.Connection, run: RunRecord, artifacts: Path) -> None:
    """Write a run into the experiment, which is made where it is missing; one that is there stays.

    Args:
        connection: A transaction.
        run: The run.
        artifacts: Where MLflow may put files of this experiment.
    """
    if connection.execute("SELECT 1 FROM runs WHERE run_uuid = ?", (run.run_id,)).fetchone():
        return
    connection.execute(
        "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status,"
        " start_time, end_time, source_version, lifecycle_stage, artifact_uri, experiment_id)"
        " VALUES (?, ?, 'LOCAL', 'cifarml', '', '', ?, ?, ?, '', 'active', ?, ?)",
        (
            run.run_id,
            run.name[:250],
            "KILLED" if run.interrupted else "FINISHED",
            milliseconds(run.started_at),
            milliseconds(run.ended_at),
            (run.folder or artifacts.resolve() / run.run_id).as_uri(),
            _experiment_id(connection, artifacts),
        ),
    )
    tags = {
        **run.tags,
        "mlflow.runName": run.name,
        "mlflow.source.name": "cifarml",
        "mlflow.source.type": "LOCAL",
    }
    for table, texts in (("params", run.parameters), ("tags", tags)):
        connection.executemany(
            f"INSERT INTO {table} (run_uuid, key, value) VALUES (?, ?, ?)",  # noqa: S608  # one of two words
            [(run.run_id, key, value) for key, value in texts.items()],
        )
    rows = [
        (run.run_id, m.name[:250], m.value, milliseconds(m.at or run.ended_at), m.step, False)
        for m in sorted(run.metrics, key=lambda metric: metric.step)
    ]
    columns = "(run_uuid, key, value, timestamp, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)"
    connection.executemany(f"INSERT OR IGNORE INTO metrics {columns}", rows)
    # Of several steps the last one stays.
    connection.executemany(f"INSERT OR REPLACE INTO latest_metrics {columns}", rows)


def select_runs(database: Database) -> list[RunSummary]:
    """Return the training runs that were logged, the oldest first.

    Raises:
        RegistryError: If the database can't be read.
    """
    if not database.exists:
        return []
    with database.reading() as connection:
        found = connection.execute(
            "SELECT run_uuid, name, status FROM runs WHERE lifecycle_stage = 'active' AND run_uuid IN"
            " (SELECT run_uuid FROM tags WHERE key = 'run_sha256') ORDER BY end_time, run_uuid"
        ).fetchall()
        tags, metrics, params = (
            _grouped(connection.execute(f"SELECT run_uuid, key, value FROM {table}"))  # noqa: S608
            for table in ("tags", "latest_metrics", "params")
        )
    return [
        _summarise(
            row, tags[row["run_uuid"]], metrics.get(row["run_uuid"], {}), params.get(row["run_uuid"], {})
        )
        for row in found
    ]


def _summarise(
    row: sqlite3.Row, tags: Mapping[str, str], metrics: Mapping[str, float], params: Mapping[str, str]
) -> RunSummary:
    path = Path(tags.get("folder", ""))
    state = "interrupted" if row["status"] == "KILLED" else "finished"
    known = ("run_sha256", "preset", "dataset", "dataset_fingerprint")
    info: dict[str, Any] = {name: tags[name] for name in known if name in tags}
    info |= {name: value for name, value in metrics.items() if name in _FINAL}
    return RunSummary(row["name"], path, state if path.is_dir() else "deleted", info | {"parameters": params})


_FINAL: Final = (
    "test_accuracy",
    "test_loss",
    "num_epochs",
    "training_s",
    "images_per_second",
    "num_test_images",
)


def milliseconds(moment: datetime) -> int:
    """Return a moment as MLflow writes it."""
    return int(moment.timestamp() * 1000)


def _experiment_id(connection: sqlite3.Connection, artifacts: Path) -> int:
    query = "SELECT experiment_id FROM experiments WHERE name = ?"
    row = connection.execute(query, (EXPERIMENT,)).fetchone()
    if row is None:
        now = time.time_ns() // 1_000_000
        connection.execute(
            "INSERT INTO experiments (name, artifact_location, lifecycle_stage, creation_time,"
            " last_update_time) VALUES (?, ?, 'active', ?, ?)",
            (EXPERIMENT, (artifacts.resolve() / EXPERIMENT).as_uri(), now, now),
        )
        row = connection.execute(query, (EXPERIMENT,)).fetchone()
    # One that was deleted in MLflow's page comes back with its next run.
    connection.execute(
        "UPDATE experiments SET lifecycle_stage = 'active' WHERE experiment_id = ?", (row["experiment_id"],)
    )
    return int(row["experiment_id"])


def _by_epoch(run: Run, started: datetime, duration_s: float) -> Iterable[Metric]:
    """Yield the metrics of each epoch, as if all epochs had taken the same time."""
    for name, values in _mapping(run, HISTORY).items():
        if isinstance(values, list):
            for epoch, value in enumerate(values, start=1):
                if _is_number(value):
                    at = datetime.fromtimestamp(started.timestamp() + duration_s * epoch / len(values), UTC)
                    yield Metric(name[:250], float(value), epoch, at)


def _finals(run: Run) -> dict[str, float]:
    figures: dict[str, Any] = {name: run.info.get(name) for name in _FINAL}
    test = _mapping(run, METRICS).get("test")
    figures["test_macro_f1"] = test.get("macro_f1") if isinstance(test, dict) else None
    return {name: float(value) for name, value in figures.items() if _is_number(value)}


def _mapping(run: Run, name: str) -> dict[str, Any]:
    """Return the values of a JSON file of a run; none where a run lacks it."""
    values = run.read_json(name) if name in run.files else {}
    return values if isinstance(values, dict) else {}


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {key[:250]: str(value)[:_MAX_TEXT] for key, value in values.items() if value is not None}


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def _parse_time(text: object) -> datetime:
    try:
        moment = datetime.fromisoformat(str(text)).astimezone(UTC)
    except (ValueError, OverflowError):
        return datetime.now(UTC)
    return moment if 2000 <= moment.year < 3000 else datetime.now(UTC)


def _grouped(rows: Iterable[sqlite3.Row]) -> dict[str, dict[str, Any]]:
    grouped: dict[str, dict[str, Any]] = {}
    for row in rows:
        grouped.setdefault(row["run_uuid"], {})[row["key"]] = row["value"]
    return grouped
