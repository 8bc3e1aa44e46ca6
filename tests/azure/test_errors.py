"""Errors of an Azure ML workspace: authentication, permissions, quota, concurrency and jobs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cifarml import Run, TrainConfig
from cifarml.azure.compute import ClusterOptions, create_cluster, delete_cluster, get_cluster, list_clusters
from cifarml.azure.jobs.jobs import cancel_job, fetch_run, follow_job, get_job, list_jobs, submit_job
from cifarml.azure.permissions import REQUIRED_ACTIONS, check_workspace
from cifarml.azure.workspace import AzureWorkspace
from cifarml.deploy.azure.host import AzureHost
from cifarml.deploy.azure.teardown import find_resources, tear_down
from cifarml.doctor import run_checks
from cifarml.errors import CloudError, DataError, RegistryError, SettingsError, TrainingError
from cifarml.registry.azure.registry import AzureRegistry
from cifarml.registry.base import RegisteredModel
from cifarml.settings import load_settings
from cifarml.train.data_source import Source
from tests.conftest import CommandLine
from tests.emulators.azureml.cloud import Cloud
from tests.emulators.azureml.faults import Drop, Refuse
from tests.runs import MakeRun
from tests.waiting import wait_until

DOCS = Path(__file__).parents[2] / "docs" / "guides"


@pytest.fixture
def workspace(cloud: Cloud) -> AzureWorkspace:
    return AzureWorkspace()


def test_no_workspace_is_set(monkeypatch: pytest.MonkeyPatch, cifarml: CommandLine) -> None:
    for name in ("SUBSCRIPTION_ID", "RESOURCE_GROUP", "WORKSPACE_NAME"):
        monkeypatch.delenv(f"AZURE_{name}", raising=False)
    with pytest.raises(SettingsError, match="no Azure ML workspace is set"):
        AzureWorkspace()
    done = cifarml("models", "list", "--target", "azure")
    assert done.returncode == 1
    assert "config.json" in done.stderr


@pytest.mark.parametrize("name", ["../x", "a/b", "a?b", "a b", "ä", "", "x" * 91, "a\nb", "a."])
def test_invalid_resource_names_are_rejected(cloud: Cloud, name: str) -> None:
    with pytest.raises(SettingsError):
        AzureWorkspace(load_settings(resource_group=name))
    assert cloud.requests == []


def test_effective_target(
    cloud: Cloud, cifarml: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().effective_target == "azure"
    monkeypatch.setenv("CIFARML_TARGET", "local")
    assert load_settings().effective_target == "local"
    assert cifarml("models", "list").stderr == "Target: this machine\n"
    assert cifarml("models", "list", "--target", "azure").stderr.startswith("Target: Azure, workspace")
    monkeypatch.delenv("CIFARML_TARGET")
    config = {
        "subscription_id": cloud.subscription_id,
        "resource_group": cloud.resource_group,
        "workspace_name": cloud.workspace_name,
    }
    for name in config:
        monkeypatch.delenv(f"AZURE_{name.upper()}")
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = cifarml("models", "list", "--json")
    assert done.stderr.startswith("Target: Azure, workspace cifarml-ws")
    assert json.loads(done.stdout) == []


def test_failed_sign_in(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong-secret-of-a-client")
    with pytest.raises(CloudError, match="sign-in to Azure failed") as caught:
        AzureRegistry(AzureWorkspace()).list_models()
    assert "az login" in str(caught.value.hint)
    assert "wrong-secret" not in str(caught.value)


def test_missing_workspace_or_resource_group(cloud: Cloud) -> None:
    for settings, message in (
        (load_settings(workspace_name="other"), "workspace other does not exist"),
        (load_settings(resource_group="other"), "(resource group|workspace) .* does not exist"),
    ):
        with pytest.raises(CloudError, match=message):
            _ = AzureWorkspace(settings).info


@pytest.mark.parametrize("is_nested", [False, True])
def test_notebook_streams_stay_open(cloud: Cloud, python: Callable[[str], str], is_nested: bool) -> None:
    """TensorFlow's log handler keeps a reference to standard error, which imports must not close."""
    output = python(f"""
import contextlib, io, sys
sys.stderr = io.StringIO()
import absl.logging
absl.logging.use_absl_handler()
from cifarml.azure.workspace import AzureWorkspace
workspace = AzureWorkspace()
with workspace.calling("get workspace") if {is_nested} else contextlib.nullcontext():
    location = workspace.location
print(location, sys.stderr.closed)
""")
    assert output.split() == [cloud.location, "False"]


