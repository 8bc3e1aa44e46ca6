"""Azure host: rollout and rollback, keys, quota, dry runs and YAML files."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.ai.ml import (
    load_compute,
    load_environment,
    load_job,
    load_model,
    load_online_deployment,
    load_online_endpoint,
)

from cifarml import Run, TrainConfig
from cifarml.azure.compute import ClusterOptions, write_cluster_yaml
from cifarml.azure.workspace import AzureWorkspace
from cifarml.deploy.azure.host import AzureHost
from cifarml.deploy.azure.specs import DeploymentOptions, write_yaml
from cifarml.deploy.rollout import deploy_model, roll_back
from cifarml.deploy.smoke_test import probe_endpoint
from cifarml.errors import CloudDeployError, CloudError, DeployError, SettingsError, SmokeTestError
from cifarml.registry.azure.registry import AzureRegistry
from cifarml.registry.base import RegisteredModel
from tests.conftest import CommandLine
from tests.emulators.azureml.cloud import Cloud
from tests.endpoints import Steady
from tests.image_files import image_bytes
from tests.waiting import wait_until

DEFAULT_SCRIPT = "import cifarml.scoring.score as default\ninit = default.init\n"
FAULTS = {
    "crashes in init": "def init(): raise RuntimeError('no such model here')\ndef run(request): pass",
    "exits in init": "import os\ndef init(): os._exit(9)\ndef run(request): pass",
    "no script": "invalid syntax (",
    "crashes": DEFAULT_SCRIPT + "def run(request): raise RuntimeError('oh no')",
    "hangs": DEFAULT_SCRIPT + "import time\ndef run(request): time.sleep(3600)",
    "slow": DEFAULT_SCRIPT
    + """
import time
from azureml_inference_server_http.api.aml_request import rawhttp
@rawhttp
def run(request):
    time.sleep(5.5)
    return default.run(request)
""",
    "wrong predictions": DEFAULT_SCRIPT
    + """
import json
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse
@rawhttp
def run(request):
    answer = default.run(request)
    if answer.status_code != 200:
        return answer
    document = json.loads(answer.get_data())  # of one image
    names = list(document["probabilities"])
    shares = list(document["probabilities"].values())
    document["probabilities"] = dict(zip(names, shares[1:] + shares[:1]))
    return AMLResponse(document, 200, json_str=True)
