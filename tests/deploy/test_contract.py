"""Contract tests of endpoint hosts, run against each implementation."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifarml import LocalRegistry, Run
from cifarml.deploy.azure.host import AzureHost
from cifarml.deploy.base import EndpointHost
from cifarml.deploy.local.host import LocalHost
from cifarml.errors import DeployError, ImageError, RegistryError
from cifarml.images import ImageLike
from cifarml.registry.azure.registry import AzureRegistry
from cifarml.registry.base import RegisteredModel
from tests.image_files import image_bytes

Register = Callable[[Run], RegisteredModel]


@pytest.fixture(scope="module", params=["local", "azure"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointHost]:
    host: EndpointHost
    if request.param == "azure":
        request.getfixturevalue("workspace_of_module")
        host = AzureHost(poll_s=0.05)
    else:
        host = LocalHost(tmp_path_factory.mktemp("host") / "endpoints")
    yield host
    for endpoint in host.list_endpoints():
        host.delete(endpoint.name)


@pytest.fixture(scope="module")
def register(host: EndpointHost, tmp_path_factory: pytest.TempPathFactory) -> Register:
    """Register a run so that the host can deploy it."""
    if isinstance(host, AzureHost):
        return AzureRegistry(host.workspace).register
    return LocalRegistry(tmp_path_factory.mktemp("registry")).register


@pytest.fixture(scope="module")
def model(register: Register, trained: Run) -> RegisteredModel:
    return register(trained)


@pytest.fixture(scope="module")
def live(host: EndpointHost, model: RegisteredModel) -> str:
    """An endpoint with one deployment that has all the traffic."""
    host.create_endpoint("live")
    host.create_deployment("live", "ver1", model)
    host.set_traffic("live", {"ver1": 100})
    return "live"


def test_create_endpoint_is_idempotent(host: EndpointHost) -> None:
    created = host.create_endpoint("first")
    assert (created.name, created.state, dict(created.traffic), created.deployments) == (
        "first",
        "running",
        {},
        (),
    )
    assert created.scoring_uri.startswith("http")
    assert host.create_endpoint("first") == created == host.get_endpoint("first")
    assert created in host.list_endpoints()
    with pytest.raises(DeployError, match=r"no deployment (gets|receives) traffic"):
        host.invoke("first", image_bytes())
    host.delete("first")
    assert "first" not in {each.name for each in host.list_endpoints()}


@pytest.mark.parametrize("name", ["", "ab", "Big", "1st", "a_b", "../../x", "a" * 33, "ends-", "ümlaut"])
def test_invalid_names_are_rejected(host: EndpointHost, live: str, model: RegisteredModel, name: str) -> None:
    with pytest.raises(DeployError, match="Received"):
        host.create_endpoint(name)
    if len(name) != 2 and name != "ends-":
        with pytest.raises(DeployError, match="Received"):
            host.create_deployment(live, name, model)


def test_missing_endpoints_and_deployments(host: EndpointHost, live: str) -> None:
    for call in (
        lambda: host.get_endpoint("none"),
        lambda: host.invoke("none", image_bytes()),
        lambda: host.set_traffic("none", {}),
        lambda: host.delete("none"),
        lambda: host.read_key("none"),
        lambda: host.logs("none", "ver1"),
        lambda: host.invoke(live, image_bytes(), deployment="none"),
        lambda: host.set_traffic(live, {"none": 100}),
        lambda: host.delete(live, "none"),
        lambda: host.logs(live, "none"),
    ):
        with pytest.raises(DeployError, match="none"):
            call()


def test_invoke_returns_the_prediction_of_the_model(host: EndpointHost, live: str, trained: Run) -> None:
    predictor = trained.predictor()
    for seed, kind in enumerate(("PNG", "JPEG", "WEBP", "GIF", "BMP")):
        file = image_bytes(seed, kind, (40, 48))
        predicted, expected = host.invoke(live, file), predictor.predict(file)
        assert predicted.label == expected.label
        assert predicted.probability == pytest.approx(expected.probability, abs=1e-5)
        assert predicted.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
        assert list(predicted.probabilities) == sorted(
            predicted.probabilities, key=lambda name: -predicted.probabilities[name]
        )


def test_invoke_accepts_all_image_types(host: EndpointHost, live: str, trained: Run, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(image_bytes(3, size=(40, 48)))
    image = Image.open(path)
    expected = trained.predictor().predict(path).probability
    for each in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), image, np.asarray(image)):
        assert host.invoke(live, each).probability == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("file", [b"", b"no image", image_bytes()[:60], "none.png", np.zeros((2, 2))])
def test_invoke_rejects_invalid_images(host: EndpointHost, live: str, file: ImageLike) -> None:
    with pytest.raises(ImageError):
        host.invoke(live, file)


def test_endpoint_details(host: EndpointHost, live: str, model: RegisteredModel, tmp_path: Path) -> None:
    endpoint = host.get_endpoint(live)
    in_azure = isinstance(host, AzureHost)
    assert bool(host.page_address(live)) is not in_azure
    assert bool(host.costs(endpoint)) is bool(host.costs()) is in_azure
    assert bool(host.storage_logs(live, "ver1")) is in_azure
    assert {each.config_fingerprint for each in endpoint.deployments} == {host.config_fingerprint}
    if in_azure:
        assert "deployment.yml" in {
            path.name for path in host.write_yaml(tmp_path / "plan", live, "ver2", model)
        }
    else:
        with pytest.raises(DeployError, match="only deployments in Azure"):
            host.write_yaml(tmp_path / "plan", live, "ver2", model)


def test_unregistered_model_is_rejected(host: EndpointHost, live: str) -> None:
    with pytest.raises((DeployError, RegistryError), match="regist"):
        host.create_deployment(live, "ver3", RegisteredModel("cifar10", "1"))
    assert [each.name for each in host.get_endpoint(live).deployments] == ["ver1"]


def test_set_traffic(host: EndpointHost, live: str, model: RegisteredModel) -> None:
    host.create_deployment(live, "ver2", model)
    assert [each.name for each in host.get_endpoint(live).deployments] == ["ver1", "ver2"], "the oldest first"
    assert host.get_endpoint(live).traffic == {"ver1": 100}, "a new deployment receives no traffic"
    with pytest.raises(DeployError, match="already"):
        host.create_deployment(live, "ver2", model)
    for wrong in ({"ver1": 50}, {"ver1": 90, "ver2": 20}, {"ver1": 150, "ver2": -50}):
        with pytest.raises(DeployError, match="add up"):
            host.set_traffic(live, wrong)
    host.set_traffic(live, {"ver1": 75, "ver2": 25})
    assert host.get_endpoint(live).traffic == {"ver1": 75, "ver2": 25}
    for name in ("ver1", "ver2", None):
        host.invoke(live, image_bytes(), deployment=name)
    with pytest.raises(DeployError, match="traffic"):
        host.delete(live, "ver2")
    host.set_traffic(live, {"ver1": 100, "ver2": 0})
    host.delete(live, "ver2")
    assert [each.name for each in host.get_endpoint(live).deployments] == ["ver1"]


def test_read_and_regenerate_key(host: EndpointHost, live: str) -> None:
    key = host.read_key(live)
    assert len(key) >= 32
    assert host.read_key(live) == key
    new = host.read_key(live, regenerate=True)
    assert new not in {key, ""}
    assert host.read_key(live) == new
    host.invoke(live, image_bytes())


def test_failed_deployment(
    host: EndpointHost, live: str, register: Register, tmp_path: Path, trained: Run
) -> None:
    damaged = broken_model(trained, tmp_path / "damaged")
    with pytest.raises(DeployError, match="ver9"):
        host.create_deployment(live, "ver9", register(damaged))
    assert {each.name: each.state for each in host.get_endpoint(live).deployments} == {
        "ver1": "ready",
        "ver9": "failed",
    }
    assert "Traceback" in host.logs(live, "ver9")
    assert host.logs(live, "ver9", tail=1).count("\n") == 0
    with pytest.raises(DeployError, match="not ready"):
        host.set_traffic(live, {"ver9": 100})
    host.delete(live, "ver9")
    host.invoke(live, image_bytes())


def broken_model(run: Run, to: Path) -> Run:
    """Create a run whose model file is valid by its hash, but not an ONNX model."""
    from cifarml.run import ONNX_MODEL, write_manifest

    to.mkdir()
    (to / ONNX_MODEL).write_bytes(b"not a model")
    for name in ("config.json", "metrics.json", "history.json"):
        (to / name).write_bytes(run.read(name))
    return write_manifest(to, run.class_names, run.info)
