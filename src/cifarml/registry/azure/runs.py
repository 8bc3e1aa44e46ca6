"""Runs in the MLflow of an Azure ML workspace."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cifarml.registry.mlflow_runs import RUN_ID_TAG, open_experiment, write_run
from cifarml.registry.run_record import RunRecord

__all__ = ["insert_run"]

_MAX_LENGTH: Final = 500
"""Longest value of a parameter that Azure ML keeps, in characters."""


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

    client = MlflowClient(tracking_uri=tracking_uri)
    experiment_id = open_experiment(client)
    found = client.search_runs([experiment_id], f"tags.{RUN_ID_TAG} = '{run.run_id}'", max_results=1)
    tags = {key: value for key, value in run.tags.items() if key != "folder"}
    return write_run(client, experiment_id, replace(run, tags=tags), found[0] if found else None, _MAX_LENGTH)
