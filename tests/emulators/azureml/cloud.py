"""Emulated Azure ML workspace under the real host names."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import urllib.parse
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.emulators.azureml.assets import Assets, Versions
from tests.emulators.azureml.computes import Compute, Computes
from tests.emulators.azureml.control import Control
from tests.emulators.azureml.deployments import Deployment, Endpoint
from tests.emulators.azureml.endpoints import Endpoints
from tests.emulators.azureml.faults import Fault, Request
from tests.emulators.azureml.history import Api
from tests.emulators.azureml.jobs import Jobs
from tests.emulators.azureml.mlflow import Mlflow
from tests.emulators.azureml.operations import Operations, now
from tests.emulators.azureml.running import DONE, Job
from tests.emulators.azureml.runs import Run
from tests.emulators.azureml.scoring import Scoring
from tests.emulators.azureml.servers import Servers
from tests.emulators.azureml.sizes import find_size, prices
from tests.emulators.azureml.storage import Storage
from tests.emulators.azureml.web import Call, Gateway, Response
from tests.emulators.storage_bench import StorageBench
from tests.environments import environment

Rule = Callable[[Request], bool] | tuple[str, str]


@dataclass
class _Parts:
    assets: Assets
    endpoints: Endpoints
    computes: Computes
    jobs: Jobs
    mlflow: Mlflow


class Cloud:
    """State of an emulated workspace, and the servers that expose it.

    ``requests`` lists the received requests, ``plan`` returns the fault to inject into a request, ``denied``
    contains the rules for refused requests, ``quota_cores`` the quota of a VM family, a size, or all
    (``"total"``). ``operations`` can be delayed (``delay_s``) and paused (``may_begin``); ``crashes`` lists
    errors of the emulator itself.
    """

    def __init__(self, folder: Path) -> None:
        """Start all servers; ``folder`` receives certificates, code and models."""
        environment("inference-server")  # installed now, because the proxy will refuse the package index
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.subscription_id = str(uuid.uuid4())
        self.resource_group = "cifarml-rg"
        self.workspace_name = "cifarml-ws"
        self.location = "eastus"
        self.workspace_id = str(uuid.uuid4())
        self.object_id = str(uuid.uuid4())
        self.created = now()
        self.scope = (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace_name}"
        )
        self.lock = threading.RLock()
        self.bench = StorageBench(folder)
        self.tenant_id = self.bench.entra.tenant_id
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        trust = ssl.create_default_context(cafile=self.bench.ca_path)
        self.gateway = Gateway(tls, trust, self.bench.host, self.bench.port)
        self.storage = Storage(self.bench)
        self.operations = Operations()
        self.servers = Servers(folder / "servers")
        self.parts = _Parts(Assets(self), Endpoints(self), Computes(self), Jobs(self), Mlflow(self))
        self.assets, self.mlflow = self.parts.assets, self.parts.mlflow
        routes = self.assets.routes() | self.parts.endpoints.routes()
        self.gateway.apps = {
            "management.azure.com": Control(
                self, routes | self.parts.computes.routes() | self.parts.jobs.routes()
            ),
            f"{self.location}.api.azureml.ms": Api(self),
            "prices.azure.com": prices,
            "mcr.microsoft.com": self._manifest,
            f"{self.location}.inference.ml.azure.com": Scoring(self),
        }
        for host in (
            "management.azure.com",
            f"{self.location}.api.azureml.ms",
            "prices.azure.com",
            "mcr.microsoft.com",
        ):
            self.bench.proxy.hosts[host] = self.gateway.port
        self.bench.proxy.hosts[self.bench.host] = self.gateway.port
        self._set_defaults()

    def _set_defaults(self) -> None:
        self.quota_cores: dict[str, int] = {}
        self.denied: set[Rule] = set()
        self.permissions: list[dict[str, list[str]]] = [{"actions": ["*"], "notActions": []}]
        """Response of Microsoft.Authorization/permissions; independent of ``denied``."""
        self.start_timeout_s = 60.0
        self.image_digest = f"sha256:{uuid.uuid4().hex * 2}"
        """Digest that the container registry returns for every image."""
        self.default_output = False
        """Include the output ``default`` in jobs, as the service does; it breaks ``jobs.stream``."""
        self.output_type = "UriFolder"
        """Type of outputs in the run history; ``jobs.download`` only recognizes ``uri_folder``."""
        self.operations.delay_s = 0.0

    def _manifest(self, call: Call) -> Response:
        """Handle a manifest request to the container registry."""
        if call.request.method != "HEAD" or "oci.image.index" not in call.request.headers.get("accept", ""):
            return Response(404)
        if not re.fullmatch(r"/v2/[a-z0-9./-]+/manifests/latest", call.request.path):
            return Response(404)
        return Response(200, None, {"Docker-Content-Digest": self.image_digest})

    def reset(self) -> None:
        """Clear all resources, requests and faults, and stop jobs; inference servers keep running."""
        self.parts.jobs.reset()
        self.gateway.reset()
        for server in (self.gateway, self.bench.proxy, self.bench.entra):
            for connection in server._open.copy():  # clients keep connections open, each with its thread
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        with self.lock:
            for name in self.endpoints:
                self.close_host(name)
            for part in (
                self.assets,
                self.parts.endpoints,
                self.parts.computes,
                self.mlflow,
                self.operations,
            ):
                part.reset()
            self._set_defaults()
        self.storage.reset()
        self.bench.proxy.refused.clear()
        for crashes in (self.gateway.crashes, self.operations.crashes, self.parts.jobs.runner.crashes):
            crashes.clear()

    def close(self) -> None:
        self.parts.jobs.reset()
        self.gateway.close()
        self.servers.close()
        self.storage.close()
        self.bench.close()

    def env(self) -> dict[str, str]:
        """Return environment variables that point clients to this workspace."""
        return self.bench.env("oauth") | {
            "AZURE_SUBSCRIPTION_ID": self.subscription_id,
            "AZURE_RESOURCE_GROUP": self.resource_group,
            "AZURE_WORKSPACE_NAME": self.workspace_name,
        }

    def secrets(self) -> list[str]:
        """Return all strings that must not occur in any output."""
        signatures = {urllib.parse.unquote(text) for text in self.storage.signatures}
        written = {urllib.parse.quote(text, safe="") for text in signatures}
        return [*self.bench.secrets(), *self.parts.endpoints.handed_out, *signatures, *written]

    def new_token(self) -> str:
        """Issue a bearer token, as the service does for a job."""
        entra = self.bench.entra
        form = {"grant_type": "client_credentials", "client_id": entra.client_id}
        _, reply = entra.token(
            form | {"client_secret": entra.client_secret, "scope": "https://ml.azure.com/.default"}
        )
        return str(reply["access_token"])

    @property
    def requests(self) -> list[Request]:
        return self.gateway.requests

    @property
    def plan(self) -> Callable[[Request], Fault | None]:
        return self.gateway.plan

    @plan.setter
    def plan(self, plan: Callable[[Request], Fault | None]) -> None:
        self.gateway.plan = plan

    @property
    def crashes(self) -> list[str]:
        return [*self.gateway.crashes, *self.operations.crashes, *self.parts.jobs.runner.crashes]

    @property
    def models(self) -> Versions:
        return self.assets.all["models"]

    @property
    def environments(self) -> Versions:
        return self.assets.all["environments"]

    @property
    def codes(self) -> Versions:
        return self.assets.all["codes"]

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        return self.parts.endpoints.all

    @property
    def computes(self) -> dict[str, Compute]:
        return self.parts.computes.all

    @property
    def jobs(self) -> dict[str, Job]:
        return self.parts.jobs.all

    @property
    def runs(self) -> dict[str, Run]:
        return self.mlflow.runs

    def scoring_host(self, endpoint: str) -> str:
        return f"{endpoint}.{self.location}.inference.ml.azure.com"

    def open_host(self, endpoint: str) -> None:
        self.bench.proxy.hosts[self.scoring_host(endpoint)] = self.gateway.port

    def close_host(self, endpoint: str) -> None:
        self.bench.proxy.hosts.pop(self.scoring_host(endpoint), None)

    def deployments(self) -> list[Deployment]:
        return [one for endpoint in self.endpoints.values() for one in endpoint.deployments.values()]

    def servers_in_use(self) -> set[int]:
        return {id(deployment.server) for deployment in self.deployments() if deployment.server}

    def num_running_jobs(self, compute: str) -> int:
        return sum(
            job.compute == compute and job.status not in {*DONE, "Queued"} for job in self.jobs.values()
        )

    def used_cores(self, without: Any = None) -> dict[str, int]:
        """Return the cores in use by VM family."""
        used: dict[str, int] = {}
        things: list[Deployment | Compute] = [*self.deployments(), *self.computes.values()]
        for thing in things:
            if thing is without or thing.state in {"Failed", "Deleting"}:
                continue
            if isinstance(thing, Deployment):
                size, count = find_size(thing.properties["instanceType"]), thing.count
            else:
                size, count = find_size(thing.size), max(thing.nodes("max"), 1)
            used[size.family] = used.get(size.family, 0) + size.cores * count
        return used

    def count(self, method: str, path: str) -> int:
        """Count the requests with a method and a path that matches a regular expression."""
        return sum(one.method == method and bool(re.search(path, one.path)) for one in self.requests)
