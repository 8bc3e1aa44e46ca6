"""Fault injection: each command in Azure succeeds, or fails with one clear error and succeeds when repeated.

Each fault is injected at each request; of similar consecutive requests, such as the upload of a hundred
files, at the first and the last. By default a sample of the cases runs; all of them run with
``pytest -m exhaustive tests/azure/test_faults.py``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from cifarml import Run
from cifarml.run import write_json, write_manifest
from tests.emulators.azureml.cloud import Cloud
from tests.emulators.azureml.faults import Fault, Plan, Request
from tests.emulators.azureml.flows import FAULTS, FLOWS, Bench, Done, Flow, fault_positions, were_smoke_tested

EVERY = {
    "register": 61,
    "promote": 19,
    "deploy first": 357,
    "deploy second": 401,
    "rollback": 219,
    "down": 161,
    "submit": 79,
}
"""Sampling interval of the default run; odd, so that all kinds of faults are included."""

SLOW = {"500", "503", "drop", "lose"}
"""Faults after which the storage client waits 15 s before it retries: only in the exhaustive run."""

COUNT = [0]


@pytest.fixture(scope="module")
def runs(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two runs with the same model and different content."""
    folder = tmp_path_factory.mktemp("runs")
    made = []
    for number in (1, 2):
        path = Path(shutil.copytree(trained.path, folder / f"run{number}"))
        (path / "manifest.json").unlink()
        write_json(path / "extra.json", number)
        made.append(write_manifest(path, trained.class_names, dict(trained.info) | {"run": f"run{number}"}))
    return made


@pytest.fixture
def bench(cloud: Cloud, runs: Sequence[Run], tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(cloud, runs, tmp_path, dict(os.environ))
    yield bench
    for secret in cloud.secrets():
        assert secret not in bench.shown, f"a secret of {len(secret)} characters was shown"


def fault_at(number: int, fault: str) -> Callable[[int], Plan]:
    def plan(pid: int) -> Plan:
        def decide(request: Request) -> Fault | None:
            return FAULTS[fault](pid) if request.number == number else None

        return decide

    return plan


def try_case(bench: Bench, flow: Flow, fault: str, number: int) -> None:
    bench.cloud.reset()
    flow.prepare(bench)
    before = [name for endpoint in bench.cloud.endpoints.values() for name in endpoint.deployments]
    done = bench.run(flow, fault_at(number, fault))
    if bench.num_requests < number:  # fewer requests than in the first run
        return
    COUNT[0] += 1
    request = bench.requests[number - 1]
    print(f"{fault} at {number}: {request.method} {request.host}{request.path}")
    check_outcome(bench, flow, done, fault)
    requests = list(bench.requests)
    is_done = name_of(flow) == "rollback" and holds(bench, flow)  # a second rollback would undo the first
    if done.code != 0 and not is_done:
        again = bench.run(flow)
        assert again.code == 0, again.output
        requests += bench.requests
    assert were_smoke_tested(requests, before)
    flow.check(bench)
    bench.tear_down()
    assert bench.cloud.bench.proxy.refused == []


def name_of(flow: Flow) -> str:
    return next(name for name, each in FLOWS.items() if each is flow)


def holds(bench: Bench, flow: Flow) -> bool:
    with contextlib.suppress(AssertionError):
        flow.check(bench)
        return True
    return False


def check_outcome(bench: Bench, flow: Flow, done: Done, fault: str) -> None:
    assert "Traceback" not in done.output
    if done.code == 0:
        flow.check(bench)
    elif done.code == 1:
        assert done.output.count("Error: ") == 1 or flow.arguments[0] == "down", done.output
        assert "Hint: " in done.output or flow.arguments[0] == "down", done.output
    else:
        assert fault.startswith("kill"), done.output
        assert done.code == -signal.SIGKILL, done.output
    for endpoint in bench.cloud.endpoints.values():
        for name, share in endpoint.traffic.items():
            assert not share or endpoint.deployments[name].state == "Succeeded"


def cases(bench: Bench, flow: Flow) -> Iterator[tuple[int, str, bool]]:
    """Yield the cases of a flow: the number of a request, a fault, and whether the case is slow."""
    flow.prepare(bench)
    assert bench.run(flow).code == 0, bench.shown
    flow.check(bench)
    requests = bench.requests
    bench.tear_down()
    for number in fault_positions(requests):
        for fault in FAULTS:
            yield number, fault, "blob." in requests[number - 1].host and fault in SLOW


@pytest.mark.parametrize("name", FLOWS)
def test_sample_of_faults(bench: Bench, name: str) -> None:
    quick = [(number, fault) for number, fault, is_slow in cases(bench, FLOWS[name]) if not is_slow]
    for number, fault in quick[EVERY[name] // 2 :: EVERY[name]]:
        try_case(bench, FLOWS[name], fault, number)


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", FLOWS)
def test_all_faults(bench: Bench, name: str) -> None:
    for number, fault, _ in list(cases(bench, FLOWS[name])):
        try_case(bench, FLOWS[name], fault, number)


def test_number_of_cases(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{COUNT[0]} faults were injected")
    assert COUNT[0] > 10
