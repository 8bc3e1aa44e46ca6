"""Endpoints beyond 127.0.0.1: behind a reverse proxy under a path prefix, and on all addresses."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
import urllib3
from playwright.sync_api import Browser, expect, sync_playwright

from cifarml import LocalRegistry
from cifarml.deploy.local.host import LocalHost
from cifarml.settings import Settings
from tests.emulators.prefix_proxy import PrefixProxy
from tests.endpoints import Caller
from tests.goldens import colour_run, plain
from tests.processes import CLI
from tests.test_docs_examples import blocks, find_command
from tests.waiting import wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "expose.md"
HOST = "models.example.com"
KEY = "a-key-of-this-test-0123456789"
GET_PATHS = ("/", "/docs", "/openapi.json", "/samples", "/samples/ship.png", "/health/live", "/health/ready")
NGINX_CONF = """
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{server}
}}
"""


class Proxied(NamedTuple):
    """An endpoint behind a proxy."""

    url: str
    port: int
    http: urllib3.PoolManager

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, key: str = KEY, **headers: str
    ) -> urllib3.BaseHTTPResponse:
        """Send a request through the proxy, with the host name of its URL."""
        scheme, _, rest = self.url.partition("://")
        authority = rest.partition("/")[0]
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(
            method,
            f"{scheme}://127.0.0.1:{self.port}/cifar10{path}",
            body=body,
            headers={"host": authority, "authorization": f"Bearer {key}"} | named,
            redirect=False,
            timeout=60,
        )


@contextlib.contextmanager
def serving(registry: Path, *flags: str, **settings: str) -> Iterator[tuple[int, str]]:
    """Run ``cifarml serve``; yield its port and the output so far."""
    env = os.environ | {"CIFARML_REGISTRY_DIR": str(registry)} | settings
    env.pop("PYTHONUNBUFFERED", None)  # as in a container
    command = [CLI, "serve", "--port", "0", *flags]
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    ) as process:
        assert process.stdout is not None
        output = ""
        while "Press Ctrl-C" not in output:
            line = process.stdout.readline()
            assert line, output
            output += line
        port = int(output.partition("http://127.0.0.1:")[2].partition("/")[0])
        ready = urllib3.PoolManager()
        wait_until(lambda: ready.request("GET", f"http://127.0.0.1:{port}/health/ready").status == 200)
        try:
            yield port, output
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("expose")
    LocalRegistry(folder / "registry").register(colour_run(folder / "run"))
    return folder / "registry"


@pytest.fixture(scope="module")
def served(registry: Path) -> Iterator[tuple[int, str]]:
    (line,) = (line for line in blocks(GUIDE, "console") if "--root-path" in line)
    command = shlex.split(line.splitlines()[-1])
    flags = command[command.index("--root-path") :]
    with serving(registry, *flags, CIFARML_SERVE_KEY=KEY) as found:
        yield found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def nginx(folder: Path, upstream_port: int) -> Iterator[Proxied]:
    """Run nginx with the configuration of the guide, on a free port and with a certificate for the test."""
    (server,) = blocks(GUIDE, "nginx")
    port = free_port()
    authority = trustme.CA()
    certificate = authority.issue_cert(HOST)
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/models.example.com.pem", str(folder / "cert.pem")),
        ("/etc/ssl/models.example.com.key", str(folder / "key.pem")),
        ("127.0.0.1:8080", f"127.0.0.1:{upstream_port}"),
    ):
        assert old in server
        server = server.replace(old, new)
    user = "user root;" if os.getuid() == 0 else ""  # otherwise its workers can't write to the folder
    (folder / "nginx.conf").write_text(NGINX_CONF.format(user=user, folder=folder, server=server))
    command = [str(NGINX), "-e", "stderr", "-c", str(folder / "nginx.conf")]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    http = urllib3.PoolManager(
        ca_certs=str(folder / "ca.pem"), server_hostname=HOST, assert_hostname=HOST, retries=False
    )
    with subprocess.Popen(command) as process:
        proxied = Proxied(f"https://{HOST}:{port}/cifar10/", port, http)
        wait_until(lambda: _listens(port))
        try:
            yield proxied
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.fixture(
    scope="module",
    params=[
        "prefix removed",
        "prefix kept",
        pytest.param("nginx", marks=pytest.mark.skipif(NGINX is None, reason="nginx is not installed")),
    ],
)
def proxied(
    request: pytest.FixtureRequest, served: tuple[int, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    """The endpoint of the guide behind a reverse proxy."""
    if request.param == "nginx":
        with nginx(tmp_path_factory.mktemp("nginx"), served[0]) as found:
            yield found
        return
    proxy = PrefixProxy(served[0], "/cifar10", keep_prefix=request.param == "prefix kept")
    yield Proxied(f"http://{HOST}:{proxy.port}/cifar10/", proxy.port, urllib3.PoolManager(retries=False))
    proxy.close()


@pytest.mark.parametrize("path", GET_PATHS)
def test_get_and_head_through_a_proxy(proxied: Proxied, path: str) -> None:
    answer = proxied.ask("GET", path)
    assert answer.status == 200
    head = proxied.ask("HEAD", path)
    assert (head.status, head.data) == (200, b"")
    assert head.headers["content-length"] == str(len(answer.data))
    assert head.headers["content-type"] == answer.headers["content-type"]


def test_links_are_relative(proxied: Proxied) -> None:
    for path in ("/", "/docs"):
        links = re.findall(r'(?:href|src)="([^"]+)"', proxied.ask("GET", path).data.decode())
        assert links
        assert not [link for link in links if link.startswith(("/", "http"))]
        for link in links:
            assert proxied.ask("GET", f"/{link}").status == 200, link
    assert proxied.ask("GET", "/openapi.json").json()["servers"] == [{"url": "/cifar10"}]


def test_score_through_a_proxy(proxied: Proxied) -> None:
    own = proxied.url.removesuffix("/cifar10/")
    headers = {"content_type": "image/png", "origin": own}
    answer = proxied.ask("POST", "/score", plain("ship"), **headers)
    assert (answer.status, answer.json()["result"]) == (200, "ship")
    assert proxied.ask("POST", "/score", b"\x89PNG" * 2_000_000, **headers).status == 422, (
        "not limited to 1 MB"
    )
    for origin in ("https://evil.example", "null", own + "1"):
        assert proxied.ask("POST", "/score", plain("ship"), **headers | {"origin": origin}).status == 403
    assert proxied.ask("POST", "/score", plain("ship"), key="wrong", **headers).status == 401
    assert proxied.ask("GET", "/", host="evil.example").status == 421


def test_errors_name_addresses_with_the_prefix(proxied: Proxied) -> None:
    message = proxied.ask("GET", "/score", key="wrong").json()["error"]["message"]
    assert message == "send an image to this address with POST; open /cifar10/ in a browser"
    for path in ("/none", "/score/"):
        assert "send images to /cifar10/score" in proxied.ask("POST", path).json()["error"]["message"]


def test_admin_api_is_hidden_from_proxies(proxied: Proxied, served: tuple[int, str]) -> None:
    for method, path in (("GET", "/control/endpoint"), ("POST", "/control/key"), ("GET", "/control/none")):
        assert proxied.ask(method, path).status == 404
    direct = f"http://127.0.0.1:{served[0]}/control/endpoint"
    assert urllib3.request("GET", direct).status == 401


def test_root_path_redirects_to_the_page(served: tuple[int, str]) -> None:
    answer = urllib3.request("GET", f"http://127.0.0.1:{served[0]}/cifar10", redirect=False)
    assert (answer.status, answer.headers["location"]) == (307, "/cifar10/")


def test_serve_uses_the_key_of_the_environment(served: tuple[int, str]) -> None:
    assert f"#key={KEY}\n" in served[1]
    assert "Warning" not in served[1], "it listens on 127.0.0.1 only"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    arguments = ["--no-sandbox", f"--host-resolver-rules=MAP {HOST} 127.0.0.1"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield launched
        launched.close()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_page_in_a_browser_behind_a_proxy(proxied: Proxied, browser: Browser) -> None:
    """The page predicts, shows the right address, and keeps its key from other endpoints of the origin."""
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(f"{proxied.url}#key={KEY}")
    expect(page.locator("#samples button")).to_have_count(10)
    page.get_by_role("button", name="Sample image: ship").click()
    expect(page.locator("#facts")).to_contain_text("cifar10 version 1")
    size = "image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    assert page.locator("#seen").evaluate(size) == [32, 32]
    page.locator("summary").click()
    expect(page.locator("#code")).to_contain_text(f"curl {proxied.url}score ")
    assert page.url == proxied.url
    assert page.evaluate("Object.entries(sessionStorage)") == [["key of /cifar10/", KEY]]
    page.get_by_role("link", name="API reference").click()
    expect(page.locator("h1")).to_contain_text("cifarml endpoint")
    assert errors == []
    page.get_by_role("link", name="openapi.json").click()
    expect(page.locator("body")).to_contain_text('"url":"/cifar10"')
    context.close()


# Other addresses


def test_serve_on_all_addresses(registry: Path) -> None:
    """It warns, and accepts its own address and the allowed names."""
    with serving(registry, "--allowed-host", "cifarml", CIFARML_SERVE_HOST="0.0.0.0") as (port, output):
        assert "Warning: listening on 0.0.0.0 with plain HTTP" in output
        for address, host, status in (
            ("127.0.0.1", "localhost", 200),
            ("127.0.0.1", "cifarml:80", 200),
            ("127.0.0.2", f"127.0.0.2:{port}", 200),  # the address of the connection
            ("127.0.0.1", "127.0.0.2", 421),
            ("127.0.0.2", "evil.example", 421),
        ):
            url = f"http://{address}:{port}/health/live"
            assert urllib3.request("GET", url, headers={"host": host}).status == status, (address, host)
        hint = urllib3.request("POST", f"http://127.0.0.1:{port}/score").json()["error"]["message"]
        assert hint.endswith("The key is in the page's address that cifarml serve printed, after #key=")


def test_serve_on_ipv6(registry: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    with serving(registry, "--host", "::1") as (port, output):
        assert "Warning" not in output
        for address in ("[::1]", "127.0.0.1"):
            assert urllib3.request("GET", f"http://{address}:{port}/health/live").status == 200


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--host", "192.0.2.77"], "cannot listen on port"),
        (["--host", "example.com"], "must be an IP address of this machine"),
        (["--root-path", "https://example.com/x"], "must be a path such as /cifar10"),
        (["--allowed-host", "*"], "must be host names"),
        (["--allowed-origin", "*"], "must be origins"),
        (["--trusted-proxy", "*"], "must be IP addresses or networks"),
    ],
)
def test_invalid_flags_of_serve(registry: Path, flags: list[str], message: str) -> None:
    env = os.environ | {"CIFARML_REGISTRY_DIR": str(registry)}
    done = subprocess.run([CLI, "serve", *flags], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# Endpoints of `deploy`


@contextlib.contextmanager
def started(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: str) -> Iterator[tuple[Caller, Path]]:
    """Start an endpoint without deployments."""
    for name, value in settings.items():
        monkeypatch.setenv(f"CIFARML_SERVE_{name.upper()}", value)
    host = LocalHost(folder / "endpoints")
    host.create_endpoint("live")
    try:
        yield Caller(host, "live"), host.folder("live")
    finally:
        with contextlib.suppress(Exception):
            host.delete("live")


def test_settings_apply_when_an_endpoint_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with started(tmp_path, monkeypatch, host="0.0.0.0", root_path="/a", allowed_hosts="b") as (
        caller,
        folder,
    ):
        assert "listening on 0.0.0.0" in caplog.text
        answer = caller.ask("GET", "/a/health/live", headers={"host": "b"})
        assert answer.status == 200
        monkeypatch.delenv("CIFARML_SERVE_ALLOWED_HOSTS")
        host = LocalHost(folder.parent)
        host.stop("live")
        host.start("live")
        assert caller.ask("GET", "/a/health/live", headers={"host": "b"}).status == 421


def test_pages_of_allowed_origins_can_send_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(tmp_path, monkeypatch, allowed_origins="https://app.example") as (caller, _):
        ask = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        preflight = caller.ask("OPTIONS", "/score", headers=ask | {"origin": "https://app.example"}, key=None)
        assert preflight.status == 204
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        refused = caller.ask("OPTIONS", "/score", headers=ask | {"origin": "https://evil.example"}, key=None)
        assert (refused.status, refused.code) == (403, "wrong_origin")
        assert "access-control-allow-origin" not in refused.headers
        for key, status in ((None, 401), ("", 404)):
            answer = caller.ask("POST", "/score", b"{}", {"origin": "https://app.example"}, key=key)
            assert answer.status == status, "the key is still required"
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
            assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-origin" not in caller.ask("GET", "/health/live").headers
        own = f"http://127.0.0.1:{caller.port}"
        assert "access-control-allow-origin" not in caller.ask("GET", "/", headers={"origin": own}).headers


@pytest.mark.parametrize("trusted", [False, True])
def test_headers_of_a_proxy_are_trusted_only_if_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    settings = {"trusted_proxies": "127.0.0.0/8"} if trusted else {"trusted_proxies": "192.0.2.1"}
    with started(tmp_path, monkeypatch, **settings) as (caller, folder):
        forwarded = {"x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https"}
        origin = {"origin": f"https://127.0.0.1:{caller.port}"}
        assert caller.ask("GET", "/", headers=forwarded | origin).status == (200 if trusted else 403)
        assert caller.ask("GET", "/", headers={"x-forwarded-for": "<script>, ::1"}).status == 200
        assert caller.ask("GET", "/control/endpoint", headers={"x-forwarded-for": "127.0.0.1"}).status == 404
        host = LocalHost(folder.parent)
        host.stop("live")  # writes the log
        lines = [json.loads(line) for line in (folder / "access.log").read_text().splitlines()]
        assert ("203.0.113.7" in {line["client"] for line in lines}) == trusted


# Documentation


def test_dockerfile_of_the_guide() -> None:
    """Its command parses, and its variables are settings."""
    (text,) = blocks(GUIDE, "dockerfile")
    lines = dict(line.split(" ", 1) for line in text.splitlines())
    assert {*lines} == {"FROM", "COPY", "RUN", "ENV", "EXPOSE", "HEALTHCHECK", "CMD"}
    command, arguments = find_command(json.loads(lines["CMD"])[1:])
    assert command.name == "serve"
    command.make_context("serve", list(arguments))
    assert lines["EXPOSE"] == arguments[arguments.index("--port") + 1]
    variables = {each.partition("=")[0] for each in lines["ENV"].split()}
    assert variables <= {f"CIFARML_{name.upper()}" for name in Settings.model_fields}
    compile(json.loads(lines["HEALTHCHECK"].removeprefix("CMD "))[2], "HEALTHCHECK", "exec")
