"""What an endpoint tells about itself: figures for Prometheus, and a line for each request."""

from __future__ import annotations

import json
import logging
import logging.handlers
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

__all__ = ["AccessLog", "Figures"]

_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_MAX_LOG_BYTES: Final = 10 << 20
_KEPT_LOGS: Final = 2
_LINES_AT_ONCE: Final = 200


class Figures:
    """Counts requests, times and predictions."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "cifarml_requests", "Requests to score.", ("deployment", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "cifarml_request_seconds",
            "From the whole request to the answer, in seconds.",
            ("deployment",),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._predictions = Counter(
            "cifarml_predictions",
            "Images by predicted class.",
            ("deployment", "label"),
            registry=self.registry,
        )
        self._models = Gauge(
            "cifarml_model_info", "Which model a deployment runs.", ("deployment", "model", "version"),
            registry=self.registry,
        )  # fmt: skip
        self._traffic = Gauge(
            "cifarml_traffic_percent", "Share of the requests.", ("deployment",), registry=self.registry
        )

    def count(self, deployment: str, status: int, seconds: float, answer: bytes) -> None:
        """Count a request to score.

        Args:
            deployment: Who answered; empty where nobody did.
            status: HTTP status.
            seconds: How long it took.
            answer: Its JSON document.
        """
        self._requests.labels(deployment, str(status)).inc()
        self._seconds.labels(deployment).observe(seconds)
        if status == 200:
            for label in _labels(answer):
                self._predictions.labels(deployment, label).inc()

    def text(self, deployments: Iterable[tuple[str, str, str]], traffic: dict[str, int]) -> bytes:
        """Return all figures in Prometheus' text format.

        Args:
            deployments: Name, model and version of each.
            traffic: Share of each that has one.
        """
        self._models.clear()
        self._traffic.clear()
        for name, model, version in deployments:
            self._models.labels(name, model, version).set(1)
            self._traffic.labels(name).set(traffic.get(name, 0))
        return generate_latest(self.registry)


def _labels(answer: bytes) -> list[str]:
    """Return the predicted classes in an answer; none where a faulty script answered something else."""
    try:
        document = json.loads(answer)
        return [each["result"] for each in document.get("predictions", (document,)) if "result" in each]
    except (ValueError, AttributeError, TypeError):
        return []


class AccessLog:
    """One line of JSON for each request: who, what, how it went, never what was sent.

    Lines are written some hundreds at a time, and at least once a second (:meth:`flush` is called).

    Args:
        path: The file; it is turned over at 10 MB, and two old ones are kept.
    """

    def __init__(self, path: Path) -> None:
        self._file = _QuietFile(
            path, maxBytes=_MAX_LOG_BYTES, backupCount=_KEPT_LOGS, encoding="utf-8", delay=True
        )
        self._buffer = logging.handlers.MemoryHandler(_LINES_AT_ONCE, logging.CRITICAL, self._file)

    def write(self, **fields: Any) -> None:
        """Write a line."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, **fields})
        self._buffer.handle(logging.LogRecord("access", logging.INFO, "", 0, line, None, None))

    def flush(self) -> None:
        """Write what waits."""
        self._buffer.flush()

    def close(self) -> None:
        """Write what waits, and no more."""
        self._buffer.close()
        self._file.close()


class _QuietFile(logging.handlers.RotatingFileHandler):
    """A log that never stops the work: on a full disk its lines are lost."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass
