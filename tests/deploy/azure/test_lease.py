"""Concurrent changes of an endpoint in Azure, with interleavings that are forced at each request."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from cifarml import Run
from cifarml.azure.workspace import AzureWorkspace
from cifarml.deploy.azure.host import AzureHost
from cifarml.deploy.azure.lease import LEASE_TAG, Lease, read_lease
from cifarml.deploy.azure.specs import DeploymentOptions
from cifarml.deploy.rollout import deploy_model, roll_back
from cifarml.errors import DeployError
from cifarml.locks import Holder
from cifarml.registry.azure.registry import AzureRegistry
from cifarml.registry.base import RegisteredModel
from tests.deploy.azure.test_host import AzureCaller
from tests.emulators.azureml.cloud import Cloud
from tests.emulators.azureml.faults import Fault, Request
from tests.endpoints import Steady
from tests.processes import start_forked
from tests.waiting import wait_until

FIRST = ("deploy", "--model", "two@champion", "--name", "live", "--canary-seconds", "0")
SECONDS = {
    "deploy": ("deploy", "--model", "three@champion", "--name", "live", "--canary-seconds", "0"),
    "same": FIRST,
    "delete": ("endpoint", "delete", "live"),
    "traffic": ("endpoint", "traffic", "version-1=100", "--name", "live"),
    "rollback": ("endpoint", "rollback", "live"),
    "keys": ("endpoint", "keys", "live", "--regenerate"),
    "down": ("down",),
}
WAITS = "waiting for endpoint live, in use: deploy two:1 (process "


@pytest.fixture
def host(cloud: Cloud) -> AzureHost:
    return AzureHost(AzureWorkspace(), poll_s=0.05)


@pytest.fixture
def models(host: AzureHost, trained: Run) -> list[RegisteredModel]:
    """Three models with the same content and different names."""
    return [AzureRegistry(host.workspace).register(trained, name) for name in ("one", "two", "three")]


@pytest.fixture
def live(host: AzureHost, models: list[RegisteredModel]) -> str:
    deploy_model(host, models[0], name="live")
    return "live"


class Command:
    """Command in its own process; its requests are recognised by their user agent."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path) -> None:
        self.name = name
        self.output = folder / f"{name}.txt"
        env = os.environ | {"AZURE_HTTP_USER_AGENT": name}
        self.was_held = False
        self.process: BaseProcess = start_forked(
            *arguments, env=env, cwd=folder, output=self.output, errors=self.output
        )

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    @property
    def is_waiting(self) -> bool:
        return "waiting for endpoint" in self.text

    @property
    def has_ended(self) -> bool:
        return self.process.exitcode is not None

    def join(self) -> int | None:
        self.process.join(120)
        return self.process.exitcode


class Gate:
    """Holds one request of the command ``first`` until it is opened."""

    def __init__(self, cloud: Cloud, number: int, *, is_write: bool = True) -> None:
        self.number, self.is_write = number, is_write
        self.count = 0
        self.held = threading.Event()
        self._may_go = threading.Event()
        self._lock = threading.Lock()
        cloud.plan = self._decide

    def open(self) -> None:
        self._may_go.set()

    def _decide(self, request: Request) -> Fault | None:
        if "first" in request.headers.get("user-agent", "") and "/onlineEndpoints/" in request.path:
            with self._lock:
                self.count += request.method != "GET" or not self.is_write
                is_next = self.count == self.number and (request.method != "GET" or not self.is_write)
            if is_next and not self.held.is_set():
                self.held.set()
                self._may_go.wait(120)
        return None


def run_both(
    cloud: Cloud, folder: Path, second: str, number: int, *, is_write: bool = True
) -> tuple[Command, Command]:
    """Hold a request of a rollout until the second command has ended, or waits for the rollout."""
    gate = Gate(cloud, number, is_write=is_write)
    first = Command("first", FIRST, folder)
    wait_until(lambda: gate.held.is_set() or first.has_ended)
    other = Command("second", SECONDS[second], folder)
    wait_until(lambda: other.has_ended or other.is_waiting)
    gate.open()
    first.join()
    other.join()
    first.was_held = gate.held.is_set()
    return first, other


