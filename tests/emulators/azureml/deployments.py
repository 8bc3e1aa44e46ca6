"""Endpoints and deployments, which run on the real inference server."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.emulators.azureml.operations import now
from tests.emulators.azureml.servers import CrashedError, Server
from tests.emulators.azureml.sizes import check_quota, find_size
from tests.emulators.azureml.web import AzureError

if TYPE_CHECKING:
    from tests.emulators.azureml.cloud import Cloud

_CRASHED = (
    "User container has crashed or terminated. Please see troubleshooting guide, available here: "
    "https://aka.ms/oe-tsg#error-resourcenotready"
)


@dataclass
class Deployment:
    """Deployment; ``body`` is the last PUT body, ``server`` runs when ``state`` is Succeeded."""

    name: str
    body: dict[str, Any]
    state: str = "Creating"
    server: Server | None = None
    crash_log: str = ""
    init_log: str = ""
    num_requests: int = 0
    num_mirrored: int = 0
    num_active: int = 0

    @property
    def properties(self) -> dict[str, Any]:
        return dict(self.body["properties"])

    @property
    def count(self) -> int:
        return int((self.body.get("sku") or {}).get("capacity") or 1)

    @property
    def max_active(self) -> int:
        settings = self.properties.get("requestSettings") or {}
        return 2 * int(settings.get("maxConcurrentRequestsPerInstance") or 1) * self.count

    @property
    def log(self) -> str:
        return self.server.log() if self.server else self.crash_log


@dataclass
class Endpoint:
    name: str
    body: dict[str, Any]
    auth_mode: str = "Key"
    traffic: dict[str, int] = field(default_factory=dict)
    mirror_traffic: dict[str, int] = field(default_factory=dict)
    state: str = "Creating"
    keys: dict[str, str] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    deployments: dict[str, Deployment] = field(default_factory=dict)


def start_work(cloud: Cloud, deployment: Deployment) -> Callable[[], None]:
    """Return the work of the operation that starts a deployment from its current body."""
    body = deployment.body

    def work() -> None:
        folder = Path(tempfile.mkdtemp(dir=cloud.folder))
        try:
            server = _start(cloud, deployment, body, folder)
        except AzureError:
            deployment.state, deployment.server = "Failed", None
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        deployment.server, deployment.state = server, "Succeeded"

    return work


def _start(cloud: Cloud, deployment: Deployment, body: dict[str, Any], folder: Path) -> Server:
    properties = body["properties"]
    size = find_size(properties["instanceType"])
    with cloud.lock:
        environment = cloud.assets.find("environments", properties["environmentId"])["properties"]
        model = cloud.assets.find("models", properties["model"])
        configuration = properties["codeConfiguration"]
        code = cloud.assets.find("codes", configuration["codeId"])
        used = cloud.used_cores(without=deployment)
        check_quota(cloud.quota_cores, used, size, deployment.count, cloud.subscription_id)
    if not environment.get("image") or not environment.get("condaFile"):
        raise AzureError(400, "ImageBuildFailure", "The environment has no image, or no conda file.")
    uris = (code["properties"]["codeUri"], model["properties"]["modelUri"])
    code_folder = cloud.storage.download(uris[0], folder / "code")
    model_path = cloud.storage.download(uris[1], folder / "model")
    name, version = model["id"].split("/")[-3::2]
    deployment.init_log = "".join(
        f"{now()} INFO StorageInitializer {line}\n"
        for line in (
            f"Downloading code {uris[0]}",
            f"Downloading model {name}:{version} to /var/azureml-app/azureml-models/{name}/{version}",
            "Download completed.",
        )
    )
    script = configuration["scoringScript"]
    try:
        if not (code_folder / script).is_file():
            raise CrashedError(f"ERROR: the scoring script {script} was not found in /var/azureml-app\n")
        return cloud.servers.get(
            code_folder,
            script,
            model_path,
            (name, version),
            properties.get("environmentVariables") or {},
            cloud.start_timeout_s,
            cloud.servers_in_use(),
        )
    except CrashedError as error:
        deployment.crash_log = str(error)
        raise AzureError(400, "ResourceNotReady", _CRASHED) from None


def check_traffic(
    traffic: dict[str, int], mirror: dict[str, int], deployments: dict[str, Deployment]
) -> None:
    """Refuse invalid traffic shares."""
    for name in {*traffic, *mirror} - {*deployments}:
        raise AzureError(400, "BadRequest", f"Traffic refers to the deployment {name}, which does not exist.")
    if sum(traffic.values()) not in {0, 100} or any(not 0 <= share <= 100 for share in traffic.values()):
        raise AzureError(400, "BadRequest", "The traffic of all deployments must sum up to 0 or 100.")
    if sum(mirror.values()) > 50 or len([share for share in mirror.values() if share]) > 1:
        raise AzureError(400, "BadRequest", "Mirror traffic goes to one deployment, and is at most 50.")
    for name, share in mirror.items():
        if share and traffic.get(name):
            raise AzureError(
                400, "BadRequest", f"Deployment {name} can't have both traffic and mirror traffic."
            )
