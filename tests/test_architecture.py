"""The floor plan: what may import what, and how large files and folders may grow."""

from __future__ import annotations

import ast
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import cifarml

PACKAGE = Path(cifarml.__file__).parent

FLOORS = (
    {"errors", "cifar10", "progress", "config_files"},
    {"settings", "images", "hardware", "model", "cloud_errors", "extras"},
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
"""Rooms of the package from the ground up. A room imports from lower floors, or from its neighbours."""

LARGEST_FILE = 320
MOST_FILES = 20


def find_imports() -> dict[str, set[str]]:
    """Return the modules of the package that each module imports, at its top or in a function."""
    paths = {
        ".".join(("cifarml", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in PACKAGE.rglob("*.py")
    }
    del paths["cifarml"]  # the table of public names leads everywhere, and is followed only when it is asked
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


def room_of(module: str) -> str:
    return module.split(".")[1]


def floor_of(module: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room_of(module) in rooms)


def test_every_room_has_a_floor() -> None:
    assert Counter(room for rooms in FLOORS for room in rooms) == Counter(set(map(room_of, IMPORTS)))


def test_nothing_imports_from_a_higher_floor() -> None:
    upwards = [
        f"{module} imports {each}"
        for module, names in IMPORTS.items()
        for each in names
        if floor_of(each) > floor_of(module)
    ]
    assert not upwards, "\n".join(upwards)


@pytest.mark.parametrize("level", ["module", "room"])
def test_no_import_cycle(level: str) -> None:
    graph: dict[str, set[str]] = {}
    for module, names in IMPORTS.items():
        if level == "module":
            graph[module] = names
        else:
            graph.setdefault(room_of(module), set()).update(
                {room_of(each) for each in names} - {room_of(module)}
            )
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_public_api_is_listed_once() -> None:
    """In ``cifarml/__init__.pyi``: no module has an ``__all__``."""
    for path in PACKAGE.rglob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Name)}
        assert "__all__" not in names, path


def test_files_and_folders_stay_small() -> None:
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert not {path.name: size for path, size in sizes.items() if size > LARGEST_FILE}
    assert not {path.name: n for path, n in Counter(path.parent for path in sizes).items() if n > MOST_FILES}
