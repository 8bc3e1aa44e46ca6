"""End-to-end tests of the endpoint's web page in a real browser."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from cifarml import Run
from cifarml.cifar10 import CLASS_NAMES
from cifarml.deploy.local.host import LocalHost
from cifarml.deploy.rollout import deploy_model
from tests.endpoints import register_copies
from tests.image_files import image_bytes

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]
PHONE, TABLET, DESKTOP = 360, 800, 1280
SEND_FILE = """([how, name, type, text]) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, {type}));
  const event = how === "drop"
    ? new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})
    : new ClipboardEvent("paste", {clipboardData: data, bubbles: true});
  document.querySelector(how === "drop" ? "#drop" : "body").dispatchEvent(event);
}"""


class Served(NamedTuple):
    host: LocalHost
    address: str
    key: str
    run: Run

    @property
    def with_key(self) -> str:
        return f"{self.address}#key={self.key}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, trained: Run) -> Iterator[Served]:
    models = register_copies(trained, tmp_path_factory.mktemp("models"), 3)
    host = LocalHost(tmp_path_factory.mktemp("page") / "endpoints")
    endpoint = deploy_model(host, models[2], name="page")
    yield Served(host, endpoint.scoring_uri.removesuffix("score"), host.read_key("page"), trained)
    host.delete("page")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    """Open the page with its key; fail the test on script errors and content security policy violations."""
    context = browser.new_context(viewport={"width": DESKTOP, "height": 900})
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if "Policy" in message.text else None)
    opened.goto(served.with_key)
    expect(opened.locator("#samples button")).to_have_count(10)
    yield opened
    context.close()
    assert errors == []


def send_file(page: Page, how: str, file: bytes, *, name: str = "x.png", kind: str = "image/png") -> None:
    page.evaluate(SEND_FILE, [how, name, kind, base64.b64encode(file).decode()])


def expect_prediction(page: Page, run: Run, file: bytes) -> None:
    """Assert that the page shows the prediction of the model."""
    predicted = run.predictor().predict(file)
    expect(page.locator("#verdict")).to_have_text(f"{predicted.label}, {predicted.probability * 100:.1f} %")
    bars = page.locator("#bars li")
    expect(bars).to_have_count(10)
    for number, (name, probability) in enumerate(predicted.top(10).items()):
        expect(bars.nth(number)).to_have_text(f"{name}{probability * 100:.1f} %")
    expect(page.locator("#facts")).to_have_text(
        re.compile(r"cifar10 version 3 \(deployment v3\) responded in \d+\.\d ms")
    )
    expect(page.locator("#problem")).to_be_hidden()
    size = "image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    assert page.locator("#seen").evaluate(size) == [32, 32]


def test_choose_file(page: Page, served: Served) -> None:
    file = image_bytes(3)
    upload = {"name": "x.png", "mimeType": "image/png", "buffer": file}
    for _ in range(2):  # choosing the same file again works
        page.locator("#file").set_input_files(upload)  # type: ignore[arg-type]
        expect_prediction(page, served.run, file)


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_drop_and_paste(page: Page, served: Served, how: str) -> None:
    send_file(page, how, image_bytes(4))
    expect_prediction(page, served.run, image_bytes(4))


def test_samples(page: Page) -> None:
    for name in CLASS_NAMES[:3]:
        button = page.get_by_role("button", name=f"Sample image: {name}")
        button.click()
        expect(page.locator("#verdict")).to_be_visible()
        expect(button).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#samples [aria-pressed=true]")).to_have_count(1)


@pytest.mark.parametrize(
    ("file", "name", "kind", "message"),
    [
        (b"just a text", "notes.txt", "text/plain", "not a supported image"),
        (
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "x.svg",
            "image/svg+xml",
            "cannot decode this kind of image",
        ),
        (b"", "empty.png", "image/png", "empty"),
        (image_bytes(1)[:60], "half.png", "image/png", "damaged"),
        (b"\x89PNG" * 3_000_000, "huge.png", "image/png", "10 MB"),
        (
            b"<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>.png",
            "image/png",
            "not a supported image",
        ),
    ],
)
def test_invalid_file(page: Page, served: Served, file: bytes, name: str, kind: str, message: str) -> None:
    """An error message is shown, and the next valid file works."""
    send_file(page, "drop", file, name=name, kind=kind)
    expect(page.locator("#problem")).to_contain_text(message)
    expect(page.locator("#result")).to_be_hidden()
    send_file(page, "drop", image_bytes(5))
    expect_prediction(page, served.run, image_bytes(5))


def test_last_of_several_images_is_shown(page: Page, served: Served) -> None:
    for number in range(8):
        send_file(page, "drop", image_bytes(number))
    expect_prediction(page, served.run, image_bytes(7))


def test_offline(page: Page, served: Served) -> None:
    page.context.set_offline(True)
    send_file(page, "drop", image_bytes(1))
    expect(page.locator("#problem")).to_contain_text("Cannot reach the endpoint")
    page.context.set_offline(False)
    send_file(page, "drop", image_bytes(1))
    expect_prediction(page, served.run, image_bytes(1))


def test_key_is_removed_from_the_url_and_survives_a_reload(page: Page, served: Served) -> None:
    assert page.url == served.address
    page.reload()
    send_file(page, "drop", image_bytes(2))
    expect_prediction(page, served.run, image_bytes(2))


def test_key_form(browser: Browser, served: Served) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(served.address)
    expect(page.locator("#key")).to_be_focused()
    for key, works in (("wrong", False), (served.key, True)):
        page.locator("#key").fill(key)
        page.keyboard.press("Enter")
        expect(page.locator("#key-form")).to_be_hidden()
        send_file(page, "drop", image_bytes(2))
        if works:
            expect_prediction(page, served.run, image_bytes(2))
        else:
            expect(page.locator("#problem")).to_contain_text("key")
            expect(page.locator("#key")).to_be_focused()
    assert served.key not in page.content(), "the key is shown only on request"
    context.close()


def test_keyboard_only(page: Page) -> None:
    """Tab reaches every control, and Enter classifies a sample image."""
    reached = []
    for _ in range(24):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        if page.evaluate("document.activeElement.closest('#samples') && true") and len(reached) < 5:
            page.keyboard.press("Enter")
            expect(page.locator("#verdict")).to_be_visible()
        if page.evaluate("document.activeElement.tagName") == "SUMMARY":
            page.keyboard.press("Space")
    assert reached[0] == "file"
    assert {"SUMMARY", "with-key", "copy", "A"} <= set(reached)
    outline = page.locator("#copy").evaluate("e => (e.focus(), getComputedStyle(e).outlineStyle)")
    assert outline == "solid"


def test_example_code(page: Page, served: Served, tmp_path: Path) -> None:
    """The example code works, and includes the key only on request."""
    page.locator("summary").click()
    code = page.locator("#code")
    expect(code).to_contain_text("curl http://127.0.0.1")
    assert served.key not in page.content()
    page.get_by_label("Include the key").check()
    page.get_by_label("Python").check()
    expect(code).to_contain_text(served.key)
    (tmp_path / "image.png").write_bytes(image_bytes(6))
    script = code.inner_text().replace('Path("image.png")', f'Path("{tmp_path}/image.png")')
    printed: list[object] = []
    exec(script, {"print": printed.append})  # as a reader would run it
    assert printed == [served.run.predictor().predict(image_bytes(6)).label]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#copy").click()
    expect(page.locator("#copied")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == code.inner_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, TABLET, DESKTOP])
def test_page_is_accessible_and_fits(
    browser: Browser, served: Served, theme: str, width: int, tmp_path: Path
) -> None:
    """axe finds no violation, and nothing is wider than the window, with and without a prediction."""
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme=theme,  # type: ignore[arg-type]
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(served.address)
    expect(page.locator("#key")).to_be_focused()
    results = [Axe().run(page)]
    page.goto("about:blank")
    page.goto(served.with_key)
    page.get_by_role("button", name="Sample image: ship").click()
    expect(page.locator("#bars li")).to_have_count(10)
    page.locator("summary").click()
    results.append(Axe().run(page))
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    page.screenshot(path=tmp_path / f"{theme}-{width}.png", full_page=True)
    send_file(page, "drop", b"no image")
    expect(page.locator("#problem")).to_be_visible()
    results.append(Axe().run(page))
    for result in results:
        assert result.violations_count == 0, result.generate_report()
    context.close()


def test_api_reference_is_accessible(page: Page, served: Served) -> None:
    page.goto(f"{served.address}docs")
    result = Axe().run(page)
    assert result.violations_count == 0, result.generate_report()
