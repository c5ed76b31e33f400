"""`recipes/benchmark.py`: its modes, and the commands that the pages give."""

import argparse
import importlib.util
import json
import re
import sys

import keras
import pytest

import keras_crossvit as kc
from keras_crossvit import benchmark
from tests import base
from tests.test_benchmark import cost, paper_row


@pytest.fixture
def recipe():
    path = base.ROOT / "recipes" / "benchmark.py"
    spec = importlib.util.spec_from_file_location("benchmark_recipe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(recipe, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, arguments)])
    recipe.main()


def test_command_infer(recipe, monkeypatch, tmp_path):
    written = tmp_path / "infer.json"
    options = ["--mode", "infer", "--batch-size", 2, "--repeats", 1, "--json", written]
    names = "deit_tiny@32,MobileNetV3Small@32"
    run(recipe, monkeypatch, *options, "--model", names)
    result = json.loads(written.read_text())
    assert [row["model"] for row in result["models"]] == names.split(",")
    for row in result["models"]:
        low, high = row["spread"]
        assert 0 < low <= row["images_per_second"] <= high
        assert row["input_size"] == [32, 32]
        assert row["parameters"] > 1e6

    figure = tmp_path / "speed.png"
    monkeypatch.setattr(benchmark, "paper_top1", lambda name: 72.2)
    run(recipe, monkeypatch, *options, "--model", "deit_tiny@32", "--figure", figure)
    result = json.loads(written.read_text())
    (row,) = result["models"]
    assert (result["mode"], row["model"], row["top1"]) == ("infer", "deit_tiny@32", 72.2)
    assert row["images_per_second"] > 0
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_command_summary_needs_no_model(recipe, monkeypatch, tmp_path, capsys):
    tables = benchmark.summarize(
        {9: ("A title", [paper_row("x", "2.0", "1.0")])}, lambda _: cost(10**6, 2 * 10**9)
    )
    monkeypatch.setattr(benchmark, "summarize", lambda: tables)
    page, written = tmp_path / "tables.md", tmp_path / "tables.json"
    run(recipe, monkeypatch, "--mode", "summary", "--markdown", page, "--json", written)
    assert page.read_text() == benchmark.to_markdown(tables)
    assert capsys.readouterr().out.startswith("## Table 9: A title")
    assert json.loads(written.read_text())["tables"] == json.loads(json.dumps(tables))


def test_commands_pass_on_what_the_command_line_says(recipe, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "make_model", lambda name: name)
    for mode in ("inference", "training", "first_step"):

        def compare(*args, mode=mode, **kwargs):
            return {"of": mode, "args": args, "kwargs": kwargs}

        monkeypatch.setattr(benchmark, f"compare_{mode}", compare)
    monkeypatch.setattr(
        "keras_crossvit.benchmark.serve.measure_serving", lambda model: {"served": model}
    )
    written = tmp_path / "figures.json"

    def result(mode, *options):
        run(recipe, monkeypatch, "--mode", mode, "--model", "x", "--json", written, *options)
        return json.loads(written.read_text())

    found = result("infer", "--precision", "bfloat16", "--repeats", 3)
    assert (found["of"], found["args"]) == ("inference", ["x", 16, "bfloat16", 3])
    assert found["kwargs"] == {"jit_compile": False}
    found = result("train", "--batch-size", 4, "--gradient-checkpointing")
    assert (found["of"], found["args"]) == ("training", ["x", 4, "float32", 5])
    assert found["kwargs"] == {"jit_compile": False, "gradient_checkpointing": True}
    found = result("first-step", "--jit-compile")
    assert (found["of"], found["kwargs"]) == ("first_step", {"jit_compile": True})
    assert result("serve")["served"] == "x"


@pytest.mark.parametrize("mode", ["infer", "train", "first-step", "serve"])
def test_command_asks_for_a_model(recipe, monkeypatch, capsys, mode):
    with pytest.raises(SystemExit):
        run(recipe, monkeypatch, "--mode", mode)
    assert f"--model is needed for --mode {mode}" in capsys.readouterr().err


def test_commands_of_the_pages_are_ones_that_the_recipe_takes(recipe, monkeypatch):
    """Those that measure long are run by hand, but every option that is written exists."""
    pages = [*(base.ROOT / "docs").glob("*.md"), base.ROOT / "recipes" / "benchmark.py"]
    commands = []
    for page in pages:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        commands += re.findall(r"python recipes/benchmark\.py ([^`\n]*)", text)
    assert len(commands) >= 5
    for command in commands:
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *command.split()])
        arguments = recipe._parse()
        assert isinstance(arguments, argparse.Namespace)
        for name in (arguments.model or "crossvit_9").split(","):
            name = name.partition("@")[0]
            assert name in kc.presets() or hasattr(keras.applications, name), name
