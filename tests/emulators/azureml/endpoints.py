"""Online endpoints and their deployments."""

# ruff: noqa: ARG002 - handlers have a common signature

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

from tests.emulators.azureml.control import Routes, accepted, missing, resource
from tests.emulators.azureml.deployments import Deployment, Endpoint, check_traffic, start_work
from tests.emulators.azureml.validate import check
from tests.emulators.azureml.web import AzureError, Call, Response

if TYPE_CHECKING:
    from tests.emulators.azureml.cloud import Cloud

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{1,30}[a-zA-Z0-9]")


class Endpoints:
    """Online endpoints; ``taken`` contains names that are in use elsewhere in the region."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.handed_out: list[str] = []
        self.reset()

    def reset(self) -> None:
        self.all: dict[str, Endpoint] = {}
        self.taken: set[str] = set()

    def routes(self) -> Routes:
        one, two = "onlineEndpoints/{name}", "onlineEndpoints/{name}/deployments/{deployment}"
        return {
            "GET onlineEndpoints": self.list,
            f"GET {one}": self.get,
            f"PUT {one}": self.put,
            f"PATCH {one}": self.patch,
            f"DELETE {one}": self.delete,
            f"POST {one}/listKeys": self.keys,
            f"POST {one}/regenerateKeys": self.new_key,
            f"POST {one}/token": self.token,
            f"GET {one}/deployments": self.list_deployments,
            f"GET {two}": self.get_deployment,
            f"PUT {two}": self.put_deployment,
            f"PATCH {two}": self.patch_deployment,
            f"DELETE {two}": self.delete_deployment,
            f"POST {two}/getLogs": self.logs,
        }

    def _find(self, name: str) -> Endpoint:
        if name not in self.all:
            raise missing("Endpoint", name)
        return self.all[name]

    def _deployment(self, name: str, deployment: str) -> Deployment:
        if deployment not in self._find(name).deployments:
            raise missing("Deployment", f"{deployment} of endpoint {name}")
        return self.all[name].deployments[deployment]

    def _document(self, endpoint: Endpoint) -> dict[str, Any]:
        host = self.cloud.scoring_host(endpoint.name)
        properties = endpoint.body["properties"] | {
            "authMode": endpoint.auth_mode,
            "traffic": dict(endpoint.traffic),
            "mirrorTraffic": dict(endpoint.mirror_traffic),
            "provisioningState": endpoint.state,
            "scoringUri": f"https://{host}/score",
            "swaggerUri": f"https://{host}/swagger.json",
            "publicNetworkAccess": "Enabled",
        }
        properties.setdefault("properties", {})
        properties.pop("keys", None)
        identity = {
            "type": "SystemAssigned",
            "principalId": self.cloud.object_id,
            "tenantId": self.cloud.tenant_id,
        }
        return resource(
            self.cloud,
            f"onlineEndpoints/{endpoint.name}",
            properties,
            location=self.cloud.location,
            tags=endpoint.body.get("tags") or {},
            identity=identity,
            kind="Managed",
        )

    def list(self, call: Call) -> Response:
        return Response(200, {"value": [self._document(endpoint) for endpoint in self.all.values()]})

    def get(self, call: Call, name: str) -> Response:
        return Response(200, self._document(self._find(name)))

    def put(self, call: Call, name: str) -> Response:
        check("OnlineEndpoint", call.body)
        self.cloud.operations.check_free(name)
        if not _NAME.fullmatch(name):
            raise AzureError(400, "BadRequest", f"The endpoint name '{name}' is invalid: 3 to 32 characters.")
        if name in self.taken:
            text = f"The endpoint name '{name}' is already in use in region {self.cloud.location}."
            raise AzureError(400, "NameNotAvailable", text)
        properties = call.body["properties"]
        old = self.all.get(name)
        traffic, mirror = properties.get("traffic") or {}, properties.get("mirrorTraffic") or {}
        check_traffic(traffic, mirror, old.deployments if old else {})
        if old and old.auth_mode.lower() != properties["authMode"].lower():
            raise AzureError(400, "BadRequest", "The auth mode of an endpoint can't be changed.")
        endpoint = old or Endpoint(name, call.body, properties["authMode"])
        endpoint.body = call.body
        if not old:
            endpoint.keys = {"primary": self._new_key(), "secondary": self._new_key()}
            self.all[name] = endpoint
        endpoint.state = "Updating" if old else "Creating"

        def work() -> None:
            endpoint.traffic, endpoint.mirror_traffic = dict(traffic), dict(mirror)
            self.cloud.open_host(name)
            endpoint.state = "Succeeded"

        operation = self.cloud.operations.start(work, name)
        return accepted(self.cloud, 200 if old else 201, self._document(endpoint), operation)

    def patch(self, call: Call, name: str) -> Response:
        self.cloud.operations.check_free(name)
        endpoint = self._find(name)
        endpoint.body = endpoint.body | {"tags": (call.body or {}).get("tags") or {}}
        before, endpoint.state = endpoint.state, "Updating"

        def work() -> None:
            endpoint.state = before

        operation = self.cloud.operations.start(work, name)
        return accepted(self.cloud, 202, self._document(endpoint), operation)

    def delete(self, call: Call, name: str) -> Response:
        if name not in self.all:
            return Response(204)
        self.cloud.operations.check_free(name)
        endpoint = self.all[name]
        endpoint.state = "Deleting"

        def work() -> None:
            if self.all.get(name) is endpoint:
                del self.all[name]
                self.cloud.close_host(name)

        return accepted(self.cloud, 202, None, self.cloud.operations.start(work, name))

    def _new_key(self) -> str:
        self.handed_out.append(secrets.token_urlsafe(48))
        return self.handed_out[-1]

    def keys(self, call: Call, name: str) -> Response:
        endpoint = self._find(name)
        if endpoint.auth_mode.lower() != "key":
            raise AzureError(400, "BadRequest", f"Endpoint {name} does not use keys.")
        keys = endpoint.keys
        return Response(200, {"primaryKey": keys["primary"], "secondaryKey": keys["secondary"]})

    def new_key(self, call: Call, name: str) -> Response:
        check("RegenerateEndpointKeysRequest", call.body)
        self.cloud.operations.check_free(name)
        endpoint, which = self._find(name), call.body["keyType"].lower()
        if endpoint.auth_mode.lower() != "key" or which not in endpoint.keys:
            raise AzureError(400, "BadRequest", f"There is no key {which} of endpoint {name}.")
        key = self._new_key()
        operation = self.cloud.operations.start(lambda: endpoint.keys.update({which: key}), name)
        return accepted(self.cloud, 202, None, operation)

    def token(self, call: Call, name: str) -> Response:
        endpoint = self._find(name)
        endpoint.tokens.append(self._new_key())
        document = {"accessToken": endpoint.tokens[-1], "tokenType": "Bearer", "expiryTimeUtc": 4102444800}
        return Response(200, document | {"refreshAfterTimeUtc": 4102444800})

    def _deployment_document(self, endpoint: str, deployment: Deployment) -> dict[str, Any]:
        properties = deployment.properties | {"provisioningState": deployment.state}
        properties["scaleSettings"] = properties.get("scaleSettings") or {"scaleType": "Default"}
        properties.setdefault("properties", {})
        return resource(
            self.cloud,
            f"onlineEndpoints/{endpoint}/deployments/{deployment.name}",
            properties,
            location=self.cloud.location,
            tags=deployment.body.get("tags") or {},
            sku=deployment.body.get("sku") or {"name": "Default", "capacity": 1},
            kind="Managed",
        )

    def list_deployments(self, call: Call, name: str) -> Response:
        found = self._find(name).deployments.values()
        return Response(200, {"value": [self._deployment_document(name, one) for one in found]})

    def get_deployment(self, call: Call, name: str, deployment: str) -> Response:
        return Response(200, self._deployment_document(name, self._deployment(name, deployment)))

    def put_deployment(self, call: Call, name: str, deployment: str) -> Response:
        check("OnlineDeployment", call.body)
        endpoint = self._find(name)
        self.cloud.operations.check_free(name)
        if not _NAME.fullmatch(deployment) and not re.fullmatch("[a-zA-Z][a-zA-Z0-9]?", deployment):
            raise AzureError(400, "BadRequest", f"The deployment name '{deployment}' is invalid.")
        for needed in ("instanceType", "environmentId", "model", "codeConfiguration"):
            if not call.body["properties"].get(needed):
                raise AzureError(400, "BadRequest", f"The deployment needs properties.{needed}.")
        old = endpoint.deployments.get(deployment)
        if not old and len(endpoint.deployments) >= 20:
            raise AzureError(400, "BadRequest", "An endpoint has at most 20 deployments.")
        current = old or Deployment(deployment, call.body)
        current.body, current.state = call.body, "Updating" if old else "Creating"
        endpoint.deployments[deployment] = current
        work = start_work(self.cloud, current)
        operation = self.cloud.operations.start(work, name)
        document = self._deployment_document(name, current)
        return accepted(self.cloud, 200 if old else 201, document, operation)

    def patch_deployment(self, call: Call, name: str, deployment: str) -> Response:
        current = self._deployment(name, deployment)
        self.cloud.operations.check_free(name)
        body = call.body or {}
        current.body = current.body | {key: body[key] for key in ("tags", "sku") if body.get(key)}
        operation = self.cloud.operations.start(lambda: None, name)
        return accepted(self.cloud, 202, self._deployment_document(name, current), operation)

    def delete_deployment(self, call: Call, name: str, deployment: str) -> Response:
        endpoint = self._find(name)
        if deployment not in endpoint.deployments:
            return Response(204)
        self.cloud.operations.check_free(name)
        if endpoint.traffic.get(deployment) or endpoint.mirror_traffic.get(deployment):
            text = f"Deployment {deployment} can't be deleted: it has traffic. Set its traffic to 0 first."
            raise AzureError(400, "BadRequest", text)
        current = endpoint.deployments[deployment]
        current.state = "Deleting"

        def work() -> None:
            endpoint.deployments.pop(deployment, None)

        return accepted(self.cloud, 202, None, self.cloud.operations.start(work, name))

    def logs(self, call: Call, name: str, deployment: str) -> Response:
        current = self._deployment(name, deployment)
        body = call.body or {}
        text = current.init_log if body.get("containerType") == "StorageInitializer" else current.log
        tail = body.get("tail")
        lines = text.splitlines()
        head = ["Instance status:", f"SystemSetup: {current.state}", ""] if not lines else []
        return Response(200, {"content": "\n".join(head + (lines[-int(tail) :] if tail else lines)) + "\n"})