def check_intact(cloud: Cloud, first: Command, second: Command) -> None:
    """The endpoint serves with a healthy deployment, and no lease is left."""
    for command in (first, second):
        assert "Traceback" not in command.text
        assert command.text.count("Error: ") == (command.process.exitcode != 0), command.text
    endpoint = cloud.endpoints["live"]
    assert sum(endpoint.traffic.values()) == 100
    assert all(endpoint.deployments[name].state == "Succeeded" for name in endpoint.traffic)
    assert len(endpoint.deployments) <= 2
    assert endpoint.body["tags"][LEASE_TAG] == ""


@pytest.mark.parametrize(
    "number", [1, *(pytest.param(each, marks=pytest.mark.exhaustive) for each in range(2, 6))]
)
def test_second_rollout_waits_at_each_change_of_the_first(
    cloud: Cloud, host: AzureHost, live: str, tmp_path: Path, number: int
) -> None:
    """Its changes are the lease, the deployment, the canary, the full traffic, and the end of the lease."""
    with Steady(AzureCaller(host, live)) as steady:
        first, second = run_both(cloud, tmp_path, "deploy", number)
    assert (first.process.exitcode, second.process.exitcode) == (0, 0), first.text + second.text
    assert (WAITS in second.text) == (number > 1)
    check_intact(cloud, first, second)
    assert steady.failures == []
    served = host.get_endpoint(live)
    winner = "three:1" if number > 1 else "two:1"
    assert [each.model for each in served.deployments if served.traffic.get(each.name)] == [winner]


@pytest.mark.parametrize(
    "second",
    ["rollback", *(pytest.param(each, marks=pytest.mark.exhaustive) for each in ("same", "traffic", "keys"))],
)
def test_other_command_during_the_canary(
    cloud: Cloud, host: AzureHost, live: str, tmp_path: Path, second: str
) -> None:
    with Steady(AzureCaller(host, live)) as steady:
        first, other = run_both(cloud, tmp_path, second, 4)
    assert (first.process.exitcode, other.process.exitcode) == (0, 0), first.text + other.text
    check_intact(cloud, first, other)
    assert all("401" in failure for failure in steady.failures)
    assert not steady.failures or second == "keys"
    expected = "version-1" if second in {"traffic", "rollback"} else "version-1-2"
    assert host.get_endpoint(live).traffic == {expected: 100}


def test_waiting_during_a_long_operation_names_the_holder(
    cloud: Cloud, live: str, models: list[RegisteredModel], tmp_path: Path
) -> None:
    """The creation of a deployment takes minutes, in which the endpoint is busy."""
    gate = Gate(cloud, 2)  # the creation of the deployment
    first = Command("first", FIRST, tmp_path)
    wait_until(lambda: gate.held.is_set() or first.has_ended)
    cloud.operations.may_begin.clear()
    gate.open()
    wait_until(lambda: len(cloud.endpoints[live].deployments) == 2 or first.has_ended)
    second = Command("second", SECONDS["traffic"], tmp_path)
    wait_until(lambda: second.has_ended or second.is_waiting)
    assert WAITS in second.text
    cloud.operations.may_begin.set()
    assert (first.join(), second.join()) == (0, 0), first.text + second.text


@pytest.mark.parametrize("second", ["delete", "down"])
def test_deletion_waits_for_the_rollout(cloud: Cloud, live: str, tmp_path: Path, second: str) -> None:
    first, other = run_both(cloud, tmp_path, second, 3)
    assert (first.process.exitcode, other.process.exitcode) == (0, 0), first.text + other.text
    assert WAITS in other.text
    assert not cloud.endpoints


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("second", SECONDS)
def test_all_interleavings(
    cloud: Cloud, host: AzureHost, models: list[RegisteredModel], tmp_path: Path, second: str
) -> None:
    """Each request of the first command is held, reading ones included."""
    number, first = 0, None
    while first is None or first.was_held:
        number += 1
        deploy_model(host, models[0], name="live", canary_s=0)
        first, other = run_both(cloud, tmp_path, second, number, is_write=False)
        if "live" in cloud.endpoints:
            check_intact(cloud, first, other)
            host.delete("live")
        else:
            assert second in {"delete", "down"}
        cloud.gateway.reset()


def test_two_new_rollouts(
    cloud: Cloud, host: AzureHost, models: list[RegisteredModel], tmp_path: Path
) -> None:
    """The endpoint does not exist yet; its creation is held at the first's first deployment."""
    first, second = run_both(cloud, tmp_path, "deploy", 2)
    assert (first.process.exitcode, second.process.exitcode) == (0, 0), first.text + second.text
    assert WAITS in second.text
    check_intact(cloud, first, second)
    assert len(host.get_endpoint("live").deployments) == 2


