"""The page of an endpoint in a real browser: given images by mouse, keyboard and clipboard."""

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
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]
PHONE, TABLET, DESK = 360, 800, 1280
GIVE = """([how, name, type, text]) => {
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
    """The page with its key; any error of its script, or of the content security policy, fails the test."""
    context = browser.new_context(viewport={"width": DESK, "height": 900})
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if "Policy" in message.text else None)
    opened.goto(served.with_key)
    expect(opened.locator("#samples button")).to_have_count(10)
    yield opened
    context.close()
    assert errors == []


def give(page: Page, how: str, file: bytes, *, name: str = "x.png", kind: str = "image/png") -> None:
    page.evaluate(GIVE, [how, name, kind, base64.b64encode(file).decode()])


def expect_answer(page: Page, run: Run, file: bytes) -> None:
    """What the page shows is what the model says."""
    said = run.predictor().predict(file)
    expect(page.locator("#verdict")).to_have_text(f"{said.label}, {said.probability * 100:.1f} %")
    bars = page.locator("#bars li")
    expect(bars).to_have_count(10)
    for number, (name, share) in enumerate(said.top(10).items()):
        expect(bars.nth(number)).to_have_text(f"{name}{share * 100:.1f} %")
    expect(page.locator("#facts")).to_have_text(
        re.compile(r"cifar10 version 3 \(deployment v3\) answered in \d+\.\d ms")
    )
    expect(page.locator("#problem")).to_be_hidden()
    size = "image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    assert page.locator("#seen").evaluate(size) == [32, 32]


def test_pick(page: Page, served: Served) -> None:
    file = image_bytes(3)
    given = {"name": "x.png", "mimeType": "image/png", "buffer": file}
    for _ in range(2):  # the same file again is asked again
        page.locator("#file").set_input_files(given)  # type: ignore[arg-type]
        expect_answer(page, served.run, file)


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_drop_and_paste(page: Page, served: Served, how: str) -> None:
    give(page, how, image_bytes(4))
    expect_answer(page, served.run, image_bytes(4))


def test_samples(page: Page) -> None:
    for name in CLASS_NAMES[:3]:
        button = page.get_by_role("button", name=f"a drawn {name}")
        button.click()
        expect(page.locator("#verdict")).to_be_visible()
        expect(button).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#samples [aria-pressed=true]")).to_have_count(1)


@pytest.mark.parametrize(
    ("file", "name", "kind", "said"),
    [
        (b"just a text", "notes.txt", "text/plain", "isn't an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "x.svg", "image/svg+xml", "isn't an image"),
        (b"", "empty.png", "image/png", "empty"),
        (image_bytes(1)[:60], "half.png", "image/png", "damaged"),
        (b"\x89PNG" * 3_000_000, "huge.png", "image/png", "10 MB"),
        (b"<script>alert(1)</script>", "<img src=x onerror=alert(1)>.png", "image/png", "isn't an image"),
    ],
)
def test_wrong_file(page: Page, served: Served, file: bytes, name: str, kind: str, said: str) -> None:
    """A kind message, and then a right one works."""
    give(page, "drop", file, name=name, kind=kind)
    expect(page.locator("#problem")).to_contain_text(said)
    expect(page.locator("#found")).to_be_hidden()
    give(page, "drop", image_bytes(5))
    expect_answer(page, served.run, image_bytes(5))


def test_the_last_of_several_is_shown(page: Page, served: Served) -> None:
    for number in range(8):
        give(page, "drop", image_bytes(number))
    expect_answer(page, served.run, image_bytes(7))


def test_offline(page: Page, served: Served) -> None:
    page.context.set_offline(True)
    give(page, "drop", image_bytes(1))
    expect(page.locator("#problem")).to_contain_text("doesn't answer")
    page.context.set_offline(False)
    give(page, "drop", image_bytes(1))
    expect_answer(page, served.run, image_bytes(1))


def test_the_key_leaves_the_address_and_survives_a_reload(page: Page, served: Served) -> None:
    assert page.url == served.address
    page.reload()
    give(page, "drop", image_bytes(2))
    expect_answer(page, served.run, image_bytes(2))


def test_without_a_key(browser: Browser, served: Served) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(served.address)
    expect(page.locator("#key")).to_be_focused()
    for key, works in (("wrong", False), (served.key, True)):
        page.locator("#key").fill(key)
        page.keyboard.press("Enter")
        expect(page.locator("#door")).to_be_hidden()
        give(page, "drop", image_bytes(2))
        if works:
            expect_answer(page, served.run, image_bytes(2))
        else:
            expect(page.locator("#problem")).to_contain_text("key")
            expect(page.locator("#key")).to_be_focused()
    assert served.key not in page.content(), "it is shown only where it is asked for"
    context.close()


def test_keyboard_only(page: Page) -> None:
    """Every control is reached by Tab, and a sample is asked about by Enter."""
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


def test_the_request_as_text(page: Page, served: Served, tmp_path: Path) -> None:
    """What it shows does what the page does, and shows no key unasked."""
    page.locator("summary").click()
    code = page.locator("#code")
    expect(code).to_contain_text("curl http://127.0.0.1")
    assert served.key not in page.content()
    page.get_by_label("with the key").check()
    page.get_by_label("Python").check()
    expect(code).to_contain_text(served.key)
    (tmp_path / "image.png").write_bytes(image_bytes(6))
    script = code.inner_text().replace('Path("image.png")', f'Path("{tmp_path}/image.png")')
    printed: list[object] = []
    exec(script, {"print": printed.append})  # what a reader would run
    assert printed == [served.run.predictor().predict(image_bytes(6)).label]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#copy").click()
    expect(page.locator("#copied")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == code.inner_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, TABLET, DESK])
def test_accessible_and_fitting(
    browser: Browser, served: Served, theme: str, width: int, tmp_path: Path
) -> None:
    """No violation that axe knows of, and nothing wider than the window, with and without an answer."""
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
    page.get_by_role("button", name="a drawn ship").click()
    expect(page.locator("#bars li")).to_have_count(10)
    page.locator("summary").click()
    results.append(Axe().run(page))
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    page.screenshot(path=tmp_path / f"{theme}-{width}.png", full_page=True)
    give(page, "drop", b"no image")
    expect(page.locator("#problem")).to_be_visible()
    results.append(Axe().run(page))
    for result in results:
        assert result.violations_count == 0, result.generate_report()
    context.close()


def test_the_reference_is_accessible(page: Page, served: Served) -> None:
    page.goto(f"{served.address}docs")
    result = Axe().run(page)
    assert result.violations_count == 0, result.generate_report()
