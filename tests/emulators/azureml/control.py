"""Control plane (Azure Resource Manager): authorization, routing and resource documents."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.emulators.azureml import sizes
from tests.emulators.azureml.operations import POLL, Operation, now
from tests.emulators.azureml.web import AzureError, Call, Response

if TYPE_CHECKING:
    from tests.emulators.azureml.cloud import Cloud

PROVIDER = "Microsoft.MachineLearningServices"
Handler = Callable[..., Response]
Routes = dict[str, Handler]

_METADATA = {
    "name": "AzureCloud",
    "portal": "https://portal.azure.com",
    "authentication": {
        "loginEndpoint": "https://login.microsoftonline.com/",
        "audiences": ["https://management.core.windows.net/", "https://management.azure.com/"],
        "tenant": "common",
        "identityProvider": "AAD",
    },
    "media": "https://rest.media.azure.net",
    "graphAudience": "https://graph.windows.net/",
    "graph": "https://graph.windows.net/",
    "suffixes": {
        "azureDataLakeStoreFileSystem": "azuredatalakestore.net",
        "acrLoginServer": "azurecr.io",
        "sqlServerHostname": "database.windows.net",
        "azureDataLakeAnalyticsCatalogAndJob": "azuredatalakeanalytics.net",
        "keyVaultDns": "vault.azure.net",
        "storage": "core.windows.net",
        "azureFrontDoorEndpointSuffix": "azurefd.net",
        "mysqlServerEndpoint": "mysql.database.azure.com",
        "postgresqlServerEndpoint": "postgres.database.azure.com",
        "mariadbServerEndpoint": "mariadb.database.azure.com",
    },
    "batch": "https://batch.core.windows.net/",
    "resourceManager": "https://management.azure.com/",
    "vmImageAliasDoc": "https://aka.ms/vm-aliases",
    "activeDirectoryDataLake": "https://datalake.azure.net/",
    "sqlManagement": "https://management.core.windows.net:8443/",
    "microsoftGraphResourceId": "https://graph.microsoft.com/",
    "gallery": "https://gallery.azure.com/",
}


class Control:
    """Handler for management.azure.com; ``routes`` maps ``"METHOD path/{name}"`` below the workspace."""

    def __init__(self, cloud: Cloud, routes: Routes) -> None:
        self.cloud = cloud
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []
        for route, handler in routes.items():
            method, _, path = route.partition(" ")
            pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)
            self._routes.append((method, re.compile(pattern, re.I), handler))

    def __call__(self, call: Call) -> Response:
        request, cloud = call.request, self.cloud
        path = re.sub("/+", "/", request.path)
        if path == "/metadata/endpoints":
            return Response(200, [_METADATA])
        authorize(cloud, call)
        found = re.fullmatch(
            r"/subscriptions/([^/]+)(?:/resourceGroups/([^/]+))?/providers/[^/]+/(.*)", path, re.I
        )
        if not found:
            raise AzureError(404, "NotFound", f"No handler for {request.method} {path}.")
        subscription, group, rest = found.groups()
        with cloud.lock:
            if subscription != cloud.subscription_id:
                text = f"The subscription '{subscription}' could not be found."
                raise AzureError(404, "SubscriptionNotFound", text)
            if group is None:
                return self._of_location(rest)
            if group.lower() != cloud.resource_group.lower():
                raise AzureError(
                    404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found."
                )
            return self._of_workspace(call, rest)

    def _of_location(self, rest: str) -> Response:
        kind, _, tail = rest.removeprefix(f"locations/{self.cloud.location}/").partition("/")
        if kind in {"mfeOperationsStatus", "computeOperationsStatus"}:
            return self.cloud.operations.state(tail)
        if kind == "mfeOperationResults":
            return self.cloud.operations.result(tail)
        if kind.lower() == "vmsizes":
            return sizes.vm_sizes(self.cloud.location)
        if kind == "usages":
            prefix = f"/subscriptions/{self.cloud.subscription_id}/providers/{PROVIDER}"
            return sizes.usages(self.cloud.quota_cores, self.cloud.used_cores(), prefix, self.cloud.location)
        raise AzureError(404, "NotFound", f"There is no {rest}.")

    def _of_workspace(self, call: Call, rest: str) -> Response:
        parts = rest.split("/", 2)
        if parts[0].lower() != "workspaces" or len(parts) < 2 or parts[1] != self.cloud.workspace_name:
            raise AzureError(
                404,
                "ResourceNotFound",
                f"The Resource '{PROVIDER}/{'/'.join(parts[:2])}' under resource group "
                f"'{self.cloud.resource_group}' was not found. For more details please go to "
                "https://aka.ms/ARMResourceNotFoundFix",
            )
        path = parts[2].rstrip("/") if len(parts) > 2 else ""
        if not path and call.request.method == "GET":
            return Response(200, self._workspace())
        if path == "providers/Microsoft.Authorization/permissions":
            return Response(200, {"value": self.cloud.permissions})
        known = False
        for method, pattern, handler in self._routes:
            if found := pattern.fullmatch(path):
                known = True
                if method == call.request.method:
                    return handler(call, **found.groupdict())
        status = 405 if known else 404
        raise AzureError(status, "NotFound", f"No handler for {call.request.method} {path}.")

    def _workspace(self) -> dict[str, Any]:
        cloud = self.cloud
        host = f"{cloud.location}.api.azureml.ms"
        group = f"/subscriptions/{cloud.subscription_id}/resourceGroups/{cloud.resource_group}/providers"
        return {
            "id": cloud.scope,
            "name": cloud.workspace_name,
            "type": f"{PROVIDER}/workspaces",
            "location": cloud.location,
            "tags": {},
            "kind": "Default",
            "identity": {
                "type": "SystemAssigned",
                "principalId": cloud.object_id,
                "tenantId": cloud.tenant_id,
            },
            "sku": {"name": "Basic", "tier": "Basic"},
            "properties": {
                "friendlyName": cloud.workspace_name,
                "description": "",
                "workspaceId": cloud.workspace_id,
                "provisioningState": "Succeeded",
                "discoveryUrl": f"https://{host}/discovery",
                "mlFlowTrackingUri": f"azureml://{host}/mlflow/v1.0{cloud.scope}",
                "storageAccount": f"{group}/Microsoft.Storage/storageAccounts/{cloud.storage.account}",
                "keyVault": f"{group}/Microsoft.Keyvault/vaults/kv",
                "applicationInsights": f"{group}/Microsoft.insights/components/ai",
                "publicNetworkAccess": "Enabled",
                "hbiWorkspace": False,
                "v1LegacyMode": False,
                "tenantId": cloud.tenant_id,
            },
            "systemData": {"createdAt": cloud.created, "createdByType": "User"},
        }


def bearer(call: Call) -> str:
    scheme, _, token = call.request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def authorize(cloud: Cloud, call: Call) -> None:
    """Refuse requests without a valid token, and requests that match a rule of ``denied``."""
    request = call.request
    if bearer(call) not in cloud.bench.entra.tokens:
        text = "Authentication failed. The access token is missing or invalid."
        raise AzureError(401, "InvalidAuthenticationToken", text)
    for rule in cloud.denied:
        if (
            rule(request)
            if callable(rule)
            else rule[0] in {request.method, "*"} and re.search(rule[1], request.path)
        ):
            action, scope = _action(request.method, request.path)
            client = cloud.bench.entra.client_id
            raise AzureError(
                403,
                "AuthorizationFailed",
                f"The client '{client}' with object id '{client}' does not have authorization to perform "
                f"action '{action}' over scope '{scope}' or the scope is invalid. If access was recently "
                "granted, please refresh your credentials.",
            )


def _action(method: str, path: str) -> tuple[str, str]:
    scope = path[path.find("/subscriptions") :]
    kinds = scope.partition(f"/{PROVIDER}/")[2].split("/")
    verb = {"GET": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}.get(method)
    if verb is None and len(kinds) % 2:  # POST to an action of a resource
        return f"{PROVIDER}/{'/'.join(kinds[:-1:2])}/{kinds[-1]}/action", scope.rpartition("/")[0]
    return f"{PROVIDER}/{'/'.join(kinds[::2])}/{verb or 'action'}", scope


def accepted(cloud: Cloud, status: int, body: Any, operation: Operation, kind: str = "mfe") -> Response:
    """Return a response with the status URL of a long-running operation."""
    prefix = f"https://management.azure.com/subscriptions/{cloud.subscription_id}/providers/{PROVIDER}"
    url = f"{prefix}/locations/{cloud.location}/{kind}OperationsStatus/{operation.id}?api-version=2022-05-01"
    headers = {"Azure-AsyncOperation": url, "x-ms-async-operation-timeout": "PT1H", **POLL}
    return Response(status, body, headers)


def resource(
    cloud: Cloud, path: str, properties: dict[str, Any], *, created: str = "", **more: Any
) -> dict[str, Any]:
    """Return the resource document for properties."""
    parts = path.split("/")
    data = {"createdAt": created or cloud.created, "createdBy": "someone", "createdByType": "User"}
    return {
        "id": f"{cloud.scope}/{path}",
        "name": parts[-1],
        "type": f"{PROVIDER}/workspaces/{'/'.join(parts[::2])}",
        "properties": properties,
        "systemData": data | {"lastModifiedAt": now()},
        **{name: value for name, value in more.items() if value is not None},
    }


def missing(kind: str, name: str) -> AzureError:
    return AzureError(404, "NotFound", f"{kind} {name} was not found.")
