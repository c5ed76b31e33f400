"""The console script: what it says about its commands, and the environment they run in."""

import gc
import importlib
import os
import sys
import textwrap
import types

import pytest

import crossvit_command
from tests import base


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_help_says_what_each_command_does(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["crossvit", *arguments])
    crossvit_command.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:8]] == list(crossvit_command.COMMANDS)
    assert lines[4].endswith("classifies files and folders")


def test_unknown_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["crossvit", "tran"])
    with pytest.raises(SystemExit) as ended:
        crossvit_command.main()
    assert ended.value.code == 2
    allowed = "train, evaluate, predict, export, convert, demo"
    said = f"COMMAND must be one of {allowed}. Received: tran. Did you mean 'train'?\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("machine", "given", "expected"),
    [("x86_64", None, "1"), ("AMD64", None, "1"), ("x86_64", "0", "0"), ("aarch64", None, None)],
)
def test_commands_run_with_onednn_unless_the_user_says_otherwise(
    monkeypatch, machine, given, expected
):
    environment = {} if given is None else {"TF_ENABLE_ONEDNN_OPTS": given}
    monkeypatch.setattr("os.environ", environment)
    monkeypatch.setattr("platform.machine", lambda: machine)
    crossvit_command.set_environment()
    assert environment.pop("TF_CPP_MIN_LOG_LEVEL") == "3"
    assert environment.get("TF_ENABLE_ONEDNN_OPTS") == expected


def test_the_garbage_collector_leaves_alone_what_is_imported(monkeypatch):
    kept, found = [], {}

    def import_module(name):
        found["while importing"] = gc.isenabled()
        kept.extend([number] for number in range(1000))
        return types.SimpleNamespace(main=main)

    def main():
        found["later"] = gc.isenabled()
        found["left alone"] = gc.get_freeze_count()

    gc.freeze()
    before = gc.get_freeze_count()
    with monkeypatch.context() as patch:
        patch.setattr(importlib, "import_module", import_module)
        crossvit_command.run("train")
    assert (found["while importing"], found["later"]) == (False, True)
    assert found["left alone"] - before >= 1000


def test_what_is_printed_may_be_unreadable_and_unwanted(monkeypatch, tmp_path):
    """Letters that the output lacks are escaped, an error output may be closed, a pipe, too."""
    command = types.SimpleNamespace(main=lambda: print("\u8868.csv"))
    monkeypatch.setenv("KERAS_BACKEND", "")  # which is none, also to Keras
    nobody, pipe = os.pipe()
    os.close(nobody)
    with (
        open(tmp_path / "said", "w", encoding="cp1252") as page,
        open(pipe, "w", encoding="utf-8") as closed,
        monkeypatch.context() as patch,
    ):
        patch.setattr(importlib, "import_module", lambda name: command)
        patch.setattr(sys, "stderr", None)
        patch.setattr(sys, "stdout", page)
        crossvit_command.run("predict")
        patch.setattr(sys, "stdout", closed)
        with pytest.raises(SystemExit, match=r"^1$"):
            crossvit_command.run("predict")
    assert (tmp_path / "said").read_text() == "\\u8868.csv\n"


def test_no_file_is_opened_in_the_place_of_a_closed_stderr():
    """Or what TensorFlow's libraries say would be in that file."""
    code = """
        import os, sys
        import crossvit_command

        os.close(0), os.close(2)
        sys.stderr = None
        with crossvit_command._silence():
            pass
        print(*(os.path.samestat(os.fstat(n), os.stat(os.devnull)) for n in range(3)))
    """
    assert base.run_python(textwrap.dedent(code)) == "True False True\n"


def test_unknown_backend(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jaxx")
    with pytest.raises(SystemExit, match=r"^KERAS_BACKEND must be .* torch\. Received: jaxx$"):
        crossvit_command.run("train")


def test_a_backend_of_keras_own_configuration_that_is_not_installed(monkeypatch):
    """Which Keras reads from ~/.keras/keras.json while it is imported."""

    def import_module(name):
        raise ModuleNotFoundError(name="torch")

    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(importlib, "import_module", import_module)
        with pytest.raises(SystemExit, match=r"^torch is not installed: pip install"):
            crossvit_command.run("predict")


def test_a_command_that_cannot_be_imported_leaves_it_as_it_was(monkeypatch):
    def import_module(name):
        raise ModuleNotFoundError(name="tensorflow")

    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    with monkeypatch.context() as patch:
        patch.setattr(importlib, "import_module", import_module)
        with pytest.raises(SystemExit, match="tensorflow is not installed"):
            crossvit_command.run("train")
    assert gc.isenabled()
