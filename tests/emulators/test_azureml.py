"""Tests of the Azure ML emulator with the real clients, configured by environment variables only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)

from cifarml import Run
from cifarml.deploy.azure.staging import SCORING_SCRIPT, stage_scoring
from tests.emulators.azureml.cloud import Cloud
from tests.emulators.azureml.faults import Drop, Kill, LoseReply, Refuse, Request
from tests.image_files import image_bytes
from tests.waiting import wait_until

# azure.ai.ml downloads blobs in a way that azure.storage.blob has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The use of a 'BlobProperties' instance:DeprecationWarning")

SCORE = """
import json, os, time
def init():
    print("serving", os.environ["AZUREML_MODEL_DIR"])
def run(data):
    request = json.loads(data)
    time.sleep(request.get("sleep", 0))
    if request.get("fail"):
        raise ValueError("requested failure")
    path = os.environ["AZUREML_MODEL_DIR"]
    model = path.split("azureml-models/")[1]
    return {"model": model, "files": sorted(os.listdir(path)), "as": os.environ["AS"]}
"""


@pytest.fixture
def client(cloud: Cloud) -> Iterator[Any]:
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    credential = DefaultAzureCredential()
    client = MLClient(credential, cloud.subscription_id, cloud.resource_group, cloud.workspace_name)
    yield client
    credential.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder with a model folder ``model`` and a code folder ``code``."""
    (tmp_path / "model/inner").mkdir(parents=True)
    (tmp_path / "model/a.txt").write_text("a")
    (tmp_path / "model/inner/b.bin").write_bytes(bytes(range(256)))
    (tmp_path / "code").mkdir()
    (tmp_path / "code/score.py").write_text(SCORE)
    (tmp_path / "conda.yaml").write_text("dependencies: [python=3.12]\n")
    return tmp_path


def register(client: Any, path: Path, **more: Any) -> Any:
    from azure.ai.ml.entities import Model

    return client.models.create_or_update(Model(name="m", path=str(path), type="custom_model", **more))


def environment(client: Any, folder: Path) -> Any:
    from azure.ai.ml.entities import Environment

    file = str(folder / "conda.yaml")
    made = Environment(name="e", image="mcr.microsoft.com/azureml/minimal-py312-inference", conda_file=file)
    return client.environments.create_or_update(made)


def make_endpoint(client: Any, mode: str = "key") -> Any:
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    made = ManagedOnlineEndpoint(name="live", auth_mode=mode)
    return client.online_endpoints.begin_create_or_update(made).result()


def deploy(client: Any, code: Path, name: str = "blue", script: str = "score.py", **more: Any) -> Any:
    from azure.ai.ml.entities import CodeConfiguration, ManagedOnlineDeployment, OnlineRequestSettings

    settings = {
        "instance_type": "Standard_DS3_v2",
        "model": "azureml:m:1",
        "environment": "azureml:e:1",
    } | more
    deployment = ManagedOnlineDeployment(
        name=name,
        endpoint_name="live",
        code_configuration=CodeConfiguration(code=str(code), scoring_script=script),
        instance_count=1,
        environment_variables={"WORKER_COUNT": "1", "AS": name},
        request_settings=OnlineRequestSettings(request_timeout_ms=1500),
        **settings,
    )
    return client.online_deployments.begin_create_or_update(deployment, skip_script_validation=True).result()


def set_traffic(client: Any, traffic: dict[str, int], mirror: dict[str, int] | None = None) -> None:
    endpoint = client.online_endpoints.get("live")
    endpoint.traffic, endpoint.mirror_traffic = traffic, mirror or {}
    client.online_endpoints.begin_create_or_update(endpoint).result()


