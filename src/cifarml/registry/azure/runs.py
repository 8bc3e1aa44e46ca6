"""Log runs in an Azure ML workspace through MLflow's REST API."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from cifarml.azure.errors import is_missing
from cifarml.azure.workspace import AzureWorkspace
from cifarml.cifar10 import EXPERIMENT
from cifarml.registry.run_record import RunRecord, milliseconds

_ID_TAG: Final = "cifarml_run_id"
"""Tag with cifarml's run ID; Azure ML assigns its own."""

_MAX_TEXT: Final = 500
"""Maximum length of a parameter's value in Azure ML, in characters."""

_MAX_ENTRIES: Final = {"metrics": 250, "params": 100, "tags": 100}
"""Entries per request: https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity for
metrics, https://mlflow.org/docs/latest/rest-api.html#request-limits for the others."""


def insert_run(workspace: AzureWorkspace, run: RunRecord) -> str:
    """Log a run, or complete a partly logged one; call it inside `AzureWorkspace.calling`.

    Returns:
        The run's ID in the workspace.
    """
    api = _TrackingApi(workspace)
    experiment_id = api.find_experiment()
    query = f"tags.{_ID_TAG} = '{run.run_id}'"
    search = {"experiment_ids": [experiment_id], "filter": query, "max_results": 1}
    found = api.post("runs/search", search)
    if found.get("runs"):
        info = found["runs"][0]["info"]
        if info["status"] in {"FINISHED", "KILLED", "FAILED"}:
            return str(info["run_id"])
    else:
        created = {
            "experiment_id": experiment_id,
            "run_name": run.name,
            "start_time": milliseconds(run.started_at),
            "tags": _entries({_ID_TAG: run.run_id, "mlflow.runName": run.name}),
        }
        info = api.post("runs/create", created, is_idempotent=False)["run"]["info"]
    run_id = str(info["run_id"])
    metrics = [
        {"key": name, "value": value, "step": step, "timestamp": milliseconds(at or run.ended_at)}
        for name, value, step, at in run.metrics
    ]
    batches: dict[str, list[Any]] = {
        "metrics": metrics,
        "params": _entries(run.parameters),
        "tags": _entries({key: value for key, value in run.tags.items() if key != "folder"}),
    }
    for kind, entries in batches.items():
        size = _MAX_ENTRIES[kind]
        for start in range(0, len(entries), size):
            api.post("runs/log-batch", {"run_id": run_id, kind: entries[start : start + size]})
    status = "KILLED" if run.interrupted else "FINISHED"
    api.post("runs/update", {"run_id": run_id, "status": status, "end_time": milliseconds(run.ended_at)})
    return run_id


class _TrackingApi:
    """Client of a workspace's MLflow REST API.

    The API is served below the tracking URI, over HTTPS, and accepts tokens of Azure Resource Manager: see
    sdk/python/using-mlflow/using-rest-api in https://github.com/Azure/azureml-examples. azureml-mlflow 1.62
    uses version 2.0 with MLflow 2 and 3.
    """

    def __init__(self, workspace: AzureWorkspace) -> None:
        self._workspace = workspace
        host = urlsplit(str(workspace.info.mlflow_tracking_uri)).netloc
        self._url = f"https://{host}/mlflow/v2.0{workspace.resource_id}/api/2.0/mlflow"

    def post(self, endpoint: str, values: Mapping[str, Any], *, is_idempotent: bool = True) -> Any:
        """Send a request; retry it after a lost response only if it is idempotent."""
        options: dict[str, Any] = {"retry_on_methods": frozenset({"POST"})} if is_idempotent else {}
        return self._workspace.request("POST", f"{self._url}/{endpoint}", values, **options)

    def find_experiment(self) -> str:
        """Return the ID of the experiment, which is created if it does not exist."""
        from azure.core.exceptions import HttpResponseError

        try:
            return self._get_experiment()
        except HttpResponseError as error:
            if not is_missing(error):
                raise
        try:
            return str(self.post("experiments/create", {"name": EXPERIMENT})["experiment_id"])
        except HttpResponseError:
            with suppress(HttpResponseError):  # another process may have created it
                return self._get_experiment()
            raise

    def _get_experiment(self) -> str:
        url = f"{self._url}/experiments/get-by-name?experiment_name={EXPERIMENT}"
        found = self._workspace.request("GET", url)
        return str(found["experiment"]["experiment_id"])


def _entries(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value[:_MAX_TEXT]} for key, value in values.items()]
