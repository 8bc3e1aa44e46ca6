"""Runs in the MLflow of an Azure ML workspace, written through MLflow's own client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cifarml.registry.run_record import EXPERIMENT, RunRecord, milliseconds

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["insert_run"]

_OUR_ID: Final = "cifarml_run_id"
"""Tag by which a run is known again: Azure ML gives it an id of its own."""

_MAX_TEXT: Final = 500
"""Longest value of a parameter that Azure ML keeps, in characters."""

_MAX_ENTRIES: Final = 100
"""Most parameters or tags in one request, by MLflow's REST API; of metrics there may be a thousand."""


def insert_run(tracking_uri: str, run: RunRecord) -> str:
    """Write a run; one that is there stays, one that is half there is completed.

    Args:
        tracking_uri: The workspace's, ``azureml://...``; the package azureml-mlflow answers to it.
        run: What is written.

    Returns:
        The run's id in the workspace.

    Raises:
        MlflowException: As MLflow's client does.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    client = MlflowClient(tracking_uri=tracking_uri)
    experiment = _experiment_id(client)
    found: list[Any] = client.search_runs([experiment], f"tags.{_OUR_ID} = '{run.run_id}'", max_results=1)
    if found and found[0].info.status in {"FINISHED", "KILLED", "FAILED"}:
        return str(found[0].info.run_id)
    if found:
        run_id = str(found[0].info.run_id)
    else:
        tags = {_OUR_ID: run.run_id, "mlflow.runName": run.name}
        made = client.create_run(experiment, milliseconds(run.started_at), tags, run.name)
        run_id = str(made.info.run_id)
    metrics = [
        Metric(each.name, each.value, milliseconds(each.at or run.ended_at), each.step)
        for each in run.metrics
    ]
    parameters: list[Any] = [Param(key, value[:_MAX_TEXT]) for key, value in run.parameters.items()]  # type: ignore[no-untyped-call]
    known = {key: value for key, value in run.tags.items() if key != "folder"}
    run_tags: list[Any] = [RunTag(key, value[:_MAX_TEXT]) for key, value in known.items()]  # type: ignore[no-untyped-call]
    for some in _batched(metrics, 10 * _MAX_ENTRIES):
        client.log_batch(run_id, metrics=some)
    for some in _batched(parameters, _MAX_ENTRIES):
        client.log_batch(run_id, params=some)
    for some in _batched(run_tags, _MAX_ENTRIES):
        client.log_batch(run_id, tags=some)
    client.set_terminated(run_id, "KILLED" if run.interrupted else "FINISHED", milliseconds(run.ended_at))
    return run_id


def _experiment_id(client: MlflowClient) -> str:
    from mlflow.exceptions import MlflowException

    if (found := client.get_experiment_by_name(EXPERIMENT)) is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(EXPERIMENT))
    except MlflowException:  # somebody else made it meanwhile
        if (found := client.get_experiment_by_name(EXPERIMENT)) is None:
            raise
        return str(found.experiment_id)


def _batched(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
