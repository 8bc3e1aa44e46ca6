"""What faults are tried on: each flow, its start, and what must hold after it, however it ended."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import azure.ai.ml

from cifarml import Run
from cifarml.azure.compute import ClusterOptions, create_cluster
from cifarml.azure.workspace import AzureWorkspace
from cifarml.deploy.azure.host import AzureHost
from cifarml.deploy.azure.teardown import tear_down
from cifarml.deploy.rollout import deploy_model
from cifarml.predict import Predictor
from cifarml.registry.azure.registry import AzureRegistry
from tests.emulators.azureml.cloud import Cloud
from tests.emulators.azureml.faults import Drop, Fault, Kill, LoseReply, Plan, Refuse, Request
from tests.processes import start_forked

__all__ = ["FAULTS", "FLOWS", "Bench", "Done", "Flow", "turns", "was_tried_first"]

_PRELOADED = (azure.ai.ml, Predictor)
TIMEOUT_S = 60

FAULTS: dict[str, Callable[[int], Fault]] = {
    "429": lambda _: Refuse(429, "TooManyRequests", {"Retry-After": "1"}, "Too many requests."),
    "500": lambda _: Refuse(500, "InternalServerError"),
    "503": lambda _: Refuse(503, "ServiceUnavailable"),
    "403": lambda _: Refuse(
        403, "AuthorizationFailed", {}, "The client does not have authorization to perform the action."
    ),
    "drop": lambda _: Drop(),
    "lose": lambda _: LoseReply(),
    "kill-before": lambda pid: Kill(pid, before=True),
    "kill-after": lambda pid: Kill(pid, before=False),
}


@dataclass(frozen=True)
class Flow:
    """A command, the workspace that it begins with, and what its success looks like."""

    arguments: Sequence[str]
    prepare: Callable[[Bench], None]
    check: Callable[[Bench], None]


class Done:
    """How a command ended, and all that it printed."""

    def __init__(self, code: int | None, output: str) -> None:
        self.code, self.output = code, output


class Bench:
    """A workspace, two trained runs, and processes that are forked from one that has imported everything."""

    def __init__(self, cloud: Cloud, runs: Sequence[Run], folder: Path, env: Mapping[str, str]) -> None:
        self.cloud, self.runs, self.folder = cloud, runs, folder
        self.env = dict(env) | {
            "CIFARML_RUNS_DIR": str(runs[0].path.parent),
        }
        self.workspace = AzureWorkspace()
        self.registry = AzureRegistry(self.workspace)
        self.host = AzureHost(self.workspace, poll_s=0.05)
        self.shown = ""

    def run(self, flow: Flow, plan: Callable[[int], Plan] | None = None) -> Done:
        """Run a flow's command; ``plan`` gets the number of its process."""
        output = self.folder / "output"
        arguments = [text.replace("RUN", str(self.runs[0].path)) for text in flow.arguments]
        self.cloud.gateway.reset()
        known = threading.Event()

        def follow(request: Request) -> Fault | None:
            known.wait(30)
            return following(request)

        following: Plan = lambda _: None  # noqa: E731
        self.cloud.plan = follow
        process = start_forked(*arguments, env=self.env, cwd=Path.cwd(), output=output, errors=output)
        if plan is not None and process.pid is not None:
            following = plan(process.pid)
        known.set()
        _join(process)
        requests = self.cloud.requests
        self.cloud.gateway.reset()
        self.num_requests = len(requests)
        self.requests = requests
        done = Done(process.exitcode, output.read_text(errors="replace"))
        self.shown += done.output
        return done

    def tear_down(self) -> None:
        left, reasons = tear_down(self.workspace)
        assert left == [], (left, reasons)
        assert not self.cloud.endpoints
        assert not self.cloud.computes

    def deploy(self, number: int) -> None:
        """Bring a version to the endpoint, without a process of its own."""
        model = self.registry.register(self.runs[number - 1])
        deploy_model(self.host, model, canary_s=0)


def _join(process: BaseProcess) -> None:
    process.join(TIMEOUT_S)
    if process.exitcode is None:
        process.kill()
        process.join()


