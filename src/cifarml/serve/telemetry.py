"""Telemetry of an endpoint: Prometheus metrics and a JSON access log."""

from __future__ import annotations

import json
import logging
import logging.handlers
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

from cifarml.serve.endpoint_folder import EndpointRecord

_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_MAX_LOG_BYTES: Final = 10 << 20
_KEPT_LOGS: Final = 2
_MAX_BUFFERED_LINES: Final = 200


class EndpointMetrics:
    """Prometheus metrics: requests, latency and predictions."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "cifarml_requests", "Scoring requests.", ("deployment", "status"), registry=registry
        )
        self._seconds = Histogram(
            "cifarml_request_seconds",
            "Seconds from the complete request to the response.",
            ("deployment",),
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._predictions = Counter(
            "cifarml_predictions", "Images by predicted class.", ("deployment", "label"), registry=registry
        )
        about = "Model and version of each deployment."
        labels = ("deployment", "model", "version")
        self._models = Gauge("cifarml_model_info", about, labels, registry=registry)
        self._traffic = Gauge(
            "cifarml_traffic_percent", "Traffic share in percent.", ("deployment",), registry=registry
        )

    def count(self, deployment: str, status: int, seconds: float, answer: bytes) -> None:
        """Count a scoring request; ``deployment`` is empty if none handled it."""
        self._requests.labels(deployment, str(status)).inc()
        self._seconds.labels(deployment).observe(seconds)
        if status == 200:
            for label in _labels(answer):
                self._predictions.labels(deployment, label).inc()

    def text(self, endpoint: EndpointRecord) -> bytes:
        """Return all metrics in the Prometheus text format."""
        self._models.clear()
        self._traffic.clear()
        for each in endpoint.deployments:
            self._models.labels(each.name, each.model, each.version).set(1)
            self._traffic.labels(each.name).set(endpoint.traffic.get(each.name, 0))
        return generate_latest(self._registry)


def _labels(answer: bytes) -> list[str]:
    """Return the predicted classes in a response; empty if the response is malformed."""
    try:
        document = json.loads(answer)
        return [each["result"] for each in document.get("predictions", (document,)) if "result" in each]
    except (ValueError, AttributeError, TypeError):
        return []


class AccessLog:
    """Access log: one line of JSON for each request, without its body or query.

    Lines are buffered; the server calls :meth:`flush` twice a second.

    Args:
        path: The file; it is rotated at 10 MB, and two old files are kept.
    """

    def __init__(self, path: Path) -> None:
        self._file = _QuietFile(
            path, maxBytes=_MAX_LOG_BYTES, backupCount=_KEPT_LOGS, encoding="utf-8", delay=True
        )
        self._buffer = logging.handlers.MemoryHandler(_MAX_BUFFERED_LINES, logging.CRITICAL, self._file)

    def write(self, **fields: Any) -> None:
        """Add a line to the buffer."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, **fields})
        self._buffer.handle(logging.LogRecord("access", logging.INFO, "", 0, line, None, None))

    def flush(self) -> None:
        """Write buffered lines to the file."""
        self._buffer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._buffer.close()
        self._file.close()


class _QuietFile(logging.handlers.RotatingFileHandler):
    """Rotating file that drops lines instead of failing, for example if the disk is full."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass
