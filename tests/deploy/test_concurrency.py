"""Commands of several processes that change one endpoint of this machine at the same time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from cifarml import Run
from cifarml.deploy.base import DeploymentExistsError, Endpoint
from cifarml.deploy.local.foreground import serve_model
from cifarml.deploy.local.host import LocalHost
from cifarml.deploy.rollout import deploy_model
from cifarml.deploy.rollout_changes import RolloutChanges
from cifarml.errors import DeployError
from cifarml.registry.base import RegisteredModel
from cifarml.serve.endpoint_folder import EndpointFolder
from tests.endpoints import Caller, Steady, register_copies
from tests.processes import start_code, start_forked
from tests.waiting import wait_until

Models = list[RegisteredModel]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, trained: Run) -> Models:
    return register_copies(trained, tmp_path_factory.mktemp("models"), 3)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LocalHost]:
    host = LocalHost(tmp_path / "endpoints")
    yield host
    for endpoint in host.list_endpoints():
        host.delete(endpoint.name)


@pytest.fixture
def live(host: LocalHost, models: Models) -> str:
    deploy_model(host, models[0], name="live")
    return "live"


class Command:
    """Command line in its own process."""

    def __init__(self, folder: Path, models: Models, *arguments: str) -> None:
        self.output = folder / f"output{len(list(folder.glob('output*')))}.txt"
        registry = models[0].open_run().path.parents[2]
        env = os.environ | {
            "CIFARML_ENDPOINTS_DIR": str(folder / "endpoints"),
            "CIFARML_REGISTRY_DIR": str(registry),
        }
        self.process: BaseProcess = start_forked(
            *arguments, env=env, cwd=folder, output=self.output, errors=self.output
        )

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.text or self.process.exitcode is not None)
        assert text in self.text

    def join(self) -> int | None:
        self.process.join(120)
        assert "Traceback" not in self.text
        return self.process.exitcode


def deploy(folder: Path, models: Models, version: int, *options: str) -> Command:
    return Command(folder, models, "deploy", "--model", str(version), "--name", "live", *options)


def during_canary(host: LocalHost, model: RegisteredModel, action: Callable[[], None]) -> Endpoint:
    """Deploy a model from a thread of this process, and call a function during its canary."""
    reached, may_go = threading.Event(), threading.Event()

    def step(text: str) -> None:
        if text.startswith("canary: ") and "receives" in text:
            reached.set()
            assert may_go.wait(120)

    with ThreadPoolExecutor(1) as pool:
        rollout: Future[Endpoint] = pool.submit(
            deploy_model, host, model, name="live", canary_s=0, on_step=step
        )
        try:
            wait_until(lambda: reached.is_set() or rollout.done())
            action()
        finally:
            may_go.set()
        return rollout.result()


@pytest.mark.parametrize(("first", "second"), [pytest.param(1, 1, marks=pytest.mark.exhaustive), (1, 2)])
def test_two_new_rollouts(host: LocalHost, models: Models, tmp_path: Path, first: int, second: int) -> None:
    commands = [deploy(tmp_path, models, each) for each in (first, second)]
    assert [each.join() for each in commands] == [0, 0], [each.text for each in commands]
    endpoint = host.get_endpoint("live")
    assert {each.name for each in endpoint.deployments} == {f"v{first}", f"v{second}"}
    assert list(endpoint.traffic.values()) == [100]


@pytest.mark.parametrize(
    ("arguments", "traffic"),
    [
        (("deploy", "--model", "2", "--name", "live"), {"v2": 100}),
        pytest.param(
            ("deploy", "--model", "3", "--name", "live", "--canary-seconds", "0"),
            {"v3": 100},
            marks=pytest.mark.exhaustive,
        ),
        (("endpoint", "traffic", "v1=60", "v2=40", "--name", "live"), {"v1": 60, "v2": 40}),
        (("endpoint", "rollback", "live"), {"v1": 100}),
        pytest.param(("endpoint", "stop", "live"), {"v2": 100}, marks=pytest.mark.exhaustive),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_second_command_waits_for_the_rollout(
    host: LocalHost,
    live: str,
    models: Models,
    tmp_path: Path,
    arguments: tuple[str, ...],
    traffic: dict[str, int],
) -> None:
    commands: list[Command] = []

    def action() -> None:
        commands.append(Command(tmp_path, models, *arguments))
        commands[0].wait_for(f"in use: deploy cifar10:2 (process {os.getpid()}, since ")
        assert host.get_endpoint(live).traffic == {"v1": 90, "v2": 10}

    with Steady(Caller(host, live)) as steady:
        during_canary(host, models[1], action)
        assert commands[0].join() == 0, commands[0].text
    assert steady.failures == [] or "stop" in arguments
    assert host.get_endpoint(live).traffic == traffic


def test_deletion_waits_for_the_rollout(host: LocalHost, live: str, models: Models, tmp_path: Path) -> None:
    commands: list[Command] = []

    def action() -> None:
        commands.append(Command(tmp_path, models, "endpoint", "delete", live))
        commands[0].wait_for("waiting for endpoint live")

    during_canary(host, models[1], action)
    assert commands[0].join() == 0, commands[0].text
    assert host.list_endpoints() == []


def test_key_is_regenerated_during_a_rollout(
    host: LocalHost, live: str, models: Models, tmp_path: Path
) -> None:
    """A leaked key must not wait; the rollout continues with the new one."""

    def action() -> None:
        command = Command(tmp_path, models, "endpoint", "keys", live, "--regenerate")
        assert command.join() == 0, command.text
        assert host.read_key(live) in command.text

    assert during_canary(host, models[1], action).traffic == {"v2": 100}


def test_killed_rollout_releases_the_endpoint(
    host: LocalHost, live: str, models: Models, tmp_path: Path
) -> None:
    first = deploy(tmp_path, models, 2, "--canary-seconds", "600")
    first.wait_for("canary: v2 receives 10 %")
    second = deploy(tmp_path, models, 3, "--canary-seconds", "0")
    second.wait_for("in use: deploy cifar10:2")
    first.process.kill()
    assert second.join() == 0, second.text
    assert host.get_endpoint(live).traffic == {"v3": 100}


def test_interrupted_rollout_is_undone_before_the_next_begins(
    host: LocalHost, live: str, models: Models, tmp_path: Path
) -> None:
    first = deploy(tmp_path, models, 2, "--canary-seconds", "600")
    first.wait_for("canary: v2 receives 10 %")
    second = deploy(tmp_path, models, 3, "--canary-seconds", "0")
    second.wait_for("in use: deploy cifar10:2")
    first.process.terminate()
    assert first.join() != 0
    assert second.join() == 0, second.text
    endpoint = host.get_endpoint(live)
    assert endpoint.traffic == {"v3": 100}
    assert [each.name for each in endpoint.deployments] == ["v1", "v3"]


def test_rollback_of_a_rollout_keeps_the_deployment_of_another(
    host: LocalHost, live: str, models: Models
) -> None:
    """The name of its deployment is taken in the meantime, as by a process that knows no locks."""
    before = host.get_endpoint(live)
    host.create_deployment(live, "v2", models[1])
    steps: list[str] = []
    changes = RolloutChanges(host, before, "v2", on_step=steps.append)
    with pytest.raises(DeploymentExistsError), changes.undone_on_failure():
        changes.create_deployment(models[1])
    assert "v2" in {each.name for each in host.get_endpoint(live).deployments}
    assert steps[-1] == "left deployment v2, which another process created"


def test_rollback_of_a_rollout_keeps_the_traffic_of_another(
    host: LocalHost, live: str, models: Models
) -> None:
    steps: list[str] = []

    def step(text: str) -> None:
        steps.append(text)
        if text.startswith("canary: v2 receives"):
            host.set_traffic(live, {"v1": 30, "v2": 70})

    with pytest.raises(DeployError, match="changed during the rollout"):
        deploy_model(host, models[1], name=live, canary_s=0, on_step=step)
    assert host.get_endpoint(live).traffic == {"v1": 30, "v2": 70}
    assert "left the traffic of endpoint live" in steps[-1]


def test_new_endpoint_with_the_deployment_of_another_is_kept(host: LocalHost, models: Models) -> None:
    def step(text: str) -> None:
        if text.startswith("smoke test passed"):
            host.create_deployment("live", "other", models[2])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy_model(host, models[0], name="live", on_step=step)
    assert [each.name for each in host.get_endpoint("live").deployments] == ["other"]


def test_deployment_that_crashes_is_replaced(host: LocalHost, models: Models, tmp_path: Path) -> None:
    """Its traffic can be moved away, and a failed rollout gives it back."""
    flag, script = tmp_path / "flag", tmp_path / "score.py"
    script.write_text(
        "import os, sys\nsys.path.insert(0, os.path.dirname(__file__))\n"
        "from cifarml.scoring import score as ours\n"
        f"def init():\n    assert not os.path.exists({str(flag)!r})\n    ours.init()\n"
        f"def answer(requests):\n    if os.path.exists({str(flag)!r}): os._exit(1)\n"
        "    return ours.answer(requests)\n"
    )
    old = LocalHost(tmp_path / "endpoints", script=script)
    deploy_model(old, models[0], name="live")
    flag.touch()
    caller = Caller(host, "live")

    def is_failed() -> bool:
        caller.score()
        return host.get_endpoint("live").find("v1").state == "failed"

    wait_until(is_failed)

    def stop(text: str) -> None:
        if "receives 100 %" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy_model(host, models[1], name="live", canary_s=0, on_step=stop)
    assert host.get_endpoint("live").traffic == {"v1": 100}
    assert deploy_model(host, models[1], name="live", canary_s=0).traffic == {"v2": 100}
    with pytest.raises(DeployError, match="not ready"):
        host.set_traffic("live", {"v1": 100})


SERVE = """
import sys
from pathlib import Path
from cifarml import LocalRegistry
from cifarml.deploy.local.foreground import serve_model
model = LocalRegistry({registry!r}).get("cifar10", {version!r})
serve_model(model, Path({folder!r}), on_ready=lambda uri, page: print(uri, flush=True))
"""


def test_folder_is_served_by_one_process(models: Models, tmp_path: Path) -> None:
    """The second process is refused; after the first has ended, the folder serves another model."""
    for number, model in enumerate(models[:2]):
        output, errors = tmp_path / f"served{number}", tmp_path / f"errors{number}"
        registry = str(models[0].open_run().path.parents[2])
        code = SERVE.format(registry=registry, version=model.version, folder=str(tmp_path))
        process = start_code(code, env=os.environ, cwd=tmp_path, output=output, errors=errors)
        wait_until(lambda: output.read_text() or process.exitcode is not None)  # noqa: B023
        assert output.read_text().startswith("http://"), errors.read_text()
        with pytest.raises(DeployError, match="already served"):
            serve_model(models[2], tmp_path, on_ready=lambda *_: None)
        folder = EndpointFolder(tmp_path / "serve")
        assert [each.version for each in folder.read().deployments] == [model.version]
        process.terminate()
        process.join(60)
        assert process.exitcode == 0, errors.read_text()
