"""Write runs with MLflow's client."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from cifarml.cifar10 import EXPERIMENT
from cifarml.registry.run_record import RunRecord, milliseconds

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

RUN_ID_TAG: Final = "cifarml_run_id"
"""Tag by which a run is found again, since MLflow assigns an id of its own."""

_MAX_ENTRIES: Final = 100
"""Most parameters or tags in one request, by MLflow's REST API; of metrics there may be a thousand."""


def open_experiment(client: MlflowClient, artifact_location: str | None = None) -> str:
    """Return the id of the experiment ``cifar10``, which is created if it is missing.

    Args:
        client: MLflow's client.
        artifact_location: Where a new experiment puts files; by default, the server decides.

    Raises:
        MlflowException: As MLflow's client does.
    """
    from mlflow.exceptions import MlflowException

    if (found := client.get_experiment_by_name(EXPERIMENT)) is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(EXPERIMENT, artifact_location))
    except MlflowException:  # somebody else created it meanwhile
        if (found := client.get_experiment_by_name(EXPERIMENT)) is None:
            raise
        return str(found.experiment_id)


def write_run(
    client: MlflowClient,
    experiment_id: str,
    record: RunRecord,
    found: MlflowRun | None,
    max_length: int = 5000,
) -> str:
    """Write a run; one that is there stays, one that is half there is completed.

    Args:
        client: MLflow's client.
        experiment_id: The experiment's.
        record: What is written.
        found: The run with this :data:`RUN_ID_TAG`, if there is one.
        max_length: Longest value of a parameter or tag, in characters.

    Returns:
        The run's id in MLflow.

    Raises:
        MlflowException: As MLflow's client does.
    """
    from mlflow.entities import Metric, Param, RunTag

    if found is None:
        tags = {RUN_ID_TAG: record.run_id, "mlflow.runName": record.name}
        found = client.create_run(experiment_id, milliseconds(record.started_at), tags, record.name)
    run_id = str(found.info.run_id)
    if found.info.status in {"FINISHED", "KILLED", "FAILED"}:
        return run_id
    metrics = [
        Metric(
            re.sub(r"[^\w.\- :/]", "_", each.name),  # names of classes can contain anything
            each.value,
            milliseconds(each.at or record.ended_at),
            each.step,
        )
        for each in record.metrics
    ]
    parameters: list[Any] = [Param(key, value[:max_length]) for key, value in record.parameters.items()]
    run_tags: list[Any] = [RunTag(key, value[:max_length]) for key, value in record.tags.items()]
    for some in _batched(metrics, 10 * _MAX_ENTRIES):
        client.log_batch(run_id, metrics=some)
    for some in _batched(parameters, _MAX_ENTRIES):
        client.log_batch(run_id, params=some)
    for some in _batched(run_tags, _MAX_ENTRIES):
        client.log_batch(run_id, tags=some)
    status = "KILLED" if record.interrupted else "FINISHED"
    client.set_terminated(run_id, status, milliseconds(record.ended_at))
    return run_id


def _batched(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
