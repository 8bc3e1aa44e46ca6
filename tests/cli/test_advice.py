"""Next steps that commands print, followed by typing them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cifarml import LocalRegistry, Run
from cifarml.cli.advice import describe_model
from cifarml.registry.local.registry import LocalRegistry as Registry
from tests.conftest import CommandLine
from tests.image_files import image_contents, write_folder
from tests.runs import MakeRun

TRAIN = ("train", "drawn:40", "--preset", "tutorial", "--epochs", "1", "--quiet")


def commands(text: str) -> list[list[str]]:
    """Return the commands in the lines of an output that advise one, in order."""
    found = re.findall(r"cifarml [^\n]*?(?=   |\)\n|\)$|\n|$)", text)
    return [shlex.split(command)[1:] for command in found]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    Image.new("RGB", (32, 32), "red").save(path)
    return path


def run_all(cifarml: CommandLine, text: str, **settings: Any) -> list[str]:
    """Run all commands in a text; return their output."""
    outputs = []
    for command in commands(text):
        done = cifarml(*command, **settings)
        assert done.returncode == 0, (command, done.stderr)
        outputs.append(done.stdout + done.stderr)
    return outputs


@pytest.mark.usefixtures("image")
def test_advice_of_two_trainings(cifarml: CommandLine, tmp_path: Path) -> None:
    first = cifarml(*TRAIN, "--name", "first")
    next_line = first.stdout.splitlines()[-1]
    assert commands(next_line) == [["predict", "image.png"], ["deploy"]]
    try:
        _, deployed = run_all(cifarml, next_line)
        assert "registered the newest run, first, as cifar10:1" in deployed
        *_, query, _, tear_down = deployed.partition("Target:")[0].splitlines()
        run_all(cifarml, query)

        second = cifarml(*TRAIN, "--name", "second", "--seed", "1", "--runs-dir", "other runs")
        predict, champion, registration = second.stdout.splitlines()[-3:]
        assert champion.startswith("Champion: cifar10:1, from runs/first, trained on drawn:40, 10 classes")
        assert registration.startswith("This run is not registered. ")
        again = cifarml("deploy")
        assert champion in again.stderr
        assert "A newer run is not registered: other runs/second, trained on drawn:40." in again.stderr
        command = registration.partition("compare: ")[2]
        assert command == "cifarml models register 'other runs/second' --compare"
        assert command in again.stderr
        predicted, compared = run_all(cifarml, f"{predict}\n{registration}")
        assert "%" in predicted
        assert "registered second as cifar10:2 (challenger)" in compared
        assert "than cifar10:1" in compared
        assert "not registered" not in cifarml("deploy", "--dry-run").stderr
        run_all(cifarml, tear_down)
    finally:
        cifarml("endpoint", "delete", "cifar10")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    listed = cifarml("runs", "list", cwd=elsewhere)
    for name in ("runs/first", "other runs/second"):
        path = str(tmp_path / name)
        assert path in listed.stdout
        assert cifarml("predict", "../image.png", "--run", path, cwd=elsewhere).returncode == 0


@pytest.mark.usefixtures("image")
def test_advice_for_a_run_with_other_classes(cifarml: CommandLine, tmp_path: Path, trained: Run) -> None:
    LocalRegistry().register(trained)
    files = image_contents(f"{name}/{i}.png" for name in ("red", "blue") for i in range(20))
    write_folder(tmp_path / "My photos", files)
    done = cifarml("train", "My photos", "--preset", "tutorial", "--epochs", "1", "--name", "new", "--quiet")
    predict, champion, registration = done.stdout.splitlines()[-3:]
    assert champion.startswith("Champion: cifar10:1, ")
    assert "Its classes differ from those of cifar10:1" in registration
    _, registered = run_all(cifarml, f"{predict}\n{registration}")
    assert "registered new as my-photos:1 (champion)" in registered
    plan = cifarml(*commands(registered)[-1], "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "create endpoint my-photos" in plan.stdout
    assert "from runs/new" in plan.stderr
    assert f"trained on '{tmp_path / 'My photos'}', 2 classes" in plan.stderr


def test_register_compare(cifarml: CommandLine, make_run: MakeRun) -> None:
    LocalRegistry().register(make_run(1))
    second = make_run(2)
    unknown = cifarml("models", "register", second.path, "--compare")
    assert unknown.returncode == 1
    assert "does not record the source" in unknown.stderr
    done = cifarml("models", "register", second.path, "--compare", "--data", "drawn:40", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert '"comparison"' in done.stdout


def test_describe_model(tmp_path: Path, make_run: MakeRun) -> None:
    registry = Registry(tmp_path / "registry")
    run = make_run(1)
    assert str(run.path) in describe_model(registry.register(run))