# --- the flows ---


def _two_models(bench: Bench) -> None:
    first, second = (bench.registry.register(run) for run in bench.runs)
    assert (first.version, second.version) == ("1", "2")


def _one_live(bench: Bench) -> None:
    _two_models(bench)
    bench.deploy(1)


def _two_there(bench: Bench) -> None:
    _one_live(bench)
    bench.deploy(2)


def _all_that_costs(bench: Bench) -> None:
    _one_live(bench)
    create_cluster(bench.workspace, "gpu", ClusterOptions())


def _registered(bench: Bench) -> None:
    (model,) = bench.registry.list_models("cifar10")
    assert model.run_sha256 == bench.runs[0].sha256
    assert model.aliases == ("champion",)
    assert len(bench.cloud.models["cifar10"]) == 1
    finished = [run for run in bench.cloud.runs.values() if run.status == "FINISHED"]
    assert len(finished) == 1


def _live(version: str) -> Callable[[Bench], None]:
    def check(bench: Bench) -> None:
        endpoint = bench.host.get_endpoint("cifar10")
        live = {each.name: each for each in endpoint.deployments if endpoint.traffic.get(each.name)}
        assert [each.model for each in live.values()] == [f"cifar10:{version}"], endpoint
        assert list(endpoint.traffic.values()) == [100]
        assert len(endpoint.deployments) <= 2

    return check


def _nothing(bench: Bench) -> None:
    assert not bench.cloud.endpoints
    assert not bench.cloud.computes


def _submitted(bench: Bench) -> None:
    assert len(bench.cloud.jobs) >= 1


FLOWS = {
    "register": Flow(("models", "register", "RUN"), lambda _: None, _registered),
    "promote": Flow(
        ("models", "promote", "2"),
        _two_models,
        lambda bench: _equal(bench.registry.get().version, "2"),
    ),
    "deploy first": Flow(("deploy", "--model", "1"), _two_models, _live("1")),
    "deploy second": Flow(("deploy", "--model", "2", "--canary-seconds", "0"), _one_live, _live("2")),
    "rollback": Flow(("endpoint", "rollback"), _two_there, _live("1")),
    "down": Flow(("down",), _all_that_costs, _nothing),
    "submit": Flow(
        ("train", "--compute", "gpu", "--data", "drawn:40", "--epochs", "1", "--no-wait", "--name", "there"),
        lambda bench: _ignore(create_cluster(bench.workspace, "gpu", ClusterOptions())),
        _submitted,
    ),
}


def turns(requests: Sequence[Request]) -> list[int]:
    """The numbers of requests worth a fault: of alike ones in a row, the first and the last."""
    numbers: list[int] = []
    for _, group in itertools.groupby(requests, _kind):
        row = [request.number for request in group]
        numbers += sorted({row[0], row[-1]})
    return numbers


def _kind(request: Request) -> tuple[str, str, str]:
    """What a request is for, without the names in it."""
    if request.host.endswith(".blob.core.windows.net"):
        return request.method, "blob", request.query.get("comp", "")
    path = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{12,}|(?<=/)\d+", "*", request.path)
    return request.method, request.host, path


def _equal(one: object, other: object) -> None:
    assert one == other


def _ignore(_: object) -> None:
    pass


def was_tried_first(requests: Sequence[Request], before: Sequence[str]) -> bool:
    """Whether each deployment had answered rightly by itself before it got traffic."""
    answered: dict[str, int] = {}
    for request in requests:
        if request.host.endswith("inference.ml.azure.com") and request.status == 200:
            name = request.headers.get("azureml-model-deployment", "")
            answered[name] = answered.get(name, 0) + 1
        traffic = (
            (request.body or {}).get("properties", {}).get("traffic")
            if request.method == "PUT" and re.search(r"/onlineEndpoints/[^/]+$", request.path)
            else None
        )
        for name, share in (traffic or {}).items():
            if share and name not in before and answered.get(name, 0) < 20:
                return False
    return True
