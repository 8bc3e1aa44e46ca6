"""Logging of runs in a workspace's MLflow: written through its REST API, read by MLflow's client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from cifarml.azure.workspace import AzureWorkspace
from cifarml.errors import CloudError
from cifarml.registry.azure.registry import AzureRegistry
from cifarml.registry.run_record import Metric, RunRecord
from tests.emulators.azureml.cloud import Cloud
from tests.emulators.azureml.faults import LoseReply, Refuse

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def record(epochs: int) -> RunRecord:
    at = [START + timedelta(seconds=epoch) for epoch in range(epochs)]
    return RunRecord(
        run_id="0123456789abcdef" * 2,
        name="best of Monday",
        started_at=START,
        ended_at=START + timedelta(minutes=5),
        metrics=(*(Metric("loss", 1 / (epoch + 1), epoch + 1, at[epoch]) for epoch in range(epochs)),),
        parameters={"preset": "fast", "widths": "1" * 600} | {f"p{number}": "x" for number in range(120)},
        tags={"machine": "Linux", "folder": "/home/user"},
        interrupted=True,
    )


READ_RUN = """
import json, mlflow, os, sys
client = mlflow.MlflowClient()
experiment = client.get_experiment_by_name("cifar10")
(run,) = client.search_runs([experiment.experiment_id])
history = client.get_metric_history(run.info.run_id, "loss")
values = [[metric.value, metric.step, metric.timestamp] for metric in history]
info = [run.info.run_name, run.info.status, run.info.start_time, run.info.end_time]
print(json.dumps([info, run.data.params, run.data.tags, values]))
"""


def test_mlflow_reads_logged_runs(
    cloud: Cloud, python: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, run = AzureWorkspace(), record(600)  # more metrics than one request may contain
    AzureRegistry(workspace).insert_run(run)
    AzureRegistry(workspace).insert_run(run)  # idempotent
    address = str(workspace.info.mlflow_tracking_uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("azureml://", "https://"))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", cloud.new_token())
    info, parameters, tags, values = json.loads(python(READ_RUN))
    start = int(START.timestamp() * 1000)
    assert info == ["best of Monday", "KILLED", start, start + 300_000]
    assert len(parameters) == 122
    assert (parameters["preset"], parameters["widths"]) == ("fast", "1" * 500)
    assert tags["machine"] == "Linux"
    assert "folder" not in tags
    assert values == [[metric.value, metric.step, start + 1000 * (metric.step - 1)] for metric in run.metrics]


@pytest.mark.parametrize("endpoint", ["get-by-name", "search", "log-batch", "update", "experiments/create"])
def test_lost_response_is_retried(cloud: Cloud, endpoint: str) -> None:
    lost: list[str] = []

    def lose(request: object) -> LoseReply | None:
        path = str(getattr(request, "path", ""))
        if not path.endswith(endpoint) or lost:
            return None
        lost.append(path)
        return LoseReply()

    cloud.plan = lose
    AzureRegistry(AzureWorkspace()).insert_run(record(3))
    assert lost
    (run,) = cloud.runs.values()
    assert run.status == "KILLED"


def test_run_is_created_once(cloud: Cloud) -> None:
    """Creation is not retried after a lost response; the next attempt finds the run."""
    cloud.plan = lambda request: LoseReply() if request.path.endswith("runs/create") else None
    registry = AzureRegistry(AzureWorkspace())
    with pytest.raises(CloudError, match=r"can't log run best of Monday: (no|the) connection to Azure"):
        registry.insert_run(record(3))
    registry.insert_run(record(3))
    (run,) = cloud.runs.values()
    assert run.status == "KILLED"


def test_error_messages_of_the_service_are_shown(cloud: Cloud) -> None:
    registry, run = AzureRegistry(AzureWorkspace()), record(3)
    refusal = Refuse(500, "InternalServerError")
    cloud.plan = lambda request: refusal if request.path.endswith("runs/update") else None
    with pytest.raises(CloudError, match="internal service error"):
        registry.insert_run(run)
    next(iter(cloud.runs.values())).params["preset"] = "other"
    with pytest.raises(CloudError, match="Monday: Changing param values is not allowed"):
        registry.insert_run(run)


def test_expiring_tokens_are_renewed(cloud: Cloud, short_tokens: None) -> None:
    registry = AzureRegistry(AzureWorkspace())
    registry.insert_run(record(3))
    before = len(cloud.bench.entra.tokens)
    registry.insert_run(record(3))
    assert len(cloud.bench.entra.tokens) > before


@pytest.fixture
def short_tokens(ml_cloud: Cloud) -> Iterator[None]:
    """Issue tokens that are about to expire."""
    ml_cloud.bench.entra.lifetime_s = 200
    yield
    ml_cloud.bench.entra.lifetime_s = 3600
