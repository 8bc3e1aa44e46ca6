"""Tests of the hosts, origins and paths that an endpoint accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cifarml.serve.exposure import EXPOSURE, Exposure
from cifarml.settings import load_settings

PUBLIC = Exposure(
    "0.0.0.0",
    "/cifar10",
    ("models.example.com", "[fd00::2]"),
    ("https://app.example.com",),
    ("10.0.0.0/8",),
)


def test_exposure_survives_json() -> None:
    assert EXPOSURE.validate_json(PUBLIC.to_json()) == PUBLIC


def test_default_is_local() -> None:
    assert Exposure().is_local
    assert not Exposure().warning
    assert Exposure.from_settings(load_settings()) == Exposure()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5"])
def test_warning_beyond_loopback(host: str) -> None:
    assert f"listening on {host} with plain HTTP" in Exposure(host).warning


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost:80",
        "models.example.com",
        "models.example.com:8443",
        "[fd00::2]:1",
        "192.0.2.7",
    ],
)
def test_allowed_hosts(host: str) -> None:
    assert PUBLIC.allows_host(host, "192.0.2.7")
    assert PUBLIC.allows_host(host, "::ffff:192.0.2.7")


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "models.example.com.evil.example",
        "x.models.example.com",
        "models.example.com.",
        "192.0.2.8",
        "models.example.com:80:80",
        "models.example.com@evil",
        "[::1]",
        "0.0.0.0",
    ],
)
def test_rejected_hosts(host: str) -> None:
    assert not PUBLIC.allows_host(host, "192.0.2.7")


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("https://127.0.0.1:8000", "127.0.0.1:8000", False),
        ("http://localhost:8000", "127.0.0.1:8000", False),
        ("https://models.example.com", "models.example.com", True),
        ("http://models.example.com", "models.example.com", True),
        ("https://models.example.com:8443", "models.example.com", False),
        ("https://app.example.com", "models.example.com", True),
        ("http://app.example.com", "models.example.com", False),
        ("null", "models.example.com", False),
    ],
)
def test_origins(origin: str, host: str, allowed: bool) -> None:
    assert PUBLIC.allows_origin(origin, "http", host) == allowed


def test_root_path_is_optional() -> None:
    paths = (
        "/cifar10/score",
        "/score",
        "/cifar10",
        "/cifar10x/score",
        "/cifar10/cifar10/score",
        "//cifar10/",
    )
    expected = ["/score", "/score", "/cifar10", "/cifar10x/score", "/cifar10/score", "//cifar10/"]
    assert [PUBLIC.strip_root(path) for path in paths] == expected
    assert Exposure().strip_root("/score") == "/score"


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument replaces the environment variable, which replaces the line in cifarml.toml."""
    monkeypatch.chdir(tmp_path)
    Path("cifarml.toml").write_text('serve_root_path = "a/"\nserve_allowed_hosts = ["A.example", "b"]\n')
    assert Exposure.from_settings(load_settings()) == Exposure(
        root_path="/a", allowed_hosts=("a.example", "b")
    )
    monkeypatch.setenv("CIFARML_SERVE_ALLOWED_HOSTS", "c, d")
    monkeypatch.setenv("CIFARML_SERVE_HOST", "0.0.0.0")
    found = Exposure.from_settings(load_settings(serve_allowed_origins=["https://e"]))
    assert found == Exposure("0.0.0.0", "/a", ("c", "d"), ("https://e",))
