"""The package needs nothing that Python has only on Linux."""

import ast
import pathlib

import pytest

import keras_crossvit

FILES = sorted(pathlib.Path(keras_crossvit.__file__).parent.rglob("*.py"))
NOT_ON_WINDOWS = {
    *("fcntl", "grp", "posix", "pwd", "pty", "resource", "termios"),
    *("os.fork", "os.pread", "os.pwrite", "os.sched_getaffinity", "os.uname", "signal.SIGKILL"),
}


def used(path):
    """The modules that a file imports, and what it takes from `os` and `signal`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("name", ["import fcntl", "from os import pread", "signal.SIGKILL"])
def test_what_is_looked_for_is_found(name, tmp_path):
    (tmp_path / "x.py").write_text(name)
    assert NOT_ON_WINDOWS & set(used(tmp_path / "x.py"))


def test_every_file_runs_on_windows():
    found = {path.name: NOT_ON_WINDOWS & set(used(path)) for path in FILES}
    assert {name: names for name, names in found.items() if names} == {
        "pipeline.py": {"os.sched_getaffinity"},  # where `os` has it
        # It kills one of a run's several processes, which TensorFlow and JAX lack on Windows.
        "waiting.py": {"signal.SIGKILL"},
    }
