"""What every host of endpoints does, run over each implementation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cifarml import Bundle, Predictor
from cifarml.deploy.base import EndpointHost
from cifarml.deploy.local import LocalHost
from cifarml.errors import DeployError, PictureError
from cifarml.registry.base import RegisteredModel
from tests.pictures import picture

MODEL = RegisteredModel("cifar10", "1", bundle_sha256="0" * 64)


@pytest.fixture(scope="module", params=["local"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointHost]:
    host = LocalHost(tmp_path_factory.mktemp("host") / "endpoints")
    yield host
    for endpoint in host.list_endpoints():
        host.delete(endpoint.name)


@pytest.fixture(scope="module")
def live(host: EndpointHost, trained: Bundle) -> str:
    """An endpoint with one deployment that has all the traffic."""
    host.create_endpoint("live")
    host.create_deployment("live", "v1", MODEL, trained)
    host.set_traffic("live", {"v1": 100})
    return "live"


def test_an_endpoint_is_made_once(host: EndpointHost) -> None:
    made = host.create_endpoint("first")
    assert (made.name, made.state, dict(made.traffic), made.deployments) == ("first", "running", {}, ())
    assert made.scoring_uri.startswith("http")
    assert host.create_endpoint("first") == made == host.get_endpoint("first")
    assert made in host.list_endpoints()
    with pytest.raises(DeployError, match="no deployment gets traffic"):
        host.invoke("first", picture())
    host.delete("first")
    assert "first" not in {each.name for each in host.list_endpoints()}


@pytest.mark.parametrize("name", ["", "ab", "Big", "1st", "a_b", "../../x", "a" * 33, "ends-", "ümlaut"])
def test_names_that_are_not_allowed(host: EndpointHost, live: str, trained: Bundle, name: str) -> None:
    with pytest.raises(DeployError, match="Received"):
        host.create_endpoint(name)
    if len(name) != 2 and name != "ends-":
        with pytest.raises(DeployError, match="Received"):
            host.create_deployment(live, name, MODEL, trained)


def test_what_is_not_there(host: EndpointHost, live: str) -> None:
    for ask in (
        lambda: host.get_endpoint("none"),
        lambda: host.invoke("none", picture()),
        lambda: host.set_traffic("none", {}),
        lambda: host.delete("none"),
        lambda: host.read_key("none"),
        lambda: host.logs("none", "v1"),
        lambda: host.invoke(live, picture(), deployment="none"),
        lambda: host.set_traffic(live, {"none": 100}),
        lambda: host.delete(live, "none"),
        lambda: host.logs(live, "none"),
    ):
        with pytest.raises(DeployError, match="none"):
            ask()


def test_it_answers_as_the_model_does(host: EndpointHost, live: str, trained: Bundle) -> None:
    predictor = Predictor.load(trained.path)
    for seed, kind in enumerate(("PNG", "JPEG", "WEBP", "GIF", "BMP")):
        file = picture(seed, kind, (40, 48))
        answer, expected = host.invoke(live, file), predictor.predict(file)
        assert answer.label == expected.label
        assert answer.probability == pytest.approx(expected.probability, abs=1e-5)
        assert answer.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
        assert list(answer.probabilities) == sorted(
            answer.probabilities, key=lambda name: -answer.probabilities[name]
        )


@pytest.mark.parametrize("file", [b"", b"no picture", picture()[:60]])
def test_a_bad_picture(host: EndpointHost, live: str, file: bytes) -> None:
    with pytest.raises(PictureError):
        host.invoke(live, file)


def test_traffic(host: EndpointHost, live: str, trained: Bundle) -> None:
    host.create_deployment(live, "v2", MODEL, trained)
    assert [each.name for each in host.get_endpoint(live).deployments] == ["v1", "v2"], "in order of age"
    assert host.get_endpoint(live).traffic == {"v1": 100}, "a new deployment has none"
    with pytest.raises(DeployError, match="already"):
        host.create_deployment(live, "v2", MODEL, trained)
    for wrong in ({"v1": 50}, {"v1": 90, "v2": 20}, {"v1": 150, "v2": -50}):
        with pytest.raises(DeployError, match="add up"):
            host.set_traffic(live, wrong)
    host.set_traffic(live, {"v1": 75, "v2": 25})
    assert host.get_endpoint(live).traffic == {"v1": 75, "v2": 25}
    for name in ("v1", "v2", None):
        host.invoke(live, picture(), deployment=name)
    with pytest.raises(DeployError, match="traffic"):
        host.delete(live, "v2")
    host.set_traffic(live, {"v1": 100, "v2": 0})
    host.delete(live, "v2")
    assert [each.name for each in host.get_endpoint(live).deployments] == ["v1"]


def test_keys(host: EndpointHost, live: str) -> None:
    key = host.read_key(live)
    assert len(key) >= 32
    assert host.read_key(live) == key
    new = host.read_key(live, regenerate=True)
    assert new not in {key, ""}
    assert host.read_key(live) == new
    host.invoke(live, picture())


def test_a_deployment_that_does_not_start(
    host: EndpointHost, live: str, tmp_path: Path, trained: Bundle
) -> None:
    damaged = broken_model(trained, tmp_path / "damaged")
    with pytest.raises(DeployError, match="v9"):
        host.create_deployment(live, "v9", MODEL, damaged)
    assert {each.name: each.state for each in host.get_endpoint(live).deployments} == {
        "v1": "ready",
        "v9": "failed",
    }
    assert "Traceback" in host.logs(live, "v9")
    assert host.logs(live, "v9", tail=1).count("\n") == 0
    with pytest.raises(DeployError, match="not ready"):
        host.set_traffic(live, {"v9": 100})
    host.delete(live, "v9")
    host.invoke(live, picture())


def broken_model(bundle: Bundle, to: Path) -> Bundle:
    """A bundle in good order whose model is no model."""
    from cifarml.bundle import ONNX_MODEL, write_manifest

    to.mkdir()
    (to / ONNX_MODEL).write_bytes(b"not a model")
    return write_manifest(to, bundle.class_names, bundle.info)
