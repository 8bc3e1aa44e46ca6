"""Documentation: generated pages, links, commands and the notebook."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests import endpoint_docs
from tests.cli_docs import CLI_DOCS, render

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.slow
def test_cli_page_is_up_to_date() -> None:
    assert CLI_DOCS.read_text(encoding="utf-8") == render(), "regenerate it: python -m tests.cli_docs"


def test_endpoint_page_is_up_to_date() -> None:
    page = endpoint_docs.ENDPOINT_DOCS.read_text(encoding="utf-8")
    assert page == endpoint_docs.render(page), "regenerate it: python -m tests.endpoint_docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_point_to_existing_files(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mentioned_files_exist(page: Path) -> None:
    for name in re.findall(r"`((?:src|tests|docs)/[\w./]+)`", page.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name


def test_first_shell_blocks_are_single_lines_and_ci_runs_the_second() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first, second = re.findall(r"^```sh\n(.*?)^```", readme, re.M | re.S)[:2]
    assert first.count("\n") == second.count("\n") == 1
    assert "quickstart" in first
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert second in ci


def test_every_dependency_is_documented() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [
        *project["project"]["dependencies"],
        *(each for extra in project["project"]["optional-dependencies"].values() for each in extra),
        *(each for group in project["dependency-groups"].values() for each in group if isinstance(each, str)),
        *project["build-system"]["requires"],
    ]
    names = {re.split(r"[\[><=;]", each)[0] for each in wanted} - {"cifarml"}
    assert {name for name in names if not re.search(rf"`{name}(\[[a-z-]+\])?`", page)} == set()


def test_every_extra_is_documented() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {
        name for name in project["project"]["optional-dependencies"] if f"| `{name}` |" not in page
    } == set()


@pytest.mark.slow
def test_notebook_runs(tmp_path: Path) -> None:
    """Every cell runs in a new kernel and images are shown, with less data and fewer epochs."""
    text = (ROOT / "docs" / "quickstart.ipynb").read_text(encoding="utf-8")
    notebook: Any = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    assert not any(cell.get("outputs") for cell in notebook.cells), (
        "the notebook must be committed without outputs"
    )
    for old, new in (("num_epochs=10", "num_epochs=2"), ("drawn:1000", "drawn:300")):
        (cell,) = [each for each in notebook.cells if each.cell_type == "code" and old in each.source]
        cell.source = cell.source.replace(old, new)
    client = NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(shown) >= 4


@pytest.mark.slow
def test_repository_contains_no_data() -> None:
    """It contains no images, archives or models."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = done.stdout.splitlines()
    assert not [name for name in names if re.search(r"\.(zip|gz|jpe?g|npy|onnx|keras|h5)$", name)]
