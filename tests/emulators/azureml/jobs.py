"""Command jobs in the control plane."""

# ruff: noqa: ARG002 - handlers have a common signature

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.emulators.azureml.control import Routes, accepted, missing, resource
from tests.emulators.azureml.running import DONE, Job, Runner
from tests.emulators.azureml.sizes import find_size
from tests.emulators.azureml.validate import check
from tests.emulators.azureml.web import AzureError, Call, Response

if TYPE_CHECKING:
    from tests.emulators.azureml.cloud import Cloud


class Jobs:
    """Command jobs; ``runner`` executes them."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.runner = Runner(cloud)
        self.all: dict[str, Job] = {}

    def reset(self) -> None:
        jobs, self.all, self.runner.queue_s = self.all, {}, 0.0
        for job in jobs.values():
            job.cancel()
        for job in jobs.values():
            job.done.wait(10)

    def routes(self) -> Routes:
        return {
            "GET jobs": self.list,
            "GET jobs/{name}": self.get,
            "PUT jobs/{name}": self.put,
            "DELETE jobs/{name}": self.delete,
            "POST jobs/{name}/cancel": self.cancel,
        }

    def find(self, name: str) -> Job:
        if name not in self.all:
            raise missing("Job", name)
        return self.all[name]

    def _document(self, job: Job) -> dict[str, Any]:
        outputs = {
            name: {"jobOutputType": "uri_folder", "mode": "ReadWriteMount"} | (output or {})
            for name, output in (job.properties.get("outputs") or {}).items()
        }
        if self.cloud.default_output:
            outputs["default"] = {
                "jobOutputType": "uri_folder",
                "mode": "ReadWriteMount",
                "uri": f"azureml://datastores/workspaceartifactstore/ExperimentRun/dcid.{job.name}",
            }
        url = f"https://ml.azure.com/runs/{job.name}?wsid={self.cloud.scope}&tid={self.cloud.tenant_id}"
        track = f"azureml://{self.cloud.location}.api.azureml.ms/mlflow/v1.0{self.cloud.scope}?"
        services = {
            "Tracking": {"jobServiceType": "Tracking", "endpoint": track},
            "Studio": {"jobServiceType": "Studio", "endpoint": url},
        }
        properties = job.properties | {
            "status": job.status,
            "services": services,
            "outputs": outputs,
            "experimentName": job.experiment,
            "displayName": job.properties.get("displayName") or job.name,
        }
        properties["tags"] = properties.get("tags") or {}
        properties["properties"] = properties.get("properties") or {}
        return resource(self.cloud, f"jobs/{job.name}", properties, created=job.created)

    def list(self, call: Call) -> Response:
        view = call.query.get("listViewType", "ActiveOnly")
        shown = [
            job
            for job in reversed(self.all.values())
            if view == "All" or bool(job.properties.get("isArchived")) == (view == "ArchivedOnly")
        ]
        return Response(200, {"value": [self._document(job) for job in shown]})

    def get(self, call: Call, name: str) -> Response:
        return Response(200, self._document(self.find(name)))

    def put(self, call: Call, name: str) -> Response:
        check("JobBase", call.body)
        properties = call.body["properties"]
        if properties.get("jobType") != "Command":
            raise AzureError(400, "UserError", "The emulator supports only command jobs.")
        if name in self.all:
            job = self.all[name]
            if properties.get("command") != job.properties.get("command"):
                raise AzureError(400, "UserError", f"A job with name {name} already exists.")
            job.body = call.body
            return Response(200, self._document(job))
        job = Job(name, call.body)
        if job.compute != "serverless" and job.compute not in self.cloud.computes:
            text = f"The compute target '{job.compute}' was not found in the workspace."
            raise AzureError(404, "UserError", f"ComputeTargetNotFound: {text}")
        self.cloud.assets.find("environments", properties["environmentId"])
        if properties.get("codeId"):
            self.cloud.assets.find("codes", properties["codeId"])
        if size := (properties.get("resources") or {}).get("instanceType"):
            find_size(size)
        self.all[name] = job
        mlflow = self.cloud.mlflow
        run = mlflow.start(mlflow.experiment(job.experiment), name, properties.get("displayName") or name)
        run.tags |= {"mlflow.runName": run.name}
        self.runner.start(job)
        return Response(201, self._document(job))

    def delete(self, call: Call, name: str) -> Response:
        self.find(name).cancel()
        del self.all[name]
        return Response(204)

    def cancel(self, call: Call, name: str) -> Response:
        job = self.find(name)
        if job.status in DONE:
            return Response(200)
        operation = self.cloud.operations.start(lambda: None)
        job.cancel()
        response = accepted(self.cloud, 202, None, operation)
        url = response.headers["Azure-AsyncOperation"].replace("mfeOperationsStatus", "mfeOperationResults")
        return Response(202, None, {"Location": url, "x-ms-retry-after-ms": "20"})