def test_permission_denied(cloud: Cloud, workspace: AzureWorkspace, make_run: MakeRun) -> None:
    cloud.denied = {("PUT", r".*/models/.*")}
    with pytest.raises(CloudError, match="permission denied") as caught:
        AzureRegistry(workspace).register(make_run(1))
    assert "AzureML Data Scientist" in str(caught.value.hint)
    assert workspace.resource_id in str(caught.value.hint)
    assert caught.value.code == "AuthorizationFailed"
    assert caught.value.request_id


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Refuse(429, "TooManyRequests", {"Retry-After": "1"}), "throttled"),
        (Refuse(500, "InternalServerError"), "internal service error"),
        (Refuse(404, "NotFound", {}, "<html>no JSON at all"), "workspace"),
        (Refuse(418, "Strange", {}, "token=abc123 Bearer eyJhbGciOiJIUzI1NiJ9.secretsecret"), "Strange"),
        (Drop(), "connection|no answer"),
    ],
    ids=str,
)
def test_permanent_service_errors(
    cloud: Cloud, workspace: AzureWorkspace, fault: Refuse, message: str
) -> None:
    cloud.plan = lambda request: fault if request.host == "management.azure.com" else None
    with pytest.raises(CloudError, match=message) as caught:
        _ = workspace.info
    assert "abc123" not in str(caught.value)
    assert "secretsecret" not in str(caught.value)


def test_invalid_tags_are_ignored(cloud: Cloud, workspace: AzureWorkspace, make_run: MakeRun) -> None:
    """Versions with foreign or invalid tags are skipped."""
    registry = AzureRegistry(workspace)
    model = registry.register(make_run(1))
    cloud.models["cifar10"]["1"]["properties"]["tags"]["alias.champion"] = "not a number"
    cloud.models["cifar10"]["1"]["properties"]["properties"]["metric.test_accuracy"] = "much"
    found = registry.get("cifar10", "1")
    assert (found.aliases, found.run_sha256) == ((), model.run_sha256)
    cloud.models["cifar10"]["1"]["properties"]["tags"]["run_sha256"] = "../../etc/passwd"
    assert registry.list_models() == []


# --- concurrency ---


