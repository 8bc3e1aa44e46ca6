"""Run history and data service of the region's API, for streaming and downloading jobs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests.emulators.azureml.control import authorize, missing
from tests.emulators.azureml.running import DONE, LOG, Job
from tests.emulators.azureml.storage import ARTIFACTS
from tests.emulators.azureml.web import AzureError, Call, Response

if TYPE_CHECKING:
    from tests.emulators.azureml.cloud import Cloud


class Api:
    """Handler for ``<location>.api.azureml.ms``."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def __call__(self, call: Call) -> Response:
        cloud, path = self.cloud, call.request.path
        if path.startswith("/discovery"):
            return Response(200, self._discovery())
        authorize(cloud, call)
        if found := re.fullmatch(r"/mlflow/v[12]\.0(/subscriptions/.*?)/api/2\.0/(.*)", path):
            if found[1].lower() != cloud.scope.lower():
                raise AzureError(404, "UserError", "The workspace was not found.")
            return cloud.mlflow(call, found[2])
        if not (found := re.fullmatch(rf"/(history|data)/v1\.0{re.escape(cloud.scope)}/(.*)", path, re.I)):
            raise AzureError(404, "NotFound", f"No handler for {call.request.method} {path}.")
        with cloud.lock:
            return self._data(call, found[2]) if found[1] == "data" else self._history(call, found[2])

    def _discovery(self) -> dict[str, str]:
        url = f"https://{self.cloud.location}.api.azureml.ms"
        names = (
            "api",
            "catalog",
            "experimentation",
            "history",
            "jobs",
            "modelmanagement",
            "pipelines",
            "notebooks",
        )
        return dict.fromkeys(names, url) | {"studio": "https://ml.azure.com"}

    def _history(self, call: Call, rest: str) -> Response:
        method = call.request.method
        if rest == "rundata" and method == "POST":
            return Response(200, {"runMetadata": self._run(self._find(call.body["runId"]))})
        if found := re.fullmatch(r"(?:experiments/([^/]+)/)?runs/([^/]+)(/details|/children)?", rest):
            job = self._find(found[2])
            if method == "PATCH" and not found[3]:
                self._change(job, call.body or {})
            if found[3] == "/children":
                return Response(200, {"value": []})
            return Response(200, self._run(job) | (self._details(job) if found[3] else {}))
        raise AzureError(404, "NotFound", f"No handler for {method} {rest}.")

    def _data(self, call: Call, rest: str) -> Response:
        if rest != "dataversion/batchGetResolvedUris":
            raise AzureError(404, "NotFound", f"No handler for {rest}.")
        values = {}
        for asset in call.body["values"]:
            found = re.search(r"/data/azureml_(.+)_output_data_([^/]+)/versions/1$", asset)
            if not found:
                raise missing("Data asset", asset)
            uri = self.cloud.parts.jobs.runner.output_uri(self._find(found[1]), found[2])
            long = uri.replace("azureml://", f"azureml:/{self.cloud.scope}/".replace("//", "/"), 1)
            long = re.sub("^azureml:/", "azureml://", long).replace(
                "/providers/Microsoft.MachineLearningServices", ""
            )
            values[asset] = {"uri": long, "type": "UriFolder"}
        return Response(200, {"values": values})

    def _find(self, name: str) -> Job:
        if name not in self.cloud.jobs:
            raise AzureError(404, "UserError", f"Run {name} was not found.")
        return self.cloud.jobs[name]

    def _change(self, job: Job, change: dict[str, Any]) -> None:
        properties = job.body["properties"]
        for key, name in (
            ("displayName", "displayName"),
            ("description", "description"),
            ("hidden", "isArchived"),
        ):
            if change.get(key) is not None:
                properties[name] = change[key]
        if change.get("tags"):
            properties["tags"] = (properties.get("tags") or {}) | change["tags"]

    def _run(self, job: Job) -> dict[str, Any]:
        outputs = {
            name: {
                "assetId": (
                    f"azureml://locations/{self.cloud.location}/workspaces/{self.cloud.workspace_id}"
                    f"/data/azureml_{job.name}_output_data_{name}/versions/1"
                ),
                "type": self.cloud.output_type,
            }
            for name in job.properties.get("outputs") or {}
            if job.status in DONE
        }
        document: dict[str, Any] = {
            "runId": job.name,
            "experimentId": self.cloud.mlflow.experiment(job.experiment).id,
            "status": job.status,
            "target": job.compute,
            "createdUtc": job.created,
            "startTimeUtc": job.started,
            "endTimeUtc": job.ended,
            "displayName": job.properties.get("displayName") or job.name,
            "tags": job.properties.get("tags") or {},
            "properties": job.properties.get("properties") or {},
            "parameters": {},
            "warnings": [],
            "runType": "azureml.scriptrun",
            "runTypeV2": {"orchestrator": "azureml.JobType.Command", "traits": []},
            "inputs": {},
            "outputs": outputs,
        }
        if job.error:
            message = json.dumps({"NonCompliant": job.error})
            document["error"] = {"error": {"code": "UserError", "message": message, "details": []}}
        return {name: value for name, value in document.items() if value is not None}

    def _details(self, job: Job) -> dict[str, Any]:
        path = f"ExperimentRun/dcid.{job.name}/{LOG}"
        storage = self.cloud.storage
        return {"logFiles": {LOG: f"{storage.url(ARTIFACTS, path)}?{storage.sas(ARTIFACTS, path)}"}}
