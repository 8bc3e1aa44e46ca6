"""Rollout: smoke test, canary and rollback on failure, without a failed client request."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cifarml import LocalRegistry, Run, load_dataset
from cifarml.deploy.local.host import LocalHost
from cifarml.deploy.rollout import deploy_model, roll_back
from cifarml.deploy.smoke_test import probe_endpoint
from cifarml.errors import DataError, DeployError, ModelFileError, RegistryError, SmokeTestError
from cifarml.registry.base import RegisteredModel
from cifarml.run import MANIFEST, write_manifest
from tests.endpoints import FAULTS, Caller, Steady, faulty, register_copies
from tests.image_files import image_bytes
from tests.waiting import wait_until

Models = list[RegisteredModel]
REFUSED = {
    "crashes in init": "no such model here",
    "exits in init": "going",
    "no script": "SyntaxError",
    "no init": "AttributeError",
    "crashes": "oh no",
    "answers wrong": "wrong prediction",
    "answers nonsense": "v2",
    "answers too few": "invalid response",
    "hangs": "in time|in 4 s",
    "leaks": "leaks memory",
    "takes text for images": "10 bytes of text",
}


@pytest.fixture(scope="module", autouse=True)
def threads_before() -> int:
    """Number of threads before this module, since servers of other modules run in this process."""
    return threading.active_count()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, trained: Run) -> Models:
    """Versions 1 to 3 of a model, which differ only in their hash."""
    return register_copies(trained, tmp_path_factory.mktemp("models"), 3)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Iterator[LocalHost]:
    """Host whose endpoint ``live`` serves version 1."""
    host = LocalHost(tmp_path_factory.mktemp("rollout") / "endpoints")
    deploy_model(host, models[0], name="live")
    yield host
    host.delete("live")


def is_unchanged(host: LocalHost) -> bool:
    endpoint = host.get_endpoint("live")
    return endpoint.traffic == {"v1": 100} and [each.name for each in endpoint.deployments] == ["v1"]


@pytest.mark.parametrize("fault", REFUSED)
def test_faulty_deployment_is_rolled_back(
    host: LocalHost, models: Models, tmp_path: Path, fault: str
) -> None:
    """The old deployment still serves, no client request fails, and the error contains the log."""
    faulty_host = LocalHost(host.folder("live").parent, script=faulty(tmp_path, fault), timeout_s=4)
    with Steady(Caller(host, "live")) as steady, pytest.raises(DeployError, match=REFUSED[fault]) as caught:
        deploy_model(faulty_host, models[1], name="live", canary_s=0.2)
    assert steady.failures == []
    assert steady.num_answers > 0
    assert is_unchanged(host)
    if fault in {"crashes in init", "crashes", "no script"}:
        assert "Traceback" in caught.value.message
    if fault in {"answers wrong", "leaks", "takes text for images"}:
        assert isinstance(caught.value, SmokeTestError)


@pytest.mark.parametrize("fault", ["crashes", "hangs", "slow"])
def test_deployment_failing_as_canary_is_rolled_back(
    host: LocalHost, models: Models, tmp_path: Path, fault: str
) -> None:
    """It passes the smoke test and fails as canary; the old deployment serves its requests."""
    script = tmp_path / "later.py"
    text = faulty(tmp_path, fault).read_text()
    flag = tmp_path / "flag"
    script.write_text(
        f"{text}\nimport os\nfaulty = answer\n"
        f"def answer(requests): return (faulty if os.path.exists({str(flag)!r}) else ours.answer)(requests)\n"
    )
    faulty_host = LocalHost(host.folder("live").parent, script=script, timeout_s=4)

    def step(text: str) -> None:
        if text.startswith("canary: v2 receives"):
            flag.touch()

    with Steady(Caller(host, "live")) as steady, pytest.raises(DeployError, match="v2"):
        deploy_model(faulty_host, models[1], name="live", canary=30, canary_s=1, on_step=step)
    assert steady.failures == []
    assert is_unchanged(host)


def test_rollout_and_rollback(host: LocalHost, models: Models, trained: Run, tmp_path: Path) -> None:
    steps: list[str] = []
    with Steady(Caller(host, "live")) as steady:
        deploy_model(host, models[1], name="live", canary=20, canary_s=0.3, on_step=steps.append)
        assert host.get_endpoint("live").traffic == {"v2": 100}
        again: list[str] = []
        deploy_model(host, models[1], name="live", on_step=again.append)
        assert "already live" in again[-1]
        deploy_model(host, models[2], name="live", canary_s=0.3)
        endpoint = host.get_endpoint("live")
        assert [each.name for each in endpoint.deployments] == ["v2", "v3"], (
            "only the previous deployment is kept"
        )
        assert roll_back(host, "live").traffic == {"v2": 100}
        assert roll_back(host, "live").traffic == {"v3": 100}
        changed = register_copies(trained, tmp_path, 3)[2]  # another registry's version 3
        assert deploy_model(host, changed, name="live", canary_s=0.3).traffic == {"v3-2": 100}
        deploy_model(host, models[0], name="live", canary_s=0.3)
        host.delete("live", "v3-2")
    assert steady.failures == []
    assert is_unchanged(host)
    output = "\n".join(steps)
    expected = ("smoke test passed", "v2 receives 20 %", "no errors", "v2 receives 100 %")
    assert sorted(expected, key=output.index) == list(expected)


def test_rollback_requires_a_previous_deployment(host: LocalHost) -> None:
    with pytest.raises(DeployError, match="no other deployment"):
        roll_back(host, "live")


def test_failed_first_rollout_deletes_the_endpoint(tmp_path: Path, host: LocalHost, models: Models) -> None:
    faulty_host = LocalHost(host.folder("live").parent, script=faulty(tmp_path, "answers wrong"))
    with pytest.raises(SmokeTestError):
        deploy_model(faulty_host, models[0], name="second")
    assert [each.name for each in host.list_endpoints()] == ["live"]


def test_model_with_overstated_accuracy_is_rejected(host: LocalHost, trained: Run, tmp_path: Path) -> None:
    """For example, its class names were reordered after the evaluation."""
    shutil.copytree(trained.path, tmp_path / "reversed")
    (tmp_path / "reversed" / MANIFEST).unlink()
    reversed_run = write_manifest(
        tmp_path / "reversed", trained.class_names[::-1], dict(trained.info) | {"test_accuracy": 0.95}
    )
    model = LocalRegistry(tmp_path / "registry").register(reversed_run)
    with pytest.raises(SmokeTestError, match=r"\d of \d+ images correct, expected about 95%"):
        deploy_model(host, model, name="live")
    assert is_unchanged(host)


def test_damaged_model_is_rejected(host: LocalHost, trained: Run, tmp_path: Path) -> None:
    (model,) = register_copies(trained, tmp_path, 1)
    (model.open_run().path / "history.json").write_text("{}")
    with pytest.raises(ModelFileError, match="changed"):
        deploy_model(host, model, name="live")
    assert is_unchanged(host)


def test_only_a_registered_model_can_be_deployed(host: LocalHost, trained: Run) -> None:
    for unregistered in (trained, trained.path, str(trained.path)):
        with pytest.raises(DeployError, match="only a registered model") as caught:
            deploy_model(host, unregistered, name="live")  # type: ignore[arg-type]
        assert "register(run)" in str(caught.value.hint)
    with pytest.raises(RegistryError, match="does not come from a registry"):
        deploy_model(host, RegisteredModel("cifar10", "1"), name="live")
    assert is_unchanged(host)


def test_images_of_unknown_classes_are_rejected(host: LocalHost, models: Models, tmp_path: Path) -> None:
    for name in ("apple", "pear"):
        (tmp_path / name).mkdir()
        for number in range(10):
            (tmp_path / name / f"{number}.png").write_bytes(image_bytes(number))
    with pytest.raises(DataError, match="none of the model's classes"):
        deploy_model(host, models[1], name="live", images=load_dataset(tmp_path))


def test_concurrent_traffic_change_aborts_the_rollout(host: LocalHost, models: Models) -> None:
    host.create_deployment("live", "other", models[2])

    def step(text: str) -> None:
        if text.startswith("canary: v2 receives"):
            host.set_traffic("live", {"v1": 50, "other": 50})

    with pytest.raises(DeployError, match="changed during the rollout"):
        deploy_model(host, models[1], name="live", canary_s=0, on_step=step)
    endpoint = host.get_endpoint("live")
    assert endpoint.traffic == {"v1": 50, "other": 50}, "the concurrent change is kept"
    assert "v2" not in {each.name for each in endpoint.deployments}
    host.set_traffic("live", {"v1": 100})
    host.delete("live", "other")


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_rollout_is_rolled_back(
    host: LocalHost, models: Models, tmp_path: Path, signal_number: signal.Signals
) -> None:
    code = f"""
import signal
from pathlib import Path
from cifarml import LocalHost, LocalRegistry, deploy_model
signal.signal(signal.SIGTERM, signal.default_int_handler)
def report(step): print(step, flush=True)
model = LocalRegistry({str(models[1].open_run().path.parents[2])!r}).get("cifar10", "2")
host = LocalHost(Path({str(host.folder("live").parent)!r}))
deploy_model(host, model, name="live", canary_s=60, on_step=report)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("canary: v2 receives"):
                break
        wait_until(lambda: host.get_endpoint("live").traffic == {"v1": 90, "v2": 10})
        process.send_signal(signal_number)
        rest, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        assert "rollout failed, rolling back" in rest
        assert "KeyboardInterrupt" in errors
    assert is_unchanged(host)


def test_probe_endpoint(host: LocalHost) -> None:
    result = probe_endpoint(host, "live")
    assert (result.num_images, result.errors) == (20, [])
    assert 0 < result.median_s <= result.slowest_s
    assert len(probe_endpoint(host, "live", deployment="none").errors) == 20


def test_all_faults_are_covered_without_leaking_threads(threads_before: int) -> None:
    assert set(FAULTS) - set(REFUSED) == {"slow", "waits"}
    assert threading.active_count() - threads_before < 20