def score(key: str, body: Any = None, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    url = "https://live.eastus.inference.ml.azure.com/score"
    return requests.post(url, json=body or {}, headers={"Authorization": f"Bearer {key}"} | named, timeout=20)


@pytest.fixture
def live(client: Any, folder: Path) -> str:
    """Key of an endpoint whose deployment ``blue`` receives all traffic."""
    register(client, folder / "model")
    environment(client, folder)
    make_endpoint(client)
    deploy(client, folder / "code")
    set_traffic(client, {"blue": 100})
    return str(client.online_endpoints.get_keys("live").primary_key)


def test_models(cloud: Cloud, client: Any, folder: Path) -> None:
    first = register(client, folder / "model", tags={"accuracy": "0.9"}, properties={"p": "q"})
    second = register(client, folder / "model")
    assert (first.version, second.version) == ("1", "2")
    assert first.path == second.path, "the same content has the same path"
    assert cloud.count("PUT", "LocalUpload") <= 2 + 2, "it is uploaded once"
    assert [model.version for model in client.models.list(name="m")] == ["2", "1"]
    assert client.models.get("m", label="latest").version == "2"
    client.models.archive("m", "2")
    assert [model.version for model in client.models.list(name="m")] == ["1"]
    assert cloud.models["m"]["2"]["properties"]["isArchived"]
    client.models.download("m", "1", download_path=str(folder / "got"))
    assert (folder / "got/m/model/inner/b.bin").read_bytes() == bytes(range(256))
    tagged = client.models.get("m", "1")
    assert tagged.tags == {"accuracy": "0.9"}
    tagged.tags["x"] = "y"
    client.models.create_or_update(tagged)
    assert cloud.models["m"]["1"]["properties"]["tags"] == {"accuracy": "0.9", "x": "y"}
    (folder / "model/a.txt").write_text("other")
    with pytest.raises(Exception, match="already exists"):
        register(client, folder / "model", version="1")
    with pytest.raises(ResourceNotFoundError):
        client.models.get("m", "9")


def test_endpoint(cloud: Cloud, client: Any, folder: Path, live: str) -> None:
    response = score(live)
    assert response.json() == {"model": "m/1", "files": ["model"], "as": "blue"}
    assert response.headers["azureml-model-deployment"] == "blue"
    assert response.headers["x-ms-request-id"]
    failed = score(live, {"fail": True})
    assert failed.status_code == 424
    assert failed.headers["ms-azureml-model-error-statuscode"] == "500"
    assert failed.headers["ms-azureml-model-error-reason"] == "model_error"
    assert score(live, {"sleep": 2}).status_code == 408
    assert score("wrong").status_code == 401
    assert score(live, azureml_model_deployment="none").status_code == 404
    assert "serving" in client.online_deployments.get_logs("blue", "live", lines=100)
    logs = client.online_deployments.get_logs("blue", "live", lines=9, container_type="storage-initializer")
    assert "azureml-models/m/1" in logs
    swagger = "https://live.eastus.inference.ml.azure.com/swagger.json"
    assert requests.get(swagger, headers={"Authorization": f"Bearer {live}"}, timeout=20).status_code == 200
    assert cloud.endpoints["live"].deployments["blue"].num_requests == 4
    assert cloud.crashes == []


def test_traffic(cloud: Cloud, client: Any, folder: Path, live: str) -> None:
    deploy(client, folder / "code", "green")
    with pytest.raises(HttpResponseError, match="0 or 100"):
        set_traffic(client, {"blue": 60, "green": 60})
    set_traffic(client, {"blue": 100}, {"green": 50})
    for _ in range(30):
        assert score(live).json()["as"] == "blue"
    green = cloud.endpoints["live"].deployments["green"]
    assert 0 < green.num_mirrored < 30
    assert green.num_requests == 0
    set_traffic(client, {"blue": 50, "green": 50})
    assert {score(live).json()["as"] for _ in range(30)} == {"blue", "green"}
    assert score(live, azureml_model_deployment="green").json()["as"] == "green"
    with pytest.raises(HttpResponseError, match="traffic"):
        client.online_deployments.begin_delete("green", "live")
    set_traffic(client, {"blue": 0, "green": 0})
    nowhere = score(live)
    assert nowhere.status_code == 404
    assert "No valid deployments to route to" in nowhere.text
    client.online_deployments.begin_delete("green", "live").result()
    assert [*cloud.endpoints["live"].deployments] == ["blue"]
    client.online_endpoints.begin_regenerate_keys("live").result()
    assert score(live).status_code == 401
    assert score(client.online_endpoints.get_keys("live").secondary_key).status_code == 404
    client.online_endpoints.begin_delete("live").result()
    assert not cloud.endpoints
    with pytest.raises(requests.RequestException):
        score(live)


def test_scoring_script_of_cifarml(client: Any, folder: Path, trained: Run) -> None:
    stage_scoring(folder / "staged")
    register(client, trained.path)
    environment(client, folder)
    make_endpoint(client, "aad_token")
    deploy(client, folder / "staged", script=SCORING_SCRIPT)
    set_traffic(client, {"blue": 100})
    token = client.online_endpoints.get_keys("live").access_token
    url = client.online_endpoints.get("live").scoring_uri
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/png"}
    response = requests.post(url, image_bytes(), headers=headers, timeout=20)
    assert response.status_code == 200, response.text
    assert response.json()["model"] == {"name": "m", "version": "1"}


def test_same_content_reuses_the_server(cloud: Cloud, client: Any, folder: Path, live: str) -> None:
    before = cloud.servers.num_started
    deploy(client, folder / "code")
    assert cloud.servers.num_started == before


def test_failed_deployments(cloud: Cloud, client: Any, folder: Path, live: str) -> None:
    (folder / "bad").mkdir()
    (folder / "bad/score.py").write_text("def init():\n    raise ValueError('no way')\ndef run(data): ...\n")
    with pytest.raises(HttpResponseError, match=r"ResourceNotReady.*User container has crashed") as error:
        deploy(client, folder / "bad", "bad")
    assert error.value.status_code == 200
    assert "no way" in client.online_deployments.get_logs("bad", "live", lines=200)
    assert client.online_deployments.get("bad", "live").provisioning_state == "Failed"
    with pytest.raises(HttpResponseError, match="models/none/versions/1 was not found"):
        deploy(client, folder / "code", "none", model="azureml:none:1")
    cloud.quota_cores["total"] = 6
    with pytest.raises(
        HttpResponseError, match=r"OutOfQuota.*Not enough quota available for Standard_F4s_v2"
    ):
        deploy(client, folder / "code", "big", instance_type="Standard_F4s_v2")
    assert cloud.endpoints["live"].deployments["blue"].state == "Succeeded"
    cloud.quota_cores.clear()
    (folder / "slow").mkdir()
    (folder / "slow/score.py").write_text("import time\ndef init(): time.sleep(60)\ndef run(data): ...\n")
    cloud.start_timeout_s = 2
    with pytest.raises(HttpResponseError, match="ResourceNotReady"):
        deploy(client, folder / "slow", "slow")


def test_concurrent_changes_conflict(cloud: Cloud, client: Any, live: str) -> None:
    endpoint = client.online_endpoints.get("live")
    cloud.operations.may_begin.clear()
    poller = client.online_endpoints.begin_create_or_update(endpoint)
    with pytest.raises(ResourceExistsError, match="another operation is in progress") as error:
        client.online_deployments.begin_delete("blue", "live")
    assert error.value.status_code == 409
    cloud.operations.may_begin.set()
    poller.result()


def test_request_bodies_are_validated(cloud: Cloud, client: Any) -> None:
    token = cloud.new_token()
    url = f"https://management.azure.com{cloud.scope}/onlineEndpoints/live?api-version=2022-05-01"

    def put(body: Any) -> str:
        response = requests.put(url, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=20)
        assert response.status_code == 400, response.text
        return str(response.json()["error"]["message"])

    good = {"location": "eastus", "properties": {"authMode": "Key"}}
    assert "$.location is missing" in put({"properties": good["properties"]})
    assert "$.properties.authMode is missing" in put(good | {"properties": {}})
    assert "traffic.a must be int" in put(good | {"properties": {"authMode": "Key", "traffic": {"a": "x"}}})
    assert "$.properties.weight is unknown" in put(good | {"properties": {"authMode": "Key", "weight": 1}})


def test_permissions(cloud: Cloud, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.denied = {("PUT", "/onlineEndpoints/"), lambda request: request.path.endswith("/models/m")}
    with pytest.raises(
        HttpResponseError, match=r"AuthorizationFailed.*workspaces/onlineEndpoints/write"
    ) as error:
        make_endpoint(client)
    assert error.value.status_code == 403
    from azure.ai.ml import MLClient
    from azure.identity import EnvironmentCredential

    with pytest.raises(ResourceNotFoundError, match=r"ResourceNotFound.*was not found"):
        MLClient(client._credential, cloud.subscription_id, cloud.resource_group, "other").workspaces.get()
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong")
    with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
        MLClient(EnvironmentCredential(), cloud.subscription_id, cloud.resource_group, "w").workspaces.get()


def test_computes(cloud: Cloud, client: Any) -> None:
    from azure.ai.ml.entities import AmlCompute

    cluster = AmlCompute(name="cpu", size="Standard_F4s_v2", min_instances=0, max_instances=2)
    client.compute.begin_create_or_update(cluster).result()
    assert client.compute.get("cpu").max_instances == 2
    assert [(one.name, one.size) for one in client.compute.list()] == [("cpu", "Standard_F4s_v2")]
    assert "Standard_NC4as_T4_v3" in {size.name for size in client.compute.list_sizes()}
    used = {usage.name["value"]: usage.currentValue for usage in client.compute.list_usage()}
    assert used["standardFSv2Family"] == 8
    cloud.quota_cores["standardFSv2Family"] = 10
    more = AmlCompute(name="more", size="Standard_F2s_v2", max_instances=2)
    with pytest.raises(HttpResponseError, match="OutOfQuota"):
        client.compute.begin_create_or_update(more).result()
    client.compute.begin_delete("cpu").result()
    assert "cpu" not in cloud.computes
    with pytest.raises(ResourceNotFoundError):
        client.compute.get("cpu")


def submit(client: Any, command: str, code: Path, **more: Any) -> Any:
    from azure.ai.ml import command as make

    settings = {"environment": "azureml:e:1", "compute": "cpu", "code": str(code)} | more
    return client.jobs.create_or_update(make(command=command, **settings))


@pytest.fixture
def cluster(cloud: Cloud, client: Any, folder: Path) -> None:
    from azure.ai.ml.entities import AmlCompute

    environment(client, folder)
    made = AmlCompute(name="cpu", size="Standard_DS3_v2", min_instances=0, max_instances=1)
    client.compute.begin_create_or_update(made).result()


@pytest.mark.usefixtures("cluster")
def test_job(cloud: Cloud, client: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from azure.ai.ml import Input, Output

    cloud.storage.write("azureml", "given/x.txt", b"content")
    (folder / "code/go.py").write_text(
        textwrap.dedent("""
        import os, shutil, sys
        print("in", os.environ["WHO"], flush=True)
        shutil.copy(sys.argv[1] + "/x.txt", sys.argv[2] + "/y.txt")
        os.environ["MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_TRACKING_URI"].replace("azureml", "https", 1)
        import mlflow
        mlflow.log_metric("accuracy", 0.75)
    """)
    )
    given = Input(type="uri_folder", path=f"https://{cloud.storage.host}/azureml/given")
    job = submit(
        client,
        "python go.py ${{inputs.data}} ${{outputs.made}}",
        folder / "code",
        inputs={"data": given},
        outputs={"made": Output(type="uri_folder")},
        environment_variables={"WHO": "job", "MLFLOW_DISABLE_TELEMETRY": "true"},
        experiment_name="train",
    )
    assert client.compute.get("cpu").id
    client.jobs.stream(job.name)
    shown = capsys.readouterr().out
    assert "in job" in shown
    assert "Execution Summary" in shown
    assert client.jobs.get(job.name).status == "Completed", cloud.jobs[job.name].log
    client.jobs.download(job.name, output_name="made", download_path=str(folder / "got"))
    assert (folder / "got/named-outputs/made/y.txt").read_text() == "content"
    assert [one.name for one in client.jobs.list()] == [job.name]
    assert cloud.runs[job.name].metrics == {"accuracy": 0.75}
    assert cloud.runs[job.name].status == "FINISHED"


@pytest.mark.usefixtures("cluster")
def test_failed_and_canceled_jobs(cloud: Cloud, client: Any, folder: Path) -> None:
    from azure.ai.ml import Output
    from azure.ai.ml.exceptions import JobException

    where = "azureml://datastores/workspaceblobstore/paths/mine/out"
    outputs = {"made": Output(type="uri_folder", path=where)}
    failed = submit(
        client, "echo k > ${{outputs.made}}/kept; echo boo; exit 3", folder / "code", outputs=outputs
    )
    with pytest.raises(JobException, match="status code 3"):
        client.jobs.stream(failed.name)
    path = cloud.storage.download(f"{where}/kept", folder / "kept")
    assert path.read_text() == "k\n", "outputs are kept even if the job fails"
    client.jobs.download(failed.name, output_name="made", download_path=str(folder / "got"))
    assert not list((folder / "got").rglob("kept")), "this client does not recognize the service's type names"
    cloud.output_type = "uri_folder"
    client.jobs.download(failed.name, output_name="made", download_path=str(folder / "got"))
    assert (folder / "got/named-outputs/made/kept").read_text() == "k\n"

    long = submit(client, "echo up; trap '' TERM; sleep 60 & sleep 60", folder / "code")
    wait_until(lambda: cloud.jobs[long.name].log == "up\n")
    assert cloud.num_running_jobs("cpu") == 1
    client.jobs.begin_cancel(long.name).result()
    assert cloud.jobs[long.name].done.wait(10)
    assert client.jobs.get(long.name).status == "Canceled"
    with pytest.raises(ResourceNotFoundError, match="ComputeTargetNotFound"):
        submit(client, "ls", folder / "code", compute="none")
    cloud.default_output = (
        True  # as the service does; this client then signs with a SAS token instead of a key
    )
    running = submit(client, "sleep 60", folder / "code")
    with pytest.raises(Exception, match=r"padding|base64|Incorrect|AuthenticationFailed|Signature|Failed"):
        client.jobs.stream(running.name)
    client.jobs.begin_cancel(running.name).result()


def test_mlflow(cloud: Cloud, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", cloud.new_token())
    mlflow.set_tracking_uri(client.workspaces.get().mlflow_tracking_uri.replace("azureml", "https", 1))
    try:
        mlflow.set_experiment("e")
        with mlflow.start_run(run_name="r") as run:
            mlflow.log_params({"lr": 0.1, "name": "x"})
            for step, value in enumerate((0.1, 0.5, float("nan"))):
                mlflow.log_metric("loss", value, step=step)
            mlflow.set_tag("kind", "good")
        with mlflow.start_run():
            mlflow.log_metric("loss", 2.0)
        found: Any = mlflow.search_runs(
            experiment_names=["e"], filter_string="tags.kind = 'good'", output_format="list"
        )
        assert [one.info.run_id for one in found] == [run.info.run_id]
        assert found[0].data.params == {"lr": "0.1", "name": "x"}
        history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
        assert [metric.value for metric in history][:2] == [0.1, 0.5]
        assert history[2].value != history[2].value
        better: Any = mlflow.search_runs(
            experiment_names=["e"], filter_string="metrics.loss > 1", output_format="list"
        )
        assert len(better) == 1
    finally:
        mlflow.set_tracking_uri("")
    assert cloud.runs[run.info.run_id].status == "FINISHED"
    assert not [host for host in cloud.bench.proxy.refused if "mlflow" in host]


def test_prices(cloud: Cloud) -> None:
    rule = "armRegionName eq 'eastus' and armSkuName eq 'Standard_DS3_v2' and priceType eq 'Consumption'"
    url = "https://prices.azure.com/api/retail/prices"
    items = requests.get(url, params={"$filter": rule}, timeout=20).json()["Items"]
    assert {item["armSkuName"] for item in items} == {"Standard_DS3_v2"}
    assert len({item["retailPrice"] for item in items}) == 4
    (plain,) = [one for one in items if one["productName"].endswith("Series") and one["skuName"] == "DS3 v2"]
    assert (plain["retailPrice"], plain["unitOfMeasure"]) == (0.293, "1 Hour")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Refuse(403, "AuthorizationFailed", message="no"), HttpResponseError),
        (Refuse(409, "Conflict"), ResourceExistsError),
        (Drop(), (ServiceRequestError, ServiceResponseError)),
    ],
)
def test_injected_faults(cloud: Cloud, client: Any, fault: Any, error: Any) -> None:
    cloud.plan = lambda request: fault if request.method == "PUT" else None
    client._operation_container  # noqa: B018 - creates the client before the faults
    with pytest.raises(error):
        make_endpoint(client)
    assert not cloud.endpoints
    cloud.plan = lambda _: None
    make_endpoint(client)
    numbers = [request.number for request in cloud.requests]
    assert numbers == list(range(1, len(numbers) + 1))


def test_request_with_lost_response_takes_effect(cloud: Cloud, client: Any, folder: Path) -> None:
    lost: list[int] = []

    def plan(request: Request) -> LoseReply | None:
        if request.method == "PUT" and "/environments/" in request.path and not lost:
            lost.append(request.number)
            return LoseReply()
        return None

    cloud.plan = plan
    environment(client, folder)  # the client retries
    assert cloud.count("PUT", "/environments/") == 2
    assert [*cloud.environments["e"]] == ["1"]


def test_storage_permission_denied(cloud: Cloud, client: Any, folder: Path) -> None:
    cloud.plan = lambda one: (
        Refuse(403, "AuthorizationPermissionMismatch") if one.method == "PUT" and "blob" in one.host else None
    )
    with pytest.raises(Exception, match=r"AuthorizationPermissionMismatch|not authorized|authorization"):
        register(client, folder / "model")
    assert not cloud.models.get("m")


@pytest.mark.parametrize("before", [True, False])
def test_killed_client(cloud: Cloud, before: bool) -> None:
    code = (
        "import requests, os, sys; print(os.getpid(), flush=True); sys.stdin.readline();"
        "requests.put(sys.argv[1], json={'location': 'eastus', 'properties': {'authMode': 'Key'}},"
        " headers={'Authorization': sys.argv[2]})"
    )
    url = f"https://management.azure.com{cloud.scope}/onlineEndpoints/live"
    command = [sys.executable, "-c", code, url, f"Bearer {cloud.new_token()}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        cloud.plan = lambda _: Kill(process.pid, before)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(20) == -signal.SIGKILL
    assert ("live" in cloud.endpoints) != before


def test_storage_with_the_same_credential(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    from azure.identity import DefaultAzureCredential
    from azure.storage.blob import BlobServiceClient

    with DefaultAzureCredential() as credential:
        account = f"https://{os.environ['AZURE_STORAGE_ACCOUNT']}.blob.core.windows.net"
        with BlobServiceClient(account, credential=credential) as client:
            blob = client.get_blob_client("azureml", "x.bin")
            content = os.urandom(5 << 20)
            blob.upload_blob(content)
            assert blob.download_blob().readall() == content
    assert cloud.count("PUT", "/azureml/x.bin") >= 1
    cloud.reset()
    assert cloud.requests == []


def test_secrets_are_listed(cloud: Cloud, client: Any, live: str) -> None:
    known = cloud.secrets()
    assert live in known
    assert cloud.bench.key in known
    assert os.environ["AZURE_CLIENT_SECRET"] in known
    assert threading.active_count() < 60
