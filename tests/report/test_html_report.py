"""HTML report of a run: content, self-containment, escaping and accessibility."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from cifarml import Dataset, Run
from cifarml.evaluation.calibration import scale_probabilities
from cifarml.evaluation.metrics import evaluate_probabilities, measure_reliability
from cifarml.hardware.devices import describe_environment
from cifarml.report.html_report import write_report
from cifarml.run import write_json
from tests.report.samples import make_dataset, make_names, make_probabilities

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
quiet = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

HOSTILE = (
    "<script>document.title='owned'</script>",
    "\"><img src=http://127.0.0.1:9/x onerror=document.title='owned'>",
    "{{ 7 * 7 }}",
    "قطة سوداء",
    "W" * 255,
    "🐱🦄",
    "猫" * 255,
    "a&amp;b",
)
ORIGIN = "</title><script>document.title='owned'</script>\u202eevil\n/tmp/\udcff<b>.zip"


class Parsed(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._style = False
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.words.append(data)

    def images(self, kind: str) -> list[bytes]:
        start = f"data:{kind};base64,"
        sources = [attributes["src"] or "" for tag, attributes in self.tags if tag == "img"]
        return [base64.b64decode(each.removeprefix(start)) for each in sources if each.startswith(start)]


def make_page(
    folder: Path, test: Dataset, probabilities: npt.NDArray[np.float32], **changes: Any
) -> tuple[Path, Parsed]:
    """Write the files of a run folder and its report."""
    evaluation = evaluate_probabilities(probabilities, test.labels, test.class_names)
    folder.mkdir(parents=True)
    machine = {"devices": ["cpu:0"], "jit_compile": False, "time_budget": None}
    settings = {"preset": "fast", "num_epochs": 2, "widths": [32, 64], "flip": True, "machine": machine}
    write_json(folder / "config.json", settings)
    write_json(folder / "metrics.json", {"test": evaluation.to_json()})
    write_json(folder / "environment.json", describe_environment())
    write_json(
        folder / "history.json", {"loss": [2.0, 1.0], "accuracy": [0.2, 0.5], **changes.pop("history", {})}
    )
    about = {
        "origin": test.origin.encode("utf-8", "backslashreplace").decode(),
        "fingerprint": test.fingerprint,
        "class_names": test.class_names,
        "num_train": 80,
        "num_validation": 10,
        "num_test": len(test),
        "skipped": changes.pop("skipped", []),
    }
    write_json(folder / "dataset.json", about)
    info = {
        "run": folder.name,
        "created": "2026-11-24T10:00:44Z",
        "preset": "fast",
        "num_epochs": 2,
        "interrupted": False,
        "num_parameters": 1234,
        "training_s": 75.0,
        "images_per_second": 2000.0,
        "test_calibration_error": measure_reliability(probabilities, test.labels).calibration_error,
        "temperature": 1.0,
        "onnx_difference": 1e-7,
    } | changes
    path = write_report(folder, info, test, probabilities)
    return path, Parsed(path.read_text(encoding="utf-8"))


def test_training_writes_report(trained: Run, drawn: Dataset) -> None:
    page = Parsed(trained.read("report.html").decode())
    assert len(trained.read("report.html")) < 2_000_000
    config, environment = trained.read_json("config.json"), trained.read_json("environment.json")
    probabilities = trained.predictor().predict_images(drawn.test.images)
    error = measure_reliability(probabilities, drawn.test.labels).calibration_error
    for expected in (
        f"test accuracy {100 * trained.info['test_accuracy']:.1f} % on 20 images",
        f"calibration error {100 * error:.1f} %",
        f"{trained.info['images_per_second']:,.0f} images/s",
        f"learning rate {config['learning_rate']}",
        config["precision"],
        drawn.fingerprint,
        environment["packages"]["keras"],
        environment["platform"],
        f"cifarml explain image.png --run {trained.path.name}",
    ):
        assert expected in page.text, expected
    assert len(page.images("image/svg+xml")) == 4, "2 learning curves, matrix, 1 reliability diagram"


def test_report_is_self_contained(tmp_path: Path) -> None:
    test = make_dataset(100, make_names(10))
    path, page = make_page(tmp_path / "run", test, make_probabilities(test, np.arange(40)))
    assert path.stat().st_size < 600_000
    assert not {"script", "link", "iframe", "object", "a", "form"} & {tag for tag, _ in page.tags}
    addresses = [value for _, attributes in page.tags for name, value in attributes.items()
                 if name in {"src", "href", "srcset", "action", "background"}]  # fmt: skip
    assert addresses
    assert all((each or "").startswith("data:image/") for each in addresses)
    assert "url(" not in path.read_text(encoding="utf-8")
    policy = next(each["content"] or "" for tag, each in page.tags if each.get("http-equiv"))
    assert "default-src 'none'" in policy


def test_most_confident_mistakes_are_shown(tmp_path: Path) -> None:
    test = make_dataset(60, ("cat", "dog", "emu"))
    probabilities = make_probabilities(test, np.arange(0, 60, 2))
    confident = np.array([10, 4, 58])
    for place, confidence in zip(confident, (0.99, 0.97, 0.95), strict=True):
        wrong = int((test.labels[place] + 1) % 3)
        probabilities[place] = (1 - confidence) / 2
        probabilities[place, wrong] = confidence
    _, page = make_page(tmp_path / "run", test, probabilities)
    images = [np.asarray(Image.open(io.BytesIO(each))) for each in page.images("image/png")]
    assert len(images) == 24
    for place, image in zip(confident.tolist(), images, strict=False):
        np.testing.assert_array_equal(image, test.images[place])
    first = int(test.labels[10])
    names = test.class_names
    assert f"{names[(first + 1) % 3]} 99 % true: {names[first]} 0 % 10 " in page.text
    assert "The 24 of 30 wrong predictions" in page.text


def test_confusions_and_class_metrics(tmp_path: Path) -> None:
    test = make_dataset(30, ("cat", "dog", "emu"))
    _, page = make_page(tmp_path / "run", test, make_probabilities(test, np.arange(0, 12, 3)))
    assert "cat predicted as dog : 4 of 10 images" in page.text
    assert "cat 100.0 % 60.0 % 75.0 % 10" in page.text
    assert "dog 71.4 % 100.0 % 83.3 % 10" in page.text


def test_calibration_before_and_after_temperature_scaling(tmp_path: Path) -> None:
    test = make_dataset(400, ("cat", "dog"))
    random = np.random.default_rng(0)
    probabilities = make_probabilities(test, random.permutation(400)[:80])  # 80 % confidence and accuracy
    raw = scale_probabilities(probabilities, 0.4)
    before = measure_reliability(raw, test.labels).calibration_error
    assert before > 0.15
    # The served probabilities are scaled with temperature 2.5; the report reverts the scaling.
    _, page = make_page(tmp_path / "run", test, probabilities, temperature=2.5)
    assert f"from {100 * before:.1f} % to 0.0 % ." in page.text
    assert "divides the logits by 2.50" in page.text
    assert len(page.images("image/svg+xml")) == 5
    texts = [" ".join((each.get("alt") or "").split()) for _, each in page.tags]
    diagrams = [each for each in texts if each.startswith("Reliability")]
    assert [re.findall(r"[\d.]+ %", alt) for alt in diagrams] == [[f"{100 * before:.1f} %"], ["0.0 %"]]


def test_interrupted_run_without_mistakes_and_validation(tmp_path: Path) -> None:
    test = make_dataset(20, ("cat", "dog"))
    _, page = make_page(
        tmp_path / "run", test, make_probabilities(test, np.array([], np.int64)), interrupted=True
    )
    assert "test accuracy 100.0 % on 20 images; 95 % confidence interval 83.9 % to 100.0 %" in page.text
    assert "All test images are classified correctly" in page.text
    assert "Most confident mistakes" not in page.text
    assert "No validation images were used" in page.text
    assert "was interrupted" in page.text
    assert "temperature 1" in page.text


def test_skipped_images_are_listed(tmp_path: Path) -> None:
    test = make_dataset(20, ("cat", "dog"))
    skipped = [{"name": f"<b>{n}.png", "reason": "damaged"} for n in range(50)]
    probabilities = make_probabilities(test, np.arange(3))
    _, page = make_page(tmp_path / "run", test, probabilities, skipped=skipped)
    assert "<b>19.png : damaged" in page.text
    assert "and 30 more" in page.text
    assert "50 unreadable images" in page.text


def test_report_of_1000_classes_is_small(tmp_path: Path) -> None:
    test = make_dataset(2000, make_names(1000))
    path, page = make_page(tmp_path / "run", test, make_probabilities(test, np.arange(900)))
    assert path.stat().st_size < 2_000_000
    assert "thing 999" in page.text


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@in_a_browser
@quiet
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_hostile_names_in_a_browser(tmp_path: Path, browser: Browser, scheme: Any, width: int) -> None:
    test = dataclasses.replace(
        make_dataset(80, HOSTILE, origin=ORIGIN), sources=(*HOSTILE * 9, *HOSTILE[:7], "\udcff.png")
    )

    path, parsed = make_page(tmp_path / "run", test, make_probabilities(test, np.arange(60, 80)))
    assert not {"script", "b"} & {tag for tag, _ in parsed.tags}
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("dialog", lambda dialog: requests.append(dialog.message))
    page.goto(path.as_uri())
    assert [each[:40] for each in requests if not each.startswith("data:")] == [path.as_uri()[:40]]
    assert "\\udcff.png" in parsed.text, "a file name that is not Unicode"
    assert page.title().startswith("run: ")
    shown = page.locator("tbody th[scope=row] bdi").all_inner_texts()
    assert tuple(shown) == HOSTILE
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "no horizontal overflow"
    assert page.evaluate("[...document.images].every((each) => each.naturalWidth > 0)")
    page.close()


@in_a_browser
@quiet
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_is_accessible(trained: Run, browser: Browser, scheme: Any) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.goto((trained.path / "report.html").as_uri())
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.close()
