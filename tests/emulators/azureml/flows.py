"""Commands for fault injection, each with its initial workspace and its postcondition."""

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

__all__ = ["FAULTS", "FLOWS", "Bench", "Done", "Flow", "fault_positions", "were_smoke_tested"]

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
    """Command with a function that prepares the workspace and one that checks the result."""

    arguments: Sequence[str]
    prepare: Callable[[Bench], None]
    check: Callable[[Bench], None]


class Done:
    """Exit code and output of a command."""

    def __init__(self, code: int | None, output: str) -> None:
        self.code, self.output = code, output


class Bench:
    """Workspace and two runs; commands run in processes forked from one that has imported everything."""

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
        """Run a flow's command; ``plan`` is called with its process ID."""
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
        """Register and deploy a run in this process."""
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


def _one_deployed(bench: Bench) -> None:
    _two_models(bench)
    bench.deploy(1)


def _two_deployed(bench: Bench) -> None:
    _one_deployed(bench)
    bench.deploy(2)


def _billable_resources(bench: Bench) -> None:
    _one_deployed(bench)
    create_cluster(bench.workspace, "gpu", ClusterOptions())


def _check_registered(bench: Bench) -> None:
    (model,) = bench.registry.list_models("cifar10")
    assert model.run_sha256 == bench.runs[0].sha256
    assert model.aliases == ("champion",)
    assert len(bench.cloud.models["cifar10"]) == 1
    finished = [run for run in bench.cloud.runs.values() if run.status == "FINISHED"]
    assert len(finished) == 1


def _check_traffic(version: str) -> Callable[[Bench], None]:
    def check(bench: Bench) -> None:
        endpoint = bench.host.get_endpoint("cifar10")
        live = {each.name: each for each in endpoint.deployments if endpoint.traffic.get(each.name)}
        assert [each.model for each in live.values()] == [f"cifar10:{version}"], endpoint
        assert list(endpoint.traffic.values()) == [100]
        assert len(endpoint.deployments) <= 2

    return check


def _check_deleted(bench: Bench) -> None:
    assert not bench.cloud.endpoints
    assert not bench.cloud.computes


def _check_submitted(bench: Bench) -> None:
    assert len(bench.cloud.jobs) >= 1


FLOWS = {
    "register": Flow(("models", "register", "RUN"), lambda _: None, _check_registered),
    "promote": Flow(
        ("models", "promote", "2"),
        _two_models,
        lambda bench: _equal(bench.registry.get().version, "2"),
    ),
    "deploy first": Flow(("deploy", "--model", "1"), _two_models, _check_traffic("1")),
    "deploy second": Flow(
        ("deploy", "--model", "2", "--canary-seconds", "0"), _one_deployed, _check_traffic("2")
    ),
    "rollback": Flow(("endpoint", "rollback"), _two_deployed, _check_traffic("1")),
    "down": Flow(("down",), _billable_resources, _check_deleted),
    "submit": Flow(
        ("train", "--compute", "gpu", "--data", "drawn:40", "--epochs", "1", "--no-wait", "--name", "there"),
        lambda bench: _ignore(create_cluster(bench.workspace, "gpu", ClusterOptions())),
        _check_submitted,
    ),
}


def fault_positions(requests: Sequence[Request]) -> list[int]:
    """Return the numbers of the requests to fault: the first and last of similar consecutive ones."""
    numbers: list[int] = []
    for _, group in itertools.groupby(requests, _kind):
        row = [request.number for request in group]
        numbers += sorted({row[0], row[-1]})
    return numbers


def _kind(request: Request) -> tuple[str, str, str]:
    """Return method, host and path of a request, with names in the path masked."""
    if request.host.endswith(".blob.core.windows.net"):
        return request.method, "blob", request.query.get("comp", "")
    path = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{12,}|(?<=/)\d+", "*", request.path)
    return request.method, request.host, path


def _equal(one: object, other: object) -> None:
    assert one == other


def _ignore(_: object) -> None:
    pass


def were_smoke_tested(requests: Sequence[Request], before: Sequence[str]) -> bool:
    """Return whether each new deployment passed its smoke test before it received traffic."""
    num_predictions: dict[str, int] = {}
    for request in requests:
        if request.host.endswith("inference.ml.azure.com") and request.status == 200:
            name = request.headers.get("azureml-model-deployment", "")
            num_predictions[name] = num_predictions.get(name, 0) + 1
        traffic = (
            (request.body or {}).get("properties", {}).get("traffic")
            if request.method == "PUT" and re.search(r"/onlineEndpoints/[^/]+$", request.path)
            else None
        )
        for name, share in (traffic or {}).items():
            if share and name not in before and num_predictions.get(name, 0) < 20:
                return False
    return True
