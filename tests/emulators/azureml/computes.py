"""Compute clusters."""

# ruff: noqa: ARG002 - handlers have a common signature

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.emulators.azureml.control import Routes, accepted, missing, resource
from tests.emulators.azureml.operations import now
from tests.emulators.azureml.sizes import check_quota, find_size
from tests.emulators.azureml.validate import check
from tests.emulators.azureml.web import AzureError, Call, Response

if TYPE_CHECKING:
    from tests.emulators.azureml.cloud import Cloud


@dataclass
class Compute:
    name: str
    body: dict[str, Any]
    state: str = "Creating"
    error: dict[str, Any] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.body["properties"].get("properties") or {})

    @property
    def size(self) -> str:
        return str(self.settings.get("vmSize") or "Standard_DS3_v2")

    def nodes(self, which: str) -> int:
        return int((self.settings.get("scaleSettings") or {}).get(f"{which}NodeCount") or 0)


class Computes:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.reset()

    def reset(self) -> None:
        self.all: dict[str, Compute] = {}

    def routes(self) -> Routes:
        return {
            "GET computes": self.list,
            "GET computes/{name}": self.get,
            "PUT computes/{name}": self.put,
            "DELETE computes/{name}": self.delete,
            "POST computes/{name}/listNodes": self.nodes,
        }

    def _document(self, compute: Compute) -> dict[str, Any]:
        current = max(compute.nodes("min"), self.cloud.num_running_jobs(compute.name))
        settings = compute.settings | {
            "vmPriority": compute.settings.get("vmPriority") or "Dedicated",
            "remoteLoginPortPublicAccess": compute.settings.get("remoteLoginPortPublicAccess")
            or "NotSpecified",
            "osType": "Linux",
            "allocationState": "Steady",
            "allocationStateTransitionTime": now(),
            "currentNodeCount": current,
            "targetNodeCount": current,
            "nodeStateCounts": {"idleNodeCount": 0, "runningNodeCount": current},
        }
        properties = compute.body["properties"] | {
            "computeType": "AmlCompute",
            "computeLocation": self.cloud.location,
            "provisioningState": compute.state,
            "provisioningErrors": [{"error": compute.error}] if compute.error else None,
            "createdOn": self.cloud.created,
            "modifiedOn": now(),
            "isAttachedCompute": False,
            "properties": settings,
        }
        location, tags = self.cloud.location, compute.body.get("tags") or {}
        return resource(self.cloud, f"computes/{compute.name}", properties, location=location, tags=tags)

    def list(self, call: Call) -> Response:
        return Response(200, {"value": [self._document(compute) for compute in self.all.values()]})

    def _find(self, name: str) -> Compute:
        if name not in self.all:
            raise missing("Compute", name)
        return self.all[name]

    def get(self, call: Call, name: str) -> Response:
        return Response(200, self._document(self._find(name)))

    def nodes(self, call: Call, name: str) -> Response:
        self._find(name)
        return Response(200, {"nodes": []})

    def put(self, call: Call, name: str) -> Response:
        check("ComputeResource", call.body)
        if not re.fullmatch("[a-zA-Z](?=.{1,31}$)[a-zA-Z0-9-]*[a-zA-Z0-9]", name):
            raise AzureError(400, "BadRequest", f"The compute name '{name}' is invalid: 2 to 32 characters.")
        if call.body["properties"].get("computeType") != "AmlCompute":
            raise AzureError(400, "BadRequest", "The emulator supports only AmlCompute.")
        old = self.all.get(name)
        compute = old or Compute(name, call.body)
        if old and old.size != Compute(name, call.body).size:
            raise AzureError(400, "BadRequest", "The VM size of a compute can't be changed.")
        compute.body, compute.state = call.body, "Updating" if old else "Creating"
        self.all[name] = compute

        def work() -> None:
            try:
                size = find_size(compute.size)
                with self.cloud.lock:
                    used = self.cloud.used_cores(without=compute)
                    count = max(compute.nodes("max"), 1)
                    check_quota(self.cloud.quota_cores, used, size, count, self.cloud.subscription_id)
            except AzureError as error:
                compute.state = "Failed"
                compute.error = {"code": error.code, "message": error.message}
                raise
            compute.state, compute.error = "Succeeded", None

        operation = self.cloud.operations.start(work)
        return accepted(self.cloud, 200 if old else 201, self._document(compute), operation, "compute")

    def delete(self, call: Call, name: str) -> Response:
        if name not in self.all:
            raise missing("Compute", name)
        compute = self.all[name]
        compute.state = "Deleting"

        def work() -> None:
            if self.all.get(name) is compute:
                del self.all[name]

        return accepted(self.cloud, 202, None, self.cloud.operations.start(work), "compute")
