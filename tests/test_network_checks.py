"""Tests of the checks of network settings."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from cifarml import network_checks as checks


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("::0", "::")],
)
def test_addresses(text: str, address: str) -> None:
    assert checks.check_address(text) == address


@pytest.mark.parametrize("text", ["", "example.com", "127.0.0.1:80", "http://0.0.0.0", "1.2.3", "10.0.0.0/8"])
def test_invalid_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="must be an IP address"):
        checks.check_address(text)


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        *((address, True) for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1")),
        *((address, False) for address in ("0.0.0.0", "::", "192.168.1.5", "::ffff:192.168.1.5")),
    ],
)
def test_loopback(address: str, loopback: bool) -> None:
    assert checks.is_loopback(address) == loopback


@pytest.mark.parametrize(
    ("text", "path"),
    [("", ""), ("/", ""), ("/a", "/a"), ("a/b/", "/a/b"), ("/a.b/..c/~d_e", "/a.b/..c/~d_e")],
)
def test_root_paths(text: str, path: str) -> None:
    assert checks.check_root_path(text) == path


@pytest.mark.parametrize(
    "text", ["/a//b", "/..", "/a/../b", "/./a", "https://x/a", "/a b", "/a?b", "/%2e", "/ä"]
)
def test_invalid_root_paths(text: str) -> None:
    with pytest.raises(ValueError, match="must be a path such as /cifar10"):
        checks.check_root_path(text)


def test_host_names() -> None:
    names = ("Models.Example.com", "web_1", "192.168.1.5", "::1", "[fd00::2]")
    expected = ("models.example.com", "web_1", "192.168.1.5", "[::1]", "[fd00::2]")
    assert checks.check_host_names(names) == expected


@pytest.mark.parametrize(
    "name", ["*", "*.example.com", "a:80", "http://a", "a/b", "a..b", "a.", "-", "a b", "ä"]
)
def test_invalid_host_names(name: str) -> None:
    with pytest.raises(ValueError, match="must be host names"):
        checks.check_host_names(("good", name))


def test_origins() -> None:
    origins = (
        "https://App.example.com/",
        "http://a:80",
        "https://a:443",
        "https://a:8443",
        "http://[::1]:8000",
    )
    expected = ("https://app.example.com", "http://a", "https://a", "https://a:8443", "http://[::1]:8000")
    assert checks.check_origins(origins) == expected


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "null",
        "a.example",
        "https://",
        "https://a/b",
        "https://u:p@a",
        "ftp://a",
        "https://*.a",
        "https://a?",
        "https://a:99999",
        "https://a:",
        "http://a#b",
    ],
)
def test_invalid_origins(origin: str) -> None:
    with pytest.raises(ValueError, match="must be origins"):
        checks.check_origins((origin,))


def test_networks() -> None:
    assert checks.check_networks(("127.0.0.1", "10.1.2.3/8")) == ("127.0.0.1/32", "10.0.0.0/8")
    for wrong in ("*", "proxy", "10.0.0.0/33"):
        with pytest.raises(ValueError, match="must be IP addresses or networks"):
            checks.check_networks((wrong,))


def test_keys() -> None:
    assert checks.check_key(SecretStr("x" * 20)).get_secret_value() == "x" * 20
    for wrong in ("x" * 19, "x" * 201, "x" * 20 + " ", "ü" * 20):
        with pytest.raises(ValueError, match="20 to 200 ASCII") as caught:
            checks.check_key(SecretStr(wrong))
        assert wrong not in str(caught.value)


def test_lists() -> None:
    assert checks.split_list(" a, b,,") == ["a", "b"]
    assert checks.split_list(["a"]) == ["a"]
