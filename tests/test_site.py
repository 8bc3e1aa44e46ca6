"""The documentation site: a strict build, complete reference pages, and every page in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import sync_playwright

import cifarml
from cifarml import errors

pytest.importorskip("mkdocs", reason="the group docs is not installed")

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE = 390


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "docs/site/mkdocs.yml"]
    done = subprocess.run([*build, "-d", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    handler.func.log_message = lambda *_: None  # type: ignore[attr-defined]
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_python_reference_has_every_public_name(site: Path) -> None:
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    missing = {name for name in cifarml.__all__ if f'id="cifarml.{name}"' not in page}
    assert missing == {"__version__"}


def test_error_reference_has_every_exception() -> None:
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    names = {
        each.__name__
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.CifarMLError)
    } - {"CifarMLError"}
    assert names == set(re.findall(r"^##+ (\w+Error)$", page, re.M))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_fit_a_phone_without_other_servers(
    site: Path, address: str, theme: Literal["light", "dark"]
) -> None:
    """No page scrolls sideways, fails in a script, or sends a request to another server."""
    faults = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": PHONE, "height": 800}, color_scheme=theme)
        page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((address, "data:")) else faults.append(request.url)
            ),
        )
        for path in sorted(site.rglob("*.html")):
            page.goto(f"{address}/{path.relative_to(site)}")
            width = page.evaluate("document.documentElement.scrollWidth")
            if width > PHONE:
                faults.append(f"{page.url}: {width} pixels wide")
        scheme = page.evaluate("document.body.dataset.mdColorScheme")
        browser.close()
    assert not faults
    assert scheme == {"light": "default", "dark": "slate"}[theme]


def test_search_index_has_the_terms_of_the_field(site: Path) -> None:
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8").lower()
    terms = [
        "data augmentation", "mixup", "learning-rate schedule", "one-cycle", "label smoothing",
        "data pruning", "infobatch", "precise batch norm", "test-time augmentation", "temperature scaling",
        "expected calibration error", "early stopping", "throughput", "latency", "canary", "mirrored traffic",
        "rollback", "middleware", "liveness", "readiness", "hyperparameter", "overfitting",
    ]  # fmt: skip
    assert [term for term in terms if term not in index] == []
