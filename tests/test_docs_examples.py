"""Examples in README.md and docs: commands parse, names exist, settings files load, guides run offline."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import tomllib
import zipfile
from pathlib import Path
from typing import Any, Final

import pytest
from PIL import Image
from typer.main import get_command

import cifarml
from cifarml.cli.main import app
from cifarml.data.save import save_images
from cifarml.progress import Progress

ROOT = Path(__file__).parents[1]
CLI_PAGE = ROOT / "docs" / "reference" / "cli.md"  # generated from the commands themselves
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if page != CLI_PAGE]
GUIDES = ROOT / "docs" / "guides"
OFFLINE = ("resume-and-tune", "own-images", "evaluate", "registry", "deploy")
"""Guides whose Python code needs no Azure, in an order in which each finds what it needs."""

SMALLER: Final = {
    'load_dataset("cifar10", subset=2000)': 'load_dataset("drawn:300")',
    'load_dataset("cifar10")': 'load_dataset("drawn:300")',
    'tune_model(TrainConfig(), dataset, "runs/tuning/first", time_budget_s=1800)': (
        'tune_model(TrainConfig(num_epochs=1), dataset, "runs/tuning/first", num_trials=1)'
    ),
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def command_lines() -> list[str]:
    """Every command to type, also within another one: ``$(cifarml ...)``."""
    found: set[str] = set()
    for page in PAGES:
        for block in blocks(page, "(?:console|sh|bash)"):
            text = re.sub(r"\\\n\s*", "", block)
            found |= {
                *re.findall(r"^\$ (cifarml .*)", text, re.M),
                *re.findall(r"\$\((cifarml [^)]*)\)", text),
            }
    return sorted(found)


def commands_in_text() -> list[str]:
    """Every command in the text of a page, such as `cifarml models promote --if-better`."""
    found: set[str] = set()
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        found |= {re.sub(r"\s+", " ", code) for code in re.findall(r"`(cifarml [^`]+)`", text)}
    return sorted(found)


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """Return a command and its arguments, after the flags of ``cifarml`` itself."""
    command: Any = get_command(app)
    own = {flag for parameter in command.params for flag in parameter.opts}
    while words and words[0] in own:
        words = words[1:]
    while words and (commands := getattr(command, "commands", None)):
        assert words[0] in commands, f"there is no command {words[0]}"
        command, words = commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("line", command_lines())
def test_command_lines_parse(line: str) -> None:
    words = [word for word in shlex.split(line, comments=True)[1:] if word not in {"--help", "-h"}]
    command, arguments = find_command(words)
    if not hasattr(command, "commands"):
        command.make_context(command.name, arguments)


@pytest.mark.parametrize("code", commands_in_text())
def test_commands_and_flags_in_text_exist(code: str) -> None:
    words = [word for word in shlex.split(code.replace("...", ""))[1:] if word not in {"--help", "-h"}]
    command, arguments = find_command(words)
    flags = {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
    assert {word for word in arguments if word.startswith("-")} <= flags


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_code_compiles_and_its_names_exist(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "cifarml":
                names = {alias.name for alias in node.names}
                module = importlib.import_module(str(node.module))
                assert names <= {*vars(module), *(cifarml.__all__ if module is cifarml else ())}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "cifarml" or node.attr in cifarml.__all__, node.attr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_toml_and_json_parse(page: Path) -> None:
    for block in blocks(page, "toml"):
        assert tomllib.loads(block)
    for block in blocks(page, "json"):
        assert json.loads(block)


class KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_python_code_of_guides_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On few drawings, with few epochs, and with an unfinished run to resume."""
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(save_images(cifarml.load_dataset("drawn:300"), "my_images.zip")) as archive:
        archive.extractall("my_images")
    for name in ("image.png", "new_photo.jpg"):
        Image.fromarray(cifarml.load_dataset("drawn:20").images[0]).save(name)
    (settings,) = blocks(GUIDES / "resume-and-tune.md", "toml")
    Path("settings.toml").write_text(settings, encoding="utf-8")

    def interrupt(progress: Progress) -> None:
        if progress.history:
            raise KilledError

    config = cifarml.TrainConfig(num_epochs=2)
    with pytest.raises(KilledError):
        cifarml.train_model(config, cifarml.load_dataset("my_images"), "runs/first", on_progress=interrupt)
    second = cifarml.train_model(config, cifarml.load_dataset("drawn:300"), "runs/second")
    host, replaced = cifarml.LocalHost(), set()
    try:
        for guide in OFFLINE:
            if guide == "deploy":  # so that there is something to roll back to
                cifarml.deploy_model(host, cifarml.LocalRegistry().register(second), canary_s=0)
            namespace: dict[str, Any] = {}
            for block in blocks(GUIDES / f"{guide}.md", "python"):
                code = block
                for old, new in SMALLER.items():
                    replaced |= {old} if old in code else set()
                    code = code.replace(old, new)
                exec(compile(code, f"{guide}.md", "exec"), namespace)
        assert host.get_endpoint("cifar10").traffic["v2"] == 100, "rolled back"
    finally:
        for endpoint in host.list_endpoints():
            host.delete(endpoint.name)
    assert replaced == SMALLER.keys()
