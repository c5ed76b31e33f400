"""Imports between the lower rooms: data builds on common alone, and common on nothing."""

import ast
import pathlib

import pytest

import keras_crossvit

PACKAGE = pathlib.Path(keras_crossvit.__file__).parent


def imported(path):
    """The modules of this package that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports by their whole names only"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "keras_crossvit")


@pytest.mark.parametrize(
    ("room", "allowed"), [("common", set()), ("data", {"common", "data"})], ids=["common", "data"]
)
def test_rooms_import_only_what_they_stand_on(room, allowed):
    files = [*(PACKAGE / room).rglob("*.py")]
    found = {name.split(".")[1] for path in files for name in imported(path)}
    assert found <= allowed | {room}
    assert len(files) > 3
    if allowed:
        assert found == allowed  # the files are really read


def test_one_file_imports_kerascv():
    files = []
    for path in PACKAGE.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = {
            alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
        }
        if "keras_cv" in names or "from keras_cv" in path.read_text(encoding="utf-8"):
            files.append(path.relative_to(PACKAGE).as_posix())
    assert files == ["data/augment/kerascv_layers.py"]
