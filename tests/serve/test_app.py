"""Tests of the application of an endpoint: methods, encodings and forms of request bodies."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest
import requests as http

from cifarml.deploy.local.host import LocalHost
from cifarml.scoring.request import CODES, MAX_BODY_BYTES
from tests.endpoints import Caller, register_copies
from tests.goldens import Golden, colour_run, encoded_bodies, goldens, plain

PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """Client of an endpoint that serves the model of the goldens."""
    host = LocalHost(tmp_path_factory.mktemp("app") / "endpoints")
    host.create_endpoint("live")
    run = colour_run(tmp_path_factory.mktemp("model") / "colours")
    host.create_deployment("live", "v3", register_copies(run, tmp_path_factory.mktemp("models"), 3)[2])
    host.set_traffic("live", {"v3": 100})
    yield Caller(host, "live")
    host.delete("live")


def test_head_answers_like_get_without_a_body(caller: Caller) -> None:
    paths = [
        path.replace("{name}", "ship")
        for path, methods in caller.ask("GET", "/openapi.json").json()["paths"].items()
        if "get" in methods
    ]
    assert {"/samples", "/samples/ship.png", "/health/live", "/health/ready", "/metrics"} <= set(paths)
    changing = {"content-length", "date", "x-request-id"}
    for path in (*paths, "/", "/docs", "/openapi.json", "/page/page.js", "/none", "/score", "/metrics?a=b"):
        got, head = caller.ask("GET", path), caller.ask("HEAD", path)
        assert (head.status, head.body) == (got.status, b""), path
        assert {name.lower() for name in head.headers} == {name.lower() for name in got.headers}
        for name in {name.lower() for name in got.headers} - changing:
            assert head.headers[name] == got.headers[name]
        if "metrics" not in path:
            assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.body))
    assert caller.ask("HEAD", "/metrics", key=None).status == 401


@pytest.mark.parametrize(
    "golden",
    [golden for golden in goldens() if golden.body and golden.status not in {413, 415}],
    ids=lambda golden: golden.name,
)
def test_compressed_body_gives_the_same_response(caller: Caller, golden: Golden) -> None:
    headers = {"content-encoding": "gzip", "content-type": golden.content_type}
    answer = caller.ask("POST", "/score", gzip.compress(golden.body), headers)
    golden.check(answer.status, answer.body)


@pytest.mark.parametrize("name", encoded_bodies())
def test_invalid_content_encoding(caller: Caller, name: str) -> None:
    encoding, body = encoded_bodies()[name]
    for path in ("/score", "/seen"):
        answer = caller.ask("POST", path, body, PNG | {"content-encoding": encoding})
        assert (answer.status, answer.code) == (CODES[answer.code][0], name.partition(":")[0])
        assert b"geheim" not in answer.body


def test_forms_of_clients(caller: Caller) -> None:
    """A form of requests, as of curl -F, is read; two files are refused with what to send instead."""
    url, headers = f"http://127.0.0.1:{caller.port}/score", {"Authorization": f"Bearer {caller.key}"}
    file = ("ship.png", plain("ship"), "image/png")
    answer = http.post(url, files={"image": file}, data={"id": "7"}, headers=headers, timeout=60)
    assert answer.json()["result"] == "ship"
    answer = http.post(url, files=[("image", file), ("image", file)], headers=headers, timeout=60)
    assert answer.status_code == 400
    assert "send one at a time, or a list as JSON" in answer.json()["error"]["message"]
    headers["Content-Type"] = "multipart/form-data"  # a usual mistake: without the boundary
    answer = http.post(url, files={"image": file}, headers=headers, timeout=60)
    assert "let the client set this header itself" in answer.json()["error"]["message"]


def test_chunked_body(caller: Caller) -> None:
    pieces = (plain("frog")[start : start + 7] for start in range(0, len(plain("frog")), 7))
    url = f"http://127.0.0.1:{caller.port}/score"
    answer = http.post(url, pieces, headers={"Authorization": f"Bearer {caller.key}", **PNG}, timeout=60)
    assert answer.json()["result"] == "frog"


@pytest.mark.parametrize(
    ("key", "size", "expected"),
    [("right", 0, b"100"), ("wrong", 0, b"401"), ("right", MAX_BODY_BYTES + 1, b"413")],
)
def test_expect_100_continue(caller: Caller, key: str, size: int, expected: bytes) -> None:
    """The client learns from the headers alone whether to send its body."""
    body = plain("ship")
    shown = caller.key if key == "right" else "wrong"
    head = (
        f"POST /score HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {shown}\r\n"
        f"Expect: 100-continue\r\nContent-Type: image/png\r\nContent-Length: {size or len(body)}\r\n\r\n"
    )
    with caller.connect() as connection:
        connection.sendall(head.encode())
        received = connection.recv(4096)
        assert received.startswith(b"HTTP/1.1 " + expected)
        if expected == b"100":
            connection.sendall(body)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
def test_other_methods_than_post(caller: Caller, method: str) -> None:
    """A browser that opens the scoring URI is sent to the page, not asked for a key."""
    answer = caller.ask(method, "/score", key=None)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert answer.json()["error"]["message"].endswith("with POST; open / in a browser")


def test_post_to_other_paths(caller: Caller) -> None:
    for path, status in (
        ("/", 405),
        ("/docs", 405),
        ("/score/", 404),
        ("/predict", 404),
        ("/v1/models", 404),
    ):
        answer = caller.ask("POST", path, plain("ship"), PNG)
        assert answer.status == status
        assert "send images to /score" in answer.json()["error"]["message"]


def test_unauthorized_requests_learn_where_the_key_is(caller: Caller) -> None:
    for headers in (
        {},
        {"api-key": caller.key},
        {"authorization": caller.key},
        {"authorization": "Bearer $KEY"},
    ):
        answer = caller.ask("POST", "/score", plain("ship"), PNG | headers, key=None)
        assert (answer.status, answer.code) == (401, "unauthorized")
        message = answer.json()["error"]["message"]
        assert message.endswith("Authorization: Bearer KEY. Print the key: cifarml endpoint keys live")
        assert caller.key not in message
