"""Layering of the package: allowed imports, and sizes of files and folders."""

from __future__ import annotations

import ast
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import cifarml

PACKAGE = Path(cifarml.__file__).parent

LAYERS = (
    {"errors", "cifar10", "progress", "paths", "locks", "config_files", "network_checks"},
    {"settings", "environment", "images", "imaging", "hardware", "model", "cloud_errors", "extras"},
    {"predict"},
    {"run", "run_folders", "data"},
    {"evaluation", "scoring"},
    {"report"},
    {"explain", "train", "serve"},
    {"tune", "azure"},
    {"registry"},
    {"deploy"},
    {"doctor"},
    {"cli"},
    {"__main__"},
)
"""Layers of the package, lowest first. A module imports from its own layer or lower ones."""

MAX_LINES_PER_FILE = 320
MAX_FILES_PER_FOLDER = 20


def find_imports() -> dict[str, set[str]]:
    """Return the modules of the package that each module imports, at the top level or in functions."""
    paths = {
        ".".join(("cifarml", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in PACKAGE.rglob("*.py")
    }
    del paths["cifarml"]  # it imports public names lazily from everywhere
    found: dict[str, set[str]] = {}
    for module, path in paths.items():
        names = found[module] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names.update({node.module, *(f"{node.module}.{each.name}" for each in node.names)})
            elif isinstance(node, ast.Import):
                names.update(each.name for each in node.names)
        names &= paths.keys() - {module}
    return found


IMPORTS = find_imports()


def package_of(module: str) -> str:
    return module.split(".")[1]


def layer_of(module: str) -> int:
    return next(number for number, packages in enumerate(LAYERS) if package_of(module) in packages)


def test_every_package_has_a_layer() -> None:
    assert Counter(each for layer in LAYERS for each in layer) == Counter(set(map(package_of, IMPORTS)))


def test_no_module_imports_from_a_higher_layer() -> None:
    upwards = [
        f"{module} imports {each}"
        for module, names in IMPORTS.items()
        for each in names
        if layer_of(each) > layer_of(module)
    ]
    assert not upwards, "\n".join(upwards)


@pytest.mark.parametrize("level", ["module", "package"])
def test_no_import_cycle(level: str) -> None:
    graph: dict[str, set[str]] = {}
    for module, names in IMPORTS.items():
        if level == "module":
            graph[module] = names
        else:
            graph.setdefault(package_of(module), set()).update(
                {package_of(each) for each in names} - {package_of(module)}
            )
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_public_api_is_listed_once() -> None:
    """It is listed in ``cifarml/__init__.pyi``, so no module has an ``__all__``."""
    for path in PACKAGE.rglob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Name)}
        assert "__all__" not in names, path


def test_files_and_folders_stay_small() -> None:
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert not {path.name: size for path, size in sizes.items() if size > MAX_LINES_PER_FILE}
    assert not {
        path.name: n for path, n in Counter(path.parent for path in sizes).items() if n > MAX_FILES_PER_FOLDER
    }
