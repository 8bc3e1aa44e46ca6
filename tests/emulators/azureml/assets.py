"""Models, environments and code versions, and the datastores that contain their files."""

# ruff: noqa: ARG002 - handlers have a common signature

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.emulators.azureml.control import Routes, missing, resource
from tests.emulators.azureml.operations import now
from tests.emulators.azureml.validate import check
from tests.emulators.azureml.web import AzureError, Call, Response

if TYPE_CHECKING:
    from tests.emulators.azureml.cloud import Cloud

Versions = dict[str, dict[str, dict[str, Any]]]
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9\-_.]{0,254}")
_FIXED = {"models": ("modelUri", "modelType"), "environments": ("image", "condaFile"), "codes": ("codeUri",)}
_MODELS = {
    "models": ("ModelVersion", "Model"),
    "environments": ("EnvironmentVersion", "Environment"),
    "codes": ("CodeVersion", "Code"),
}


class Assets:
    """Registered assets: ``all[kind][name][version]`` is a resource."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.reset()

    def reset(self) -> None:
        self.all: dict[str, Versions] = {kind: {} for kind in _MODELS}
        self.highest: dict[str, dict[str, int]] = {kind: {} for kind in _MODELS}

    def routes(self) -> Routes:
        kind = "(?P<kind>models|environments|codes)"
        return {
            f"GET {kind}": self.containers,
            f"GET {kind}/{{name}}": self.container,
            f"GET {kind}/{{name}}/versions": self.versions,
            f"GET {kind}/{{name}}/versions/{{version}}": self.get,
            f"PUT {kind}/{{name}}/versions/{{version}}": self.put,
            f"DELETE {kind}/{{name}}/versions/{{version}}": self.delete,
            "POST codes/{name}/versions/{version}/startPendingUpload": self.start_upload,
            "GET datastores": self.datastores,
            "GET datastores/{name}": self.datastore,
            "POST datastores/{name}/listSecrets": self.secrets,
        }

    def find(self, kind: str, named: str) -> dict[str, Any]:
        """Return the resource with an ID or an ``azureml:`` name; raise if it does not exist."""
        found = re.search(rf"{kind}/([^/]+)/versions/([^/]+)$", named) or re.fullmatch(
            r"azureml:([^:]+):(.+)", named
        )
        if found and (asset := self.all[kind].get(found[1], {}).get(found[2])):
            return asset
        raise AzureError(400, "BadArgument", f"{_MODELS[kind][1]} with id {named} was not found.")

    def containers(self, call: Call, kind: str) -> Response:
        value = [self._container(kind, name) for name, versions in self.all[kind].items() if versions]
        value = [one for one in value if _is_shown(one, call.query.get("listViewType"))]
        return Response(200, {"value": value})

    def container(self, call: Call, kind: str, name: str) -> Response:
        if name not in self.highest[kind]:
            raise missing(f"{_MODELS[kind][1]} container", name)
        return Response(200, self._container(kind, name))

    def _container(self, kind: str, name: str) -> dict[str, Any]:
        versions = self.all[kind].get(name, {})
        properties: dict[str, Any] = {
            "nextVersion": str(self.highest[kind].get(name, 0) + 1),
            "latestVersion": next(reversed(versions), None),
            "isArchived": bool(versions)
            and all(one["properties"].get("isArchived") for one in versions.values()),
            "tags": {},
            "properties": {},
        }
        return resource(self.cloud, f"{kind}/{name}", properties)

    def versions(self, call: Call, kind: str, name: str) -> Response:
        query = call.query
        if kind == "codes" and "hash" in query:
            every = [one for versions in self.all[kind].values() for one in versions.values()]
            value = [one for one in every if _hash_of(one) == query["hash"]]
            return Response(200, {"value": value})
        if name not in self.all[kind]:
            raise missing(f"{_MODELS[kind][1]} container", name)
        value = [one for one in self.all[kind][name].values() if _is_shown(one, query.get("listViewType"))]
        if wanted := query.get("version"):
            value = [one for one in value if one["name"] == wanted]
        for tag in filter(None, query.get("tags", "").split(",")):
            key, _, text = tag.partition("=")
            value = [one for one in value if one["properties"].get("tags", {}).get(key) == text]
        order = query.get("$orderBy", query.get("orderBy", "createdtime desc")).lower()
        value.sort(key=lambda one: str(one["systemData"]["createdAt"]), reverse="desc" in order)
        top = query.get("$top") or query.get("top")
        return Response(200, {"value": value[: int(top)] if top else value})

    def get(self, call: Call, kind: str, name: str, version: str) -> Response:
        asset = self.all[kind].get(name, {}).get(version)
        if asset is None:
            raise missing(_MODELS[kind][1], f"{name}:{version}")
        return Response(200, asset)

    def put(self, call: Call, kind: str, name: str, version: str) -> Response:
        check(_MODELS[kind][0], call.body)
        if not _NAME.fullmatch(name) or not _NAME.fullmatch(version):
            raise AzureError(400, "ValidationError", f"Invalid name or version: {name}:{version}.")
        properties = dict(call.body["properties"])
        old = self.all[kind].get(name, {}).get(version)
        if old:
            before = old["properties"]
            for field in _FIXED[kind]:
                if properties.get(field) != before.get(field):
                    raise AzureError(
                        409,
                        "UserError",
                        f"{_MODELS[kind][1]} {name}:{version} already exists: {field} can't be changed. "
                        "Please use a new version.",
                    )
        properties.setdefault("isArchived", False)
        properties.setdefault("isAnonymous", False)
        properties["tags"] = properties.get("tags") or {}
        more = properties.get("properties") or {}
        properties["properties"] = {key: str(value) for key, value in more.items()}
        properties["provisioningState"] = "Succeeded"
        if kind == "models":
            properties["flavors"] = properties.get("flavors") or {}
            properties.setdefault("modelType", "custom_model")
        if kind == "environments":
            properties |= {"environmentType": "UserCreated", "osType": properties.get("osType") or "Linux"}
        asset = resource(self.cloud, f"{kind}/{name}/versions/{version}", properties)
        asset["systemData"]["createdAt"] = old["systemData"]["createdAt"] if old else now()
        self.all[kind].setdefault(name, {})[version] = asset
        number = int(version) if version.isdecimal() else 0
        self.highest[kind][name] = max(self.highest[kind].get(name, 0), number)
        return Response(200 if old else 201, asset)

    def delete(self, call: Call, kind: str, name: str, version: str) -> Response:
        return Response(200 if self.all[kind].get(name, {}).pop(version, None) else 204)

    def start_upload(self, call: Call, name: str, version: str) -> Response:
        container = self.cloud.storage.new_container("upload-")
        uri = self.cloud.storage.url(container)
        signed = f"{uri}?{self.cloud.storage.sas(container)}"
        reference = {
            "blobUri": uri,
            "storageAccountArmId": "",
            "credential": {"credentialType": "SAS", "sasUri": signed},
        }
        document = {
            "pendingUploadId": container,
            "pendingUploadType": "TemporaryBlobReference",
            "blobReferenceForConsumption": reference,
        }
        return Response(200, document)

    def datastores(self, call: Call) -> Response:
        value = [self._datastore(name) for name in self.cloud.storage.datastores()]
        if call.query.get("isDefault", "").lower() == "true":
            value = value[:1]
        return Response(200, {"value": value})

    def datastore(self, call: Call, name: str) -> Response:
        if name not in self.cloud.storage.datastores():
            raise missing("Datastore", name)
        return Response(200, self._datastore(name))

    def _datastore(self, name: str) -> dict[str, Any]:
        properties = {
            "datastoreType": "AzureBlob",
            "accountName": self.cloud.storage.account,
            "containerName": self.cloud.storage.datastores()[name],
            "endpoint": "core.windows.net",
            "protocol": "https",
            "isDefault": name == "workspaceblobstore",
            "serviceDataAccessAuthIdentity": "None",
            "credentials": {"credentialsType": "AccountKey"},
            "tags": {},
            "properties": {},
        }
        return resource(self.cloud, f"datastores/{name}", properties)

    def secrets(self, call: Call, name: str) -> Response:
        container = self.cloud.storage.datastores().get(name)
        if container is None:
            raise missing("Datastore", name)
        if not (call.body or {}).get("expirableSecret"):
            return Response(200, {"secretsType": "AccountKey", "key": self.cloud.bench.key})
        return Response(200, {"secretsType": "Sas", "sasToken": self.cloud.storage.sas(container)})


def _hash_of(code: dict[str, Any]) -> str | None:
    found = code["properties"]["properties"].get("hash_sha256")
    return str(found) if found else None


def _is_shown(asset: dict[str, Any], view: str | None) -> bool:
    archived = bool(asset["properties"].get("isArchived"))
    return {"All": True, "ArchivedOnly": archived}.get(view or "ActiveOnly", not archived)