def test_failed_rollout_does_not_delete_the_endpoint_of_another(
    cloud: Cloud, host: AzureHost, models: list[RegisteredModel], tmp_path: Path
) -> None:
    """Both create the endpoint; the second loses, waits, and its own deployment fails."""
    gate = Gate(cloud, 1)  # the creation of the endpoint
    first = Command("first", FIRST, tmp_path)
    wait_until(gate.held.is_set)
    second = deploy_model(host, models[2], name="live", canary_s=0)
    assert second.traffic == {"version-1": 100}
    cloud.quota_cores = {"total": 0}
    gate.open()
    assert first.join() == 1, first.text
    assert "version-1" in cloud.endpoints["live"].deployments


def write_lease(cloud: Cloud, holder: Holder, seconds: float) -> Lease:
    lease = Lease(holder, seconds)
    cloud.endpoints["live"].body["tags"][LEASE_TAG] = lease.renew()
    return lease


@pytest.fixture
def elsewhere() -> Holder:
    """Process of another machine."""
    return Holder("deploy four:1", "other-machine", 12, 1.5, datetime.now(UTC))


def test_waiting_names_the_holder(
    cloud: Cloud, live: str, elsewhere: Holder, models: list[RegisteredModel], tmp_path: Path
) -> None:
    write_lease(cloud, elsewhere, 600)
    command = Command("second", SECONDS["traffic"], tmp_path)
    wait_until(lambda: command.has_ended or command.is_waiting)
    assert "in use: deploy four:1 (process 12 on other-machine, since " in command.text
    assert "at the latest until " in command.text
    cloud.endpoints[live].body["tags"][LEASE_TAG] = ""
    assert command.join() == 0


def test_stale_lease_is_taken_over(
    cloud: Cloud, host: AzureHost, live: str, models: list[RegisteredModel], elsewhere: Holder
) -> None:
    """It has expired, its process no longer runs, or it is no lease at all."""
    gone = Holder("deploy four:1", Holder.current("").host, 2**22 - 1, 1.5, datetime.now(UTC))
    values = [Lease(elsewhere, -1).renew(), Lease(gone, 600).renew(), "<script>"]
    for number, value in enumerate(values):
        cloud.endpoints[live].body["tags"][LEASE_TAG] = value
        deploy_model(host, models[1 - number % 2], name=live, canary_s=0)
        assert cloud.endpoints[live].body["tags"][LEASE_TAG] == ""


def test_rollout_that_was_taken_over_changes_nothing(
    cloud: Cloud, host: AzureHost, live: str, models: list[RegisteredModel], elsewhere: Holder
) -> None:
    steps: list[str] = []

    def step(text: str) -> None:
        steps.append(text)
        if text.startswith("canary: version-1-2 receives"):
            write_lease(cloud, elsewhere, 600)

    with pytest.raises(DeployError, match="taken over by another process: deploy four:1"):
        deploy_model(host, models[1], name=live, canary_s=0, on_step=step)
    endpoint = cloud.endpoints[live]
    assert endpoint.traffic == {"version-1": 90, "version-1-2": 10}
    assert {*endpoint.deployments} == {"version-1", "version-1-2"}
    lease = read_lease(endpoint.body["tags"])
    assert lease is not None
    assert lease.holder == elsewhere
    assert "rollback failed" in steps[-1]
    assert "taken over" in steps[-1]


def test_lease_survives_a_lost_reply_and_fits_a_tag(cloud: Cloud, host: AzureHost, live: str) -> None:
    with host.changing(live, "x" * 300, lasts_s=10**6):
        value = cloud.endpoints[live].body["tags"][LEASE_TAG]
        assert len(value) <= 256
        found = read_lease({LEASE_TAG: value})
        assert found is not None
        assert not found.is_stale
        assert found.holder.operation == "x" * 80
        with host.changing(live, "nested", lasts_s=0):
            pass
        assert cloud.endpoints[live].body["tags"][LEASE_TAG] == value
    assert cloud.endpoints[live].body["tags"][LEASE_TAG] == ""


