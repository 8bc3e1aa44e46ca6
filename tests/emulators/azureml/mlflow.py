"""In-memory MLflow tracking service of the workspace."""

from __future__ import annotations

import importlib
import json
import re
import uuid
from typing import TYPE_CHECKING, Any

from tests.emulators.azureml.runs import Experiment, Run, millis
from tests.emulators.azureml.web import Call, Response

if TYPE_CHECKING:
    from tests.emulators.azureml.cloud import Cloud

_MAX = {"metrics": 250, "params": 100, "tags": 100}
"""Of metrics: https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity"""


class _MlflowError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def _refusal(error: _MlflowError) -> dict[str, Any]:
    """Format an error as the service does, which differs from MLflow: mlflow/mlflow#10694 and #11462."""
    return {
        "Error": {"Code": "UserError", "Severity": None, "Message": str(error), "InnerError": None},
        "ComponentName": "mlflow",
        "statusCode": error.status,
        "error_code": error.code,
    }


class Mlflow:
    """MLflow tracking service; ``runs`` and ``experiments`` are keyed by ID."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        _module("entities")  # before a client redirects standard error, because the import closes log streams
        self.reset()

    def reset(self) -> None:
        self.runs: dict[str, Run] = {}
        self.experiments: dict[str, Experiment] = {}

    def __call__(self, call: Call, rest: str) -> Response:
        """Handle a request; ``rest`` is the path after ``/api/2.0/``."""
        method = getattr(
            self, "_" + re.sub("[/-]", "_", rest.removeprefix("preview/").removeprefix("mlflow/")), None
        )
        if not callable(method):
            return Response(404, {"error_code": "ENDPOINT_NOT_FOUND", "message": f"No handler for {rest}."})
        arguments = call.body if isinstance(call.body, dict) else dict(call.query)
        try:
            with self.cloud.lock:
                return Response(200, method(arguments) or {})
        except _MlflowError as error:
            return Response(error.status, _refusal(error))

    def experiment(self, name: str) -> Experiment:
        """Return the experiment with a name; create it if it does not exist."""
        for experiment in self.experiments.values():
            if experiment.name == name:
                return experiment
        experiment = Experiment(str(uuid.uuid4()), name)
        self.experiments[experiment.id] = experiment
        return experiment

    def start(self, experiment: Experiment, run_id: str, name: str) -> Run:
        run = self.runs[run_id] = Run(run_id, experiment.id, name, start_time=millis())
        return run

    def _experiments_get_by_name(self, arguments: dict[str, Any]) -> Any:
        for experiment in self.experiments.values():
            if experiment.name == arguments.get("experiment_name"):
                return {"experiment": self._experiment_json(experiment)}
        text = f"Could not find experiment with name {arguments.get('experiment_name')}"
        raise _MlflowError(404, "RESOURCE_DOES_NOT_EXIST", text)

    def _experiments_create(self, arguments: dict[str, Any]) -> Any:
        name = arguments.get("name") or ""
        if any(experiment.name == name for experiment in self.experiments.values()):
            raise _MlflowError(400, "RESOURCE_ALREADY_EXISTS", f"Experiment '{name}' already exists.")
        if not re.fullmatch(r"[a-zA-Z0-9_][\w.\- ]{0,254}", name):
            raise _MlflowError(400, "INVALID_PARAMETER_VALUE", f"Invalid experiment name '{name}'.")
        experiment = self.experiment(name)
        experiment.tags = {tag["key"]: tag["value"] for tag in arguments.get("tags", [])}
        return {"experiment_id": experiment.id}

    def _experiments_get(self, arguments: dict[str, Any]) -> Any:
        return {"experiment": self._experiment_json(self._find_experiment(arguments))}

    def _experiments_set_experiment_tag(self, arguments: dict[str, Any]) -> None:
        self._find_experiment(arguments).tags[arguments["key"]] = arguments["value"]

    def _experiments_update(self, arguments: dict[str, Any]) -> None:
        self._find_experiment(arguments).name = arguments["new_name"]

    def _experiments_delete(self, arguments: dict[str, Any]) -> None:
        self._find_experiment(arguments).stage = "deleted"

    def _experiments_search(self, arguments: dict[str, Any]) -> Any:
        search = _module("utils.search_utils").SearchExperimentsUtils
        found = [self._entity(experiment) for experiment in self.experiments.values()]
        found = [one for one in found if one.lifecycle_stage == "active"]
        found = search.filter(found, arguments.get("filter") or "")
        found = search.sort(found, arguments.get("order_by") or ["creation_time DESC"])
        page, token = search.paginate(
            found, arguments.get("page_token"), int(arguments.get("max_results") or 1000)
        )
        document = {"experiments": [_json(one.to_proto()) for one in page]}
        return document | ({"next_page_token": token} if token else {})

    def _find_experiment(self, arguments: dict[str, Any]) -> Experiment:
        found = self.experiments.get(str(arguments.get("experiment_id")))
        if found is None:
            text = f"Could not find experiment with ID {arguments.get('experiment_id')}"
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

    def _runs_create(self, arguments: dict[str, Any]) -> Any:
        experiment = self._find_experiment(arguments)
        tags = {tag["key"]: tag["value"] for tag in arguments.get("tags", [])}
        name = arguments.get("run_name") or tags.get("mlflow.runName") or f"calm_sea_{uuid.uuid4().hex[:8]}"
        run = self.start(experiment, str(uuid.uuid4()), name)
        run.start_time = int(arguments.get("start_time") or millis())
        run.user = arguments.get("user_id") or tags.get("mlflow.user", "")
        run.tags = tags | {"mlflow.runName": name}
        return {"run": self._run_json(run)}

    def _runs_get(self, arguments: dict[str, Any]) -> Any:
        return {"run": self._run_json(self._find_run(arguments))}

    def _runs_update(self, arguments: dict[str, Any]) -> Any:
        run = self._find_run(arguments)
        if status := arguments.get("status"):
            run.status = _status_name(status)
        if arguments.get("end_time"):
            run.end_time = int(arguments["end_time"])
        if arguments.get("run_name"):
            run.name = run.tags["mlflow.runName"] = arguments["run_name"]
        return {"run_info": self._run_json(run)["info"]}

    def _runs_delete(self, arguments: dict[str, Any]) -> None:
        self._find_run(arguments).stage = "deleted"

    def _runs_restore(self, arguments: dict[str, Any]) -> None:
        self._find_run(arguments).stage = "active"

    def _runs_log_metric(self, arguments: dict[str, Any]) -> None:
        self._log_metric(self._find_run(arguments), arguments)

    def _runs_log_parameter(self, arguments: dict[str, Any]) -> None:
        self._log_param(self._find_run(arguments), arguments)

    def _runs_set_tag(self, arguments: dict[str, Any]) -> None:
        self._find_run(arguments).tags[arguments["key"]] = arguments["value"]

    def _runs_delete_tag(self, arguments: dict[str, Any]) -> None:
        self._find_run(arguments).tags.pop(arguments["key"], None)

    def _runs_log_batch(self, arguments: dict[str, Any]) -> None:
        run = self._find_run(arguments)
        for kind, limit in _MAX.items():
            if len(arguments.get(kind, [])) > limit:
                raise _MlflowError(400, "INVALID_PARAMETER_VALUE", f"At most {limit} {kind} are allowed.")
        for param in arguments.get("params", []):
            self._log_param(run, param)
        for metric in arguments.get("metrics", []):
            self._log_metric(run, metric)
        for tag in arguments.get("tags", []):
            run.tags[tag["key"]] = tag["value"]

    def _runs_log_batch_async(self, arguments: dict[str, Any]) -> Any:
        self._runs_log_batch(arguments)
        return {"batch_tracking_id": str(uuid.uuid4())}

    def _runs_get_run_data_status(self, arguments: dict[str, Any]) -> Any:
        self._find_run(arguments)
        return {"is_complete": True}

    def _runs_log_inputs(self, arguments: dict[str, Any]) -> None:
        self._find_run(arguments)

    def _metrics_get_history(self, arguments: dict[str, Any]) -> Any:
        run, key = self._find_run(arguments), arguments["metric_key"]
        entities = _module("entities")

        values = run.history.get(key, [])
        return {
            "metrics": [_json(entities.Metric(key, value, at, step).to_proto()) for value, step, at in values]
        }

    def _artifacts_list(self, arguments: dict[str, Any]) -> Any:
        return {"root_uri": self._artifact_uri(self._find_run(arguments)), "files": []}

    def _runs_search(self, arguments: dict[str, Any]) -> Any:
        search = _module("utils.search_utils").SearchUtils
        wanted, view = arguments.get("experiment_ids") or [], arguments.get("run_view_type") or "ACTIVE_ONLY"
        stages = {"ACTIVE_ONLY": {"active"}, "DELETED_ONLY": {"deleted"}}.get(view, {"active", "deleted"})
        runs = [
            self._run_entity(run)
            for run in self.runs.values()
            if run.experiment_id in wanted and run.stage in stages
        ]
        try:
            runs = search.filter(runs, arguments.get("filter") or "")
            runs = search.sort(runs, arguments.get("order_by") or [])
        except Exception as error:  # noqa: BLE001 - an invalid filter
            raise _MlflowError(400, "INVALID_PARAMETER_VALUE", str(error)) from None
        page, token = search.paginate(
            runs, arguments.get("page_token"), int(arguments.get("max_results") or 1000)
        )
        document = {"runs": [_json(run.to_proto()) for run in page]}
        return document | ({"next_page_token": token} if token else {})

    def _find_run(self, arguments: dict[str, Any]) -> Run:
        run_id = arguments.get("run_id") or arguments.get("run_uuid")
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
    """Import a module of MLflow, which is slow to import and mostly untyped."""
    return importlib.import_module(f"mlflow.{name}")
