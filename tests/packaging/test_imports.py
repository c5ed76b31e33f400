"""The package's rooms import each other one way, as the table in CONTRIBUTING.md says."""

import ast
import graphlib
import re

import pytest

from tests import base

PACKAGE = base.ROOT / "keras_crossvit"
ROWS = re.findall(
    r"^\| `(\w+)` \|(.*)\|$", (base.ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE
)
ALLOWED = {room: set(re.findall(r"`(\w+)`", others)) for room, others in ROWS}


def files_of(room):
    """The Python files of a room, which is a folder or one file."""
    file = PACKAGE / f"{room}.py"
    return [file] if file.is_file() else sorted((PACKAGE / room).rglob("*.py"))


def imported_rooms(path):
    """The rooms of the package that a file imports, also inside functions.

    A name that the package itself holds, as in `from keras_crossvit import presets`, counts as
    a room of that name, so that it is found in no row.
    """
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "keras_crossvit" and len(part) > 1}


def test_every_room_has_a_row():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert set(ALLOWED) == folders | files


def test_no_circles():
    order = list(graphlib.TopologicalSorter(ALLOWED).static_order())
    assert order[0] == "common"


@pytest.mark.parametrize("room", ALLOWED)
def test_room(room):
    files = files_of(room)
    assert files
    for path in files:
        surplus = imported_rooms(path) - ALLOWED[room] - {room}
        assert not surplus, f"{path.relative_to(base.ROOT)} imports {sorted(surplus)}"