def test_concurrent_promotions(workspace: AzureWorkspace, make_run: MakeRun) -> None:
    """One promotion succeeds, the other reports the new champion."""
    registry = AzureRegistry(workspace)
    for number in (1, 2, 3):
        registry.register(make_run(number))
    won: list[str] = []
    lost: list[str] = []
    barrier = threading.Barrier(2)

    class Slow(AzureRegistry):
        def _write_tags(self, model: RegisteredModel, added: object, dropped: set[str]) -> None:
            if added:
                barrier.wait(10)  # both have read the same champion
            super()._write_tags(model, added, dropped)  # type: ignore[arg-type]

    def promote(version: str) -> None:
        other = Slow(AzureWorkspace())
        try:
            other.set_alias(other.get("cifar10", version), instead_of=other.get("cifar10", "1"))
        except RegistryError as error:
            lost.append(error.message)
        else:
            won.append(version)

    threads = [threading.Thread(target=promote, args=(version,)) for version in "23"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1, (won, lost)
    assert "became champion" in lost[0]
    assert registry.get().version == won[0]
    champions = [model for model in registry.list_models("cifar10") if "champion" in model.aliases]
    assert len(champions) == 1


def test_promotion_over_an_unexpected_champion(workspace: AzureWorkspace, make_run: MakeRun) -> None:
    registry = AzureRegistry(workspace)
    first, second, third = (registry.register(make_run(number)) for number in (1, 2, 3))
    registry.set_alias(second)
    with pytest.raises(RegistryError, match="cifar10:2 became champion"):
        registry.set_alias(third, instead_of=first)
    assert registry.get().version == "2"


def test_concurrent_registrations(workspace: AzureWorkspace, make_run: MakeRun) -> None:
    runs = [make_run(number) for number in (1, 2, 3, 1)]
    threads = [threading.Thread(target=AzureRegistry(AzureWorkspace()).register, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = AzureRegistry(workspace).list_models("cifar10")
    assert {model.run_sha256 for model in found} == {run.sha256 for run in runs}
    assert sum("champion" in model.aliases for model in found) == 1


def test_concurrent_creations_of_a_cluster(cloud: Cloud, workspace: AzureWorkspace) -> None:
    """With the same options both succeed; a cluster of another size is not passed off as the wanted one."""
    cloud.operations.may_begin.clear()
    options = [ClusterOptions(), ClusterOptions(), ClusterOptions(size="Standard_F4s_v2")]

    def create(options: ClusterOptions) -> str:
        try:
            return create_cluster(AzureWorkspace(), "gpu", options).size
        except CloudError as error:
            return error.message

    with ThreadPoolExecutor() as pool:
        made = [pool.submit(create, each) for each in options[:1]]
        wait_until(lambda: cloud.computes)
        made += [pool.submit(create, each) for each in options[1:]]
        wait_until(lambda: cloud.count("PUT", "/computes/gpu$") == 3)
        cloud.operations.may_begin.set()
        sizes = [each.result() for each in made]
    assert sizes[:2] == [ClusterOptions().size] * 2
    assert "can't create cluster gpu" in sizes[2]
    assert cloud.computes["gpu"].size == ClusterOptions().size


def test_corrupt_files_in_the_workspace(
    cloud: Cloud, workspace: AzureWorkspace, make_run: MakeRun, tmp_path: Path
) -> None:
    registry = AzureRegistry(workspace)
    model = registry.register(make_run(1))
    cloud.models["cifar10"]["1"]["properties"]["tags"]["run_sha256"] = "0" * 64
    with pytest.raises(RegistryError, match="damaged"):
        registry.download(registry.get("cifar10", model.version), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


# --- clusters and jobs ---


def test_clusters(cloud: Cloud, workspace: AzureWorkspace) -> None:
    made = create_cluster(workspace, "gpu", ClusterOptions(max_nodes=2, low_priority=True))
    assert (made.min_nodes, made.max_nodes, made.low_priority, made.is_ours) == (0, 2, True, True)
    assert create_cluster(workspace, "gpu", ClusterOptions()).max_nodes == 1, "an existing cluster is updated"
    cloud.computes["gpu"].body["tags"] = {}
    for refused in (
        lambda: create_cluster(workspace, "gpu", ClusterOptions()),
        lambda: delete_cluster(workspace, "gpu"),
    ):
        with pytest.raises(SettingsError, match="not created by cifarml"):
            refused()
    assert find_resources(workspace) == [], "resources not created by cifarml are ignored"
    assert [cluster.name for cluster in list_clusters(workspace)] == ["gpu"]
    with pytest.raises(CloudError, match="cluster none does not exist"):
        get_cluster(workspace, "none")
    for name in ("", "1st", "a_b", "x" * 33, "../x", "ends-"):
        with pytest.raises(SettingsError, match="Received"):
            create_cluster(workspace, name, ClusterOptions())
    for wrong in ({"max_nodes": 0}, {"idle_minutes": 0}, {"size": "a b"}):
        with pytest.raises(SettingsError, match="Received"):
            ClusterOptions(**wrong)


def test_cluster_without_enough_quota(cloud: Cloud, workspace: AzureWorkspace) -> None:
    cloud.quota_cores = {"total": 2}
    with pytest.raises(CloudError, match="not enough quota") as caught:
        create_cluster(workspace, "gpu", ClusterOptions("Standard_NC4as_T4_v3"))
    assert "fit the remaining quota: Standard_" in str(caught.value.hint)


def test_jobs(cloud: Cloud, workspace: AzureWorkspace, tmp_path: Path) -> None:
    """A canceled, a failed and a completed job, whose run is fetched."""
    create_cluster(workspace, "gpu", ClusterOptions())
    with pytest.raises(CloudError, match="cluster none does not exist"):
        submit_job(workspace, "none", "run", Source(data="drawn:40"), TrainConfig())
    with pytest.raises(DataError, match="does not exist"):
        submit_job(workspace, "gpu", "run", Source(data="nowhere.zip"), TrainConfig())
    long = submit_job(workspace, "gpu", "long", Source(data="drawn:400"), TrainConfig(num_epochs=5000))
    with pytest.raises(TrainingError, match=r"is (queued|preparing|running|starting)"):
        fetch_run(workspace, long, tmp_path)
    assert cancel_job(workspace, long.name).state == "canceled"
    assert cancel_job(workspace, long.name).state == "canceled", "canceling is idempotent"
    with pytest.raises(TrainingError, match="has no run"):
        fetch_run(workspace, get_job(workspace, long.name), tmp_path)
    lines: list[str] = []
    sent = submit_job(workspace, "gpu", "wrong", Source(data="drawn:nonsense"), TrainConfig())
    wrong = follow_job(workspace, sent, lines.append)
    assert wrong.state == "failed"
    assert any("Error: " in line for line in lines)
    config = TrainConfig(num_epochs=1, label_smoothing=0.25)
    sent = submit_job(workspace, "gpu", "good", Source(data="drawn:200", subset=100), config)
    good = follow_job(workspace, sent, lines.append)
    assert good.state == "completed", lines
    run = fetch_run(workspace, good, tmp_path)
    run.verify()
    assert (run.path, run.info["num_epochs"]) == (tmp_path / "good", 1)
    assert run.read_json("config.json")["label_smoothing"] == 0.25
    assert run.info["num_test_images"] == 10
    assert fetch_run(workspace, good, tmp_path).sha256 == run.sha256, "fetching is idempotent"
    assert [path.name for path in tmp_path.iterdir()] == ["good"]
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(fetch_run, AzureWorkspace(), good, tmp_path / "both") for _ in range(2)]
        assert {each.result().sha256 for each in both} == {run.sha256}
    assert [each.name for each in (tmp_path / "both").iterdir()] == [good.run]
    (run.path / "manifest.json").write_text((run.path / "manifest.json").read_text().replace("good", "bad"))
    assert [job.run for job in list_jobs(workspace)] == ["long", "wrong", "good"]
    with pytest.raises(CloudError, match="does not exist"):
        get_job(workspace, "../../x")


def test_ctrl_c_leaves_a_job_running(cloud: Cloud, workspace: AzureWorkspace) -> None:
    create_cluster(workspace, "gpu", ClusterOptions())
    job = submit_job(workspace, "gpu", "long", Source(data="drawn:400"), TrainConfig(num_epochs=5000))

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow_job(workspace, job, interrupt)
    assert not get_job(workspace, job.name).has_ended
    left, reasons = tear_down(workspace)
    assert (left, reasons) == ([], [])
    assert get_job(workspace, job.name).state == "canceled"


def test_down_lists_resources_that_could_not_be_deleted(
    cloud: Cloud, workspace: AzureWorkspace, cifarml: CommandLine
) -> None:
    create_cluster(workspace, "gpu", ClusterOptions())
    AzureHost(workspace).create_endpoint("stays")
    cloud.denied = {("DELETE", r".*/onlineEndpoints/.*")}
    done = cifarml("down")
    assert done.returncode == 1
    assert "stays" in done.stdout
    assert "permission denied" in done.stdout
    assert not cloud.computes, "the other resources are deleted anyway"
    cloud.denied = set()
    assert cifarml("down").returncode == 0
    assert not cloud.endpoints


# --- permissions ---


def test_check_workspace_permissions(
    cloud: Cloud, workspace: AzureWorkspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [error for _, error in check_workspace(workspace)] == [None] * (2 + len(REQUIRED_ACTIONS))
    provider = "Microsoft.MachineLearningServices/workspaces/"
    excluded = (
        "delete",
        "write",
        "computes/*/write",
        "computes/*/delete",
        "computes/write",
        "computes/delete",
    )
    cloud.permissions = [  # AzureML Data Scientist
        {
            "actions": [
                f"{provider}{verb}" for verb in ("read", "*/read", "*/action", "*/delete", "*/write")
            ],
            "notActions": [f"{provider}{verb}" for verb in excluded],
        }
    ]
    missing = {name: error for name, error in check_workspace(workspace) if error is not None}
    assert set(missing) == {"compute create, delete", "down"}
    assert "computes/write" in missing["compute create, delete"].message
    assert "AzureML Compute Operator" in str(missing["compute create, delete"].hint)
    (tmp_path / "tensorflow.py").write_text("raise ImportError")  # slow to import, and not tested here
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    checks = {check.name: check.status for check in run_checks(target="azure") if "azure" in check.name}
    assert checks["azure: workspace"] == "ok"
    assert checks["azure: compute create, delete"] == "warning"


def test_documented_role() -> None:
    role = json.loads((DOCS / "azure-role.json").read_text())
    assert role == {
        "Name": "cifarml operator",
        "IsCustom": True,
        "Description": "All that cifarml does in an Azure ML workspace, and nothing else.",
        "Actions": sorted({action for actions in REQUIRED_ACTIONS.values() for action in actions}),
        "NotActions": [],
        "AssignableScopes": ["/subscriptions/SUBSCRIPTION/resourceGroups/GROUP"],
    }


def test_requests_are_covered_by_the_role(cloud: Cloud, workspace: AzureWorkspace, trained: Run) -> None:
    """The table of required actions contains every write to Azure Resource Manager."""
    registry = AzureRegistry(workspace)
    registry.register(trained)
    create_cluster(workspace, "gpu", ClusterOptions())
    host = AzureHost(workspace)
    host.create_endpoint("roles")
    host.create_deployment("roles", "version-1", registry.get())
    host.read_key("roles", regenerate=True)
    tear_down(workspace)
    granted = {action.lower() for actions in REQUIRED_ACTIONS.values() for action in actions}
    verbs = {"PUT": "write", "DELETE": "delete", "POST": "action"}
    for request in cloud.requests:
        _, _, rest = request.path.partition("/workspaces/cifarml-ws/")
        if request.host != "management.azure.com" or request.method not in verbs or not rest:
            continue
        parts = rest.strip("/").split("/")
        kinds = parts[::2] if request.method != "POST" else [*parts[:-1][::2], parts[-1]]
        action = (
            f"microsoft.machinelearningservices/workspaces/{'/'.join(kinds)}/{verbs[request.method]}".lower()
        )
        assert action in granted or "startpendingupload" in action, action
