"""Experiments and runs of the MLflow tracking service."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


def millis() -> int:
    """Return the time in milliseconds."""
    return int(time.time() * 1000)


@dataclass
class Experiment:
    id: str
    name: str
    tags: dict[str, str] = field(default_factory=dict)
    stage: str = "active"
    created: int = field(default_factory=millis)


@dataclass
class Run:
    """MLflow run; ``history`` contains all logged values, ``metrics`` the last of each."""

    id: str
    experiment_id: str
    name: str
    status: str = "RUNNING"
    start_time: int = 0
    end_time: int | None = None
    user: str = ""
    stage: str = "active"
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    history: dict[str, list[tuple[float, int, int]]] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        return {key: max(values, key=lambda one: one[1:])[0] for key, values in self.history.items()}
