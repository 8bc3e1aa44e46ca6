"""The workspace's MLflow tracking service, in memory."""

from __future__ import annotations

import importlib
import json
import re
import uuid
from typing import TYPE_CHECKING, Any

from tests.emulators.azureml.runs import Experiment, Run, millis
from tests.emulators.azureml.web import Answer, Call

if TYPE_CHECKING:
    from tests.emulators.azureml.cloud import Cloud

_MAX = {"metrics": 250, "params": 100, "tags": 100}
"""Of metrics: https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity"""


class _MlflowError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def _refusal(error: _MlflowError) -> dict[str, Any]:
    """Word an error as the service does, which is not as MLflow does: mlflow/mlflow#10694 and #11462."""
    return {
        "Error": {"Code": "UserError", "Severity": None, "Message": str(error), "InnerError": None},
        "ComponentName": "mlflow",
        "statusCode": error.status,
        "error_code": error.code,
    }


class Mlflow:
    """``runs`` by their id, ``experiments`` by theirs."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        _module("entities")  # before a client redirects standard error: an import closes streams of logs
        self.reset()

    def reset(self) -> None:
        self.runs: dict[str, Run] = {}
        self.experiments: dict[str, Experiment] = {}

    def __call__(self, call: Call, rest: str) -> Answer:
        """Answer for what follows ``/api/2.0/`` in the path."""
        method = getattr(
            self, "_" + re.sub("[/-]", "_", rest.removeprefix("preview/").removeprefix("mlflow/")), None
        )
        if not callable(method):
            return Answer(404, {"error_code": "ENDPOINT_NOT_FOUND", "message": f"No handler for {rest}."})
        arguments = call.body if isinstance(call.body, dict) else dict(call.query)
        try:
            with self.cloud.lock:
                return Answer(200, method(arguments) or {})
        except _MlflowError as error:
            return Answer(error.status, _refusal(error))

    def experiment(self, name: str) -> Experiment:
        """The experiment of this name, made if it is not there."""
        for experiment in self.experiments.values():
            if experiment.name == name:
                return experiment
        experiment = Experiment(str(uuid.uuid4()), name)
        self.experiments[experiment.id] = experiment
        return experiment

    def start(self, experiment: Experiment, run_id: str, name: str) -> Run:
        run = self.runs[run_id] = Run(run_id, experiment.id, name, start_time=millis())
        return run

    def _experiments_get_by_name(self, asked: dict[str, Any]) -> Any:
        for experiment in self.experiments.values():
            if experiment.name == asked.get("experiment_name"):
                return {"experiment": self._experiment_json(experiment)}
        text = f"Could not find experiment with name {asked.get('experiment_name')}"
        raise _MlflowError(404, "RESOURCE_DOES_NOT_EXIST", text)

    def _experiments_create(self, asked: dict[str, Any]) -> Any:
        name = asked.get("name") or ""
        if any(experiment.name == name for experiment in self.experiments.values()):
            raise _MlflowError(400, "RESOURCE_ALREADY_EXISTS", f"Experiment '{name}' already exists.")
        if not re.fullmatch(r"[a-zA-Z0-9_][\w.\- ]{0,254}", name):
            raise _MlflowError(400, "INVALID_PARAMETER_VALUE", f"Invalid experiment name '{name}'.")
        experiment = self.experiment(name)
        experiment.tags = {tag["key"]: tag["value"] for tag in asked.get("tags", [])}
        return {"experiment_id": experiment.id}

    def _experiments_get(self, asked: dict[str, Any]) -> Any:
        return {"experiment": self._experiment_json(self._find_experiment(asked))}

    def _experiments_set_experiment_tag(self, asked: dict[str, Any]) -> None:
        self._find_experiment(asked).tags[asked["key"]] = asked["value"]

    def _experiments_update(self, asked: dict[str, Any]) -> None:
        self._find_experiment(asked).name = asked["new_name"]

    def _experiments_delete(self, asked: dict[str, Any]) -> None:
        self._find_experiment(asked).stage = "deleted"

    def _experiments_search(self, asked: dict[str, Any]) -> Any:
        search = _module("utils.search_utils").SearchExperimentsUtils
        found = [self._entity(experiment) for experiment in self.experiments.values()]
        found = [one for one in found if one.lifecycle_stage == "active"]
        found = search.filter(found, asked.get("filter") or "")
        found = search.sort(found, asked.get("order_by") or ["creation_time DESC"])
        page, token = search.paginate(found, asked.get("page_token"), int(asked.get("max_results") or 1000))
        document = {"experiments": [_json(one.to_proto()) for one in page]}
        return document | ({"next_page_token": token} if token else {})

    def _find_experiment(self, asked: dict[str, Any]) -> Experiment:
        found = self.experiments.get(str(asked.get("experiment_id")))
        if found is None:
            text = f"Could not find experiment with ID {asked.get('experiment_id')}"
            raise _MlflowError(404, "RESOURCE_DOES_NOT_EXIST", text)
        return found

    def _entity(self, experiment: Experiment) -> Any:
        entities = _module("entities")
        tags = [entities.ExperimentTag(*item) for item in experiment.tags.items()]
        created = experiment.created
        return entities.Experiment(
            experiment.id, experiment.name, "", experiment.stage, tags, created, created
        )

    def _experiment_json(self, experiment: Experiment) -> Any:
        return _json(self._entity(experiment).to_proto())

    def _runs_create(self, asked: dict[str, Any]) -> Any:
        experiment = self._find_experiment(asked)
        tags = {tag["key"]: tag["value"] for tag in asked.get("tags", [])}
        name = asked.get("run_name") or tags.get("mlflow.runName") or f"calm_sea_{uuid.uuid4().hex[:8]}"
        run = self.start(experiment, str(uuid.uuid4()), name)
        run.start_time = int(asked.get("start_time") or millis())
        run.user = asked.get("user_id") or tags.get("mlflow.user", "")
        run.tags = tags | {"mlflow.runName": name}
        return {"run": self._run_json(run)}

    def _runs_get(self, asked: dict[str, Any]) -> Any:
        return {"run": self._run_json(self._find_run(asked))}

    def _runs_update(self, asked: dict[str, Any]) -> Any:
        run = self._find_run(asked)
        if status := asked.get("status"):
            run.status = _status_name(status)
        if asked.get("end_time"):
            run.end_time = int(asked["end_time"])
        if asked.get("run_name"):
            run.name = run.tags["mlflow.runName"] = asked["run_name"]
        return {"run_info": self._run_json(run)["info"]}

    def _runs_delete(self, asked: dict[str, Any]) -> None:
        self._find_run(asked).stage = "deleted"

    def _runs_restore(self, asked: dict[str, Any]) -> None:
        self._find_run(asked).stage = "active"

    def _runs_log_metric(self, asked: dict[str, Any]) -> None:
        self._log_metric(self._find_run(asked), asked)

    def _runs_log_parameter(self, asked: dict[str, Any]) -> None:
        self._log_param(self._find_run(asked), asked)

    def _runs_set_tag(self, asked: dict[str, Any]) -> None:
        self._find_run(asked).tags[asked["key"]] = asked["value"]

    def _runs_delete_tag(self, asked: dict[str, Any]) -> None:
        self._find_run(asked).tags.pop(asked["key"], None)

    def _runs_log_batch(self, asked: dict[str, Any]) -> None:
        run = self._find_run(asked)
        for kind, limit in _MAX.items():
            if len(asked.get(kind, [])) > limit:
                raise _MlflowError(400, "INVALID_PARAMETER_VALUE", f"At most {limit} {kind} are allowed.")
        for param in asked.get("params", []):
            self._log_param(run, param)
        for metric in asked.get("metrics", []):
            self._log_metric(run, metric)
        for tag in asked.get("tags", []):
            run.tags[tag["key"]] = tag["value"]

    def _runs_log_batch_async(self, asked: dict[str, Any]) -> Any:
        self._runs_log_batch(asked)
        return {"batch_tracking_id": str(uuid.uuid4())}

    def _runs_get_run_data_status(self, asked: dict[str, Any]) -> Any:
        self._find_run(asked)
        return {"is_complete": True}

    def _runs_log_inputs(self, asked: dict[str, Any]) -> None:
        self._find_run(asked)

    def _metrics_get_history(self, asked: dict[str, Any]) -> Any:
        run, key = self._find_run(asked), asked["metric_key"]
        entities = _module("entities")

        values = run.history.get(key, [])
        return {
            "metrics": [_json(entities.Metric(key, value, at, step).to_proto()) for value, step, at in values]
        }

    def _artifacts_list(self, asked: dict[str, Any]) -> Any:
        return {"root_uri": self._artifact_uri(self._find_run(asked)), "files": []}

    def _runs_search(self, asked: dict[str, Any]) -> Any:
        search = _module("utils.search_utils").SearchUtils
        wanted, view = asked.get("experiment_ids") or [], asked.get("run_view_type") or "ACTIVE_ONLY"
        stages = {"ACTIVE_ONLY": {"active"}, "DELETED_ONLY": {"deleted"}}.get(view, {"active", "deleted"})
        runs = [
            self._run_entity(run)
            for run in self.runs.values()
            if run.experiment_id in wanted and run.stage in stages
        ]
        try:
            runs = search.filter(runs, asked.get("filter") or "")
            runs = search.sort(runs, asked.get("order_by") or [])
        except Exception as error:  # noqa: BLE001 - a filter that can't be read
            raise _MlflowError(400, "INVALID_PARAMETER_VALUE", str(error)) from None
        page, token = search.paginate(runs, asked.get("page_token"), int(asked.get("max_results") or 1000))
        document = {"runs": [_json(run.to_proto()) for run in page]}
        return document | ({"next_page_token": token} if token else {})

    def _find_run(self, asked: dict[str, Any]) -> Run:
        run_id = asked.get("run_id") or asked.get("run_uuid")
        if run_id not in self.runs:
            raise _MlflowError(404, "RESOURCE_DOES_NOT_EXIST", f"Run {run_id} was not found.")
        return self.runs[run_id]

    def _log_metric(self, run: Run, metric: dict[str, Any]) -> None:
        value, step, at = float(metric.get("value", 0)), int(metric.get("step") or 0), metric.get("timestamp")
        run.history.setdefault(metric["key"], []).append((value, step, int(at or millis())))

    def _log_param(self, run: Run, param: dict[str, Any]) -> None:
        key, value = param["key"], str(param.get("value", ""))
        if len(value) > 500:
            text = (
                f"Param value '{value[:20]}...' had length {len(value)}, which exceeded length limit of 500"
            )
            raise _MlflowError(400, "INVALID_PARAMETER_VALUE", text)
        if run.params.setdefault(key, value) != value:
            text = f"Changing param values is not allowed. Param with key='{key}' was already logged."
            raise _MlflowError(400, "INVALID_PARAMETER_VALUE", text)

    def _artifact_uri(self, run: Run) -> str:
        host = f"{self.cloud.location}.api.azureml.ms"
        scope = self.cloud.scope
        return f"azureml://{host}/mlflow/v2.0{scope}/experiments/{run.experiment_id}/runs/{run.id}/artifacts"

    def _run_entity(self, run: Run) -> Any:
        entities = _module("entities")

        info = entities.RunInfo(
            run.id,
            run.experiment_id,
            run.user,
            run.status,
            run.start_time,
            run.end_time,
            run.stage,
            self._artifact_uri(run),
            run.name,
        )
        last = {key: max(values, key=lambda one: one[1:]) for key, values in run.history.items()}
        data = entities.RunData(
            [entities.Metric(key, value, at, step) for key, (value, step, at) in last.items()],
            [entities.Param(*item) for item in run.params.items()],
            [entities.RunTag(*item) for item in run.tags.items()],
        )
        return entities.Run(info, data)

    def _run_json(self, run: Run) -> Any:
        return _json(self._run_entity(run).to_proto())


def _status_name(status: str | int) -> str:
    return str(_module("entities").RunStatus.to_string(status)) if isinstance(status, int) else status


def _json(message: Any) -> Any:
    return json.loads(_module("utils.proto_json_utils").message_to_json(message))


def _module(name: str) -> Any:
    """MLflow itself, which has few types and is slow to import."""
    return importlib.import_module(f"mlflow.{name}")