""",
    "invalid responses": DEFAULT_SCRIPT + "def run(request): return [1, 2]",
}
REFUSED = {
    "crashes in init": "no such model here",
    "exits in init": "crashed",
    "no script": "SyntaxError",
    "crashes": "oh no",
    "hangs": "408|in time|Scoring timeout",
    "slow": "5\\.\\d s for one image|408",
    "wrong predictions": "wrong prediction",
    "invalid responses": "invalid response",
}

DEFAULT_FAULTS = {"crashes in init", "exits in init", "hangs", "wrong predictions"}
"""Faults in the default run; the others require ``-m exhaustive``."""


class AzureCaller:
    """HTTP client of an endpoint in Azure, without cifarml."""

    def __init__(self, host: AzureHost, name: str) -> None:
        self.uri = host.get_endpoint(name).scoring_uri
        self.headers = {"Authorization": f"Bearer {host.read_key(name)}", "Content-Type": "image/png"}
        self.session = requests.Session()

    def score(self) -> Answer:
        response = self.session.post(self.uri, data=image_bytes(), headers=self.headers, timeout=60)
        return Answer(response.status_code, response.content)


class Answer:
    def __init__(self, status: int, body: bytes) -> None:
        self.status, self.body = status, body


@pytest.fixture
def registry(cloud: Cloud) -> AzureRegistry:
    return AzureRegistry(AzureWorkspace())


@pytest.fixture
def models(registry: AzureRegistry, trained: Run) -> list[RegisteredModel]:
    """Two models with the same content and different names."""
    return [registry.register(trained, name) for name in ("one", "two")]


@pytest.fixture
def host(registry: AzureRegistry) -> AzureHost:
    return AzureHost(registry.workspace, poll_s=0.05)


@pytest.fixture
def live(host: AzureHost, models: list[RegisteredModel]) -> str:
    deploy_model(host, models[0], name="live")
    return "live"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=() if fault in DEFAULT_FAULTS else pytest.mark.exhaustive)
        for fault in REFUSED
    ],
)
def test_faulty_deployment_is_rolled_back(
    cloud: Cloud,
    host: AzureHost,
    live: str,
    models: list[RegisteredModel],
    tmp_path: Path,
    fault: str,
) -> None:
    """The old deployment still serves, no client request fails, and the error contains the log."""
    script = tmp_path / "faulty_score.py"
    script.write_text(FAULTS[fault])
    if fault == "exits in init":  # the emulator restarts the container until then
        cloud.start_timeout_s = 8
    timeout_s = 2 if fault == "hangs" else 10
    options = DeploymentOptions(request_timeout_s=timeout_s)
    faulty_host = AzureHost(host.workspace, options, script=script, poll_s=0.05)
    with (
        Steady(AzureCaller(host, live)) as steady,
        pytest.raises(DeployError, match=REFUSED[fault]) as caught,
    ):
        deploy_model(faulty_host, models[1], name=live, canary_s=0.2)
    assert steady.failures == []
    assert steady.num_answers > 0
    endpoint = host.get_endpoint(live)
    assert endpoint.traffic == {"version-1": 100}
    assert [each.name for each in endpoint.deployments] == ["version-1"]
    if fault in {"crashes in init", "no script"}:
        assert "Traceback" in caught.value.message
        assert isinstance(caught.value, CloudDeployError)
    if fault in {"wrong predictions", "slow"}:
        assert isinstance(caught.value, SmokeTestError | DeployError)


def test_rollout_and_rollback(
    cloud: Cloud, host: AzureHost, live: str, models: list[RegisteredModel]
) -> None:
    """No request of a continuously running client fails."""
    steps: list[str] = []
    with Steady(AzureCaller(host, live)) as steady:
        deploy_model(host, models[1], name=live, canary=20, canary_s=0.5, mirror=20, on_step=steps.append)
        assert host.get_endpoint(live).traffic == {"version-1-2": 100}
        assert roll_back(host, live).traffic == {"version-1": 100}
        again: list[str] = []
        deploy_model(host, models[1], name=live, canary_s=0.2, on_step=again.append)
        assert "reusing deployment" in "".join(again)
    assert steady.failures == []
    assert steady.num_answers > 20
    assert cloud.endpoints[live].deployments["version-1-2"].num_mirrored > 0
    assert cloud.endpoints[live].mirror_traffic == {}
    assert cloud.endpoints[live].deployments["version-1-2"].body["tags"]["image_digest"] == cloud.image_digest
    output = "\n".join(steps)
    expected = ("smoke test passed", "mirror: ", "canary: ", "version-1-2 receives 100 %")
    assert sorted(expected, key=output.index) == list(expected)
    assert probe_endpoint(host, live).errors == []
    assert "Downloading model" in host.storage_logs(live, "version-1-2")


def test_endpoint_with_entra_tokens(cloud: Cloud, registry: AzureRegistry, trained: Run) -> None:
    model = registry.register(trained)
    host = AzureHost(registry.workspace, DeploymentOptions(auth="entra"), poll_s=0.05)
    deploy_model(host, model, name="tokens")
    assert cloud.endpoints["tokens"].auth_mode == "AADToken"
    assert host.invoke("tokens", image_bytes()).label in trained.class_names
    with pytest.raises(DeployError, match="not keys"):
        host.read_key("tokens", regenerate=True)


def test_regenerated_key_invalidates_the_old_one(host: AzureHost, live: str) -> None:
    old = AzureCaller(host, live)
    host.invoke(live, image_bytes())
    host.read_key(live, regenerate=True)
    assert old.score().status == 401
    assert host.invoke(live, image_bytes()).label


def test_unmanaged_endpoint_is_not_changed(cloud: Cloud, host: AzureHost, live: str) -> None:
    cloud.endpoints[live].body["tags"] = {}
    with pytest.raises(DeployError, match="not managed by cifarml"):
        host.create_endpoint(live)
    assert host.list_endpoints() == []


def test_endpoint_name_taken_in_the_region(cloud: Cloud, host: AzureHost) -> None:
    cloud.parts.endpoints.taken.add("popular")
    with pytest.raises(CloudDeployError, match=r"taken|unique") as caught:
        host.create_endpoint("popular")
    assert "--name" in str(caught.value.hint)


def test_insufficient_quota(
    cloud: Cloud, registry: AzureRegistry, trained: Run, cifarml: CommandLine, tmp_path: Path
) -> None:
    """The error lists sizes that fit, and the endpoint is deleted."""
    registry.register(trained)
    cloud.quota_cores = {"total": 2}
    done = cifarml("deploy", "--instance-type", "Standard_F4s_v2")
    assert done.returncode == 1
    assert "not enough quota" in done.stderr
    assert "fit the remaining quota" in done.stderr
    assert re.search(r"Standard_\w+", done.stderr.partition("Hint:")[2])
    assert not cloud.endpoints


def test_set_traffic_waits_for_concurrent_operations(cloud: Cloud, host: AzureHost, live: str) -> None:
    client = host.workspace.client
    endpoint = client.online_endpoints.get(live)
    endpoint.tags["touched"] = "yes"
    cloud.operations.may_begin.clear()
    client.online_endpoints.begin_create_or_update(endpoint)
    num_requests = cloud.count("GET", f"/onlineEndpoints/{live}$")
    with ThreadPoolExecutor() as pool:
        change = pool.submit(host.set_traffic, live, {"version-1": 100})
        wait_until(lambda: cloud.count("GET", f"/onlineEndpoints/{live}$") >= num_requests + 3)
        assert not change.done()
        cloud.operations.may_begin.set()
        change.result()
    assert host.get_endpoint(live).traffic == {"version-1": 100}


def test_dry_run_sends_only_read_requests(
    cloud: Cloud, registry: AzureRegistry, trained: Run, cifarml: CommandLine
) -> None:
    registry.register(trained)
    del cloud.requests[:]
    done = cifarml("deploy", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout)["steps"]
    assert "0.085 USD an hour" in steps[-1]
    done = cifarml("compute", "create", "gpu", "--dry-run")
    assert "0.526 USD an hour" in done.stdout
    assert {request.method for request in cloud.requests} <= {"GET", "HEAD"}
    assert not cloud.endpoints
    assert not cloud.computes


def test_yaml_files(
    cloud: Cloud, registry: AzureRegistry, trained: Run, cifarml: CommandLine, tmp_path: Path
) -> None:
    """Azure ML's own loaders read them."""
    registry.register(trained)
    done = cifarml("deploy", "--yaml", tmp_path / "plan", "--instances", 2)
    assert done.returncode == 0, done.stderr
    assert [line.split(" -f ")[0] for line in done.stdout.splitlines()] == [
        "az ml environment create",
        "az ml model create",
        "az ml online-endpoint create",
        "az ml online-deployment create",
    ]
    plan = tmp_path / "plan"
    assert load_environment(plan / "environment.yml").name == "cifarml-scoring"
    model = load_model(plan / "model.yml")
    assert (model.name, model.version) == ("cifar10", "1")
    assert Run.open(plan / "model").sha256 == trained.sha256
    assert load_online_endpoint(plan / "endpoint.yml").auth_mode == "key"
    deployment = load_online_deployment(plan / "deployment.yml")
    assert (deployment.instance_count, deployment.instance_type) == (2, "Standard_F2s_v2")
    settings: Any = deployment.request_settings
    assert settings.max_concurrent_requests_per_instance == 2
    assert deployment.environment_variables["WORKER_COUNT"] == "2"
    assert (plan / "code" / "cifarml" / "scoring" / "score.py").is_file()
    (path,) = write_cluster_yaml(tmp_path / "cluster", "gpu", ClusterOptions(low_priority=True))
    cluster: Any = load_compute(path)
    assert (cluster.name, cluster.min_instances, cluster.tier) == ("gpu", 0, "low_priority")
    (tmp_path / "my settings.toml").write_text("dropout = 0.1\n")
    written = cifarml(
        *("train", "--compute", "gpu", "--data", "az://images/a b.zip", "--yaml", tmp_path / "job"),
        *("--config", tmp_path / "my settings.toml", "--subset", 100, "--epochs", 3),
    )
    assert written.returncode == 0, written.stderr
    job: Any = load_job(tmp_path / "job" / "job.yml")
    assert "cifarml train --data" in job.command.replace("'", "")
    assert "'--subset' '100'" in job.command
    assert job.command.endswith("'--config' 'train.json'")
    sent = TrainConfig.load(tmp_path / "job" / "code" / "train.json")
    assert sent == TrainConfig(dropout=0.1, num_epochs=3), "flags override the file"
    assert job.inputs["images"].path.endswith(".blob.core.windows.net/images/a%20b.zip")
    assert (tmp_path / "job" / "code" / "cifarml" / "cli" / "commands" / "train.py").is_file()
    again = cifarml("deploy", "--yaml", plan)
    assert again.returncode == 1
    assert "not empty" in again.stderr
    with pytest.raises(CloudError, match="not empty"):
        write_yaml(plan, "live", "version-1", registry.get(), DeploymentOptions())