def test_lease_that_this_process_could_not_release(
    cloud: Cloud, host: AzureHost, live: str, models: list[RegisteredModel]
) -> None:
    """A notebook does not wait for itself; a callback changes the endpoint with another host."""
    write_lease(cloud, Holder.current("deploy four:1"), 600)
    other = AzureHost(AzureWorkspace(), poll_s=0.05)

    def step(text: str) -> None:
        if text.startswith("canary: version-1-2 receives"):
            other.set_traffic(live, {"version-1": 60, "version-1-2": 40})

    with pytest.raises(DeployError, match="changed during the rollout"):
        deploy_model(host, models[1], name=live, canary_s=0, on_step=step)
    assert host.get_endpoint(live).traffic == {"version-1": 60, "version-1-2": 40}
    assert cloud.endpoints[live].body["tags"][LEASE_TAG] == ""


@pytest.mark.parametrize(
    "value",
    ["", "x", "0" * 300, "0123456789ab until never since never 1/1.50@x y", "0123456789ab until 2026-01-01 "],
)
def test_invalid_lease(value: str) -> None:
    assert read_lease({LEASE_TAG: value}) is None
    assert read_lease(None) is None


def test_failed_endpoint_keeps_serving(
    cloud: Cloud, host: AzureHost, live: str, models: list[RegisteredModel]
) -> None:
    """After an InternalServerError in an update, Azure reports the state Failed, with all its traffic."""
    with Steady(AzureCaller(host, live)) as steady:
        cloud.endpoints[live].state = "Failed"
        deploy_model(host, models[1], name=live, canary_s=0)
        cloud.endpoints[live].state = "Failed"
        assert roll_back(host, live).traffic == {"version-1": 100}
        cloud.endpoints[live].state = "Failed"
        host.set_traffic(live, {"version-1": 50, "version-1-2": 50})
    assert steady.failures == []
    for request in cloud.requests:
        if (
            request.method == "PUT"
            and request.path.endswith("/onlineEndpoints/live")
            and request.status == 200
        ):
            assert request.body["properties"]["traffic"], json.dumps(request.body)


def test_failed_rollout_to_a_failed_endpoint_restores_its_traffic(
    cloud: Cloud, host: AzureHost, live: str, models: list[RegisteredModel]
) -> None:
    cloud.endpoints[live].state = "Failed"
    cloud.quota_cores = {"total": 0}
    with Steady(AzureCaller(host, live)) as steady, pytest.raises(DeployError, match="quota"):
        deploy_model(host, models[1], name=live, canary_s=0)
    assert steady.failures == []
    assert host.get_endpoint(live).traffic == {"version-1": 100}


def test_failed_endpoint_keeps_its_authentication(
    cloud: Cloud, host: AzureHost, models: list[RegisteredModel]
) -> None:
    entra = AzureHost(host.workspace, DeploymentOptions(auth="entra"), poll_s=0.05)
    deploy_model(entra, models[0], name="live")
    cloud.endpoints["live"].state = "Failed"
    host.create_endpoint("live")
    assert cloud.endpoints["live"].auth_mode == "AADToken"
    assert cloud.endpoints["live"].state == "Succeeded"
    assert cloud.endpoints["live"].traffic == {"version-1": 100}


@pytest.mark.parametrize("state", ["Failed", "Canceled"])
def test_failed_live_deployment_is_replaced(
    cloud: Cloud, host: AzureHost, live: str, models: list[RegisteredModel], state: str
) -> None:
    cloud.endpoints[live].deployments["version-1"].state = state
    assert deploy_model(host, models[1], name=live, canary_s=0).traffic == {"version-1-2": 100}


def test_rollback_restores_the_traffic_of_a_failed_deployment(
    cloud: Cloud, host: AzureHost, live: str, models: list[RegisteredModel]
) -> None:
    cloud.endpoints[live].deployments["version-1"].state = "Failed"

    def step(text: str) -> None:
        if "receives 100 %" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy_model(host, models[1], name=live, canary_s=0, on_step=step)
    assert host.get_endpoint(live).traffic == {"version-1": 100}
    deploy_model(host, models[1], name=live, canary_s=0)
    with pytest.raises(DeployError, match="not ready"):  # it has no traffic any more
        host.set_traffic(live, {"version-1": 100})


def test_expired_times_are_compared_in_utc() -> None:
    lease = Lease(Holder("x", "other-machine", 1, 1.0, datetime.now(UTC)), 60)
    assert not lease.is_stale
    lease.until = datetime.now(UTC) - timedelta(seconds=1)
    assert lease.is_stale