@pytest.mark.parametrize(
    "wrong",
    [
        {"instance_count": 0},
        {"workers": 65},
        {"request_timeout_s": 181},
        {"instance_type": "../x"},
        {"instance_type": ""},
    ],
    ids=str,
)
def test_invalid_options_are_rejected(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="Received"):
        DeploymentOptions(**wrong)  # type: ignore[arg-type]


def test_unreachable_price_list(
    cloud: Cloud, registry: AzureRegistry, trained: Run, cifarml: CommandLine
) -> None:
    registry.register(trained)
    cloud.bench.proxy.hosts.pop("prices.azure.com")
    try:
        done = cifarml("deploy", "--dry-run")
    finally:
        cloud.bench.proxy.hosts["prices.azure.com"] = cloud.gateway.port
        cloud.bench.proxy.refused.clear()
    assert done.returncode == 0, done.stderr
    assert "price not known: prices.azure.com can't be reached" in done.stdout


def test_requests_contain_no_secrets(cloud: Cloud, host: AzureHost, live: str) -> None:
    """Deployments, environments and code contain neither keys nor tokens."""
    sent = json.dumps([request.body for request in cloud.requests if request.method == "PUT"])
    for secret in [*cloud.bench.entra.tokens, cloud.bench.entra.client_secret, cloud.bench.key]:
        assert secret not in sent
    assert os.environ["AZURE_CLIENT_ID"] not in sent
