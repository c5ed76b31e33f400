"""`recipes/benchmark.py`: its modes, and the commands that the pages give."""

import argparse
import functools
import json
import os
import re
import shlex
import subprocess
import sys

import keras
import pytest

import benchmark as command
import keras_crossvit as kc
from benchmarks import compare, figure1, input, models, paper, scale, serving, tables
from tests import base
from tests.benchmarks.rows import cost, paper_row


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, arguments)])
    command.main()


def test_command_infer(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "make_model", functools.cache(models.make_model))
    written = tmp_path / "infer.json"
    options = ["--mode", "infer", "--batch-size", 2, "--repeats", 1, "--json", written]
    names = "deit_tiny@32,MobileNet@32"
    run(monkeypatch, *options, "--model", names)
    result = json.loads(written.read_text())
    assert [row["model"] for row in result["models"]] == names.split(",")
    for row in result["models"]:
        low, high = row["spread"]
        assert 0 < low <= row["images_per_second"] <= high
        assert row["input_size"] == [32, 32]
        assert row["parameters"] > 1e6

    figure = tmp_path / "speed.png"
    monkeypatch.setattr(paper, "paper_top1", lambda name: 72.2)
    run(monkeypatch, *options, "--model", "deit_tiny@32", "--figure", figure)
    result = json.loads(written.read_text())
    (row,) = result["models"]
    assert (result["mode"], row["model"], row["top1"]) == ("infer", "deit_tiny@32", 72.2)
    assert row["images_per_second"] > 0
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_command_summary_needs_no_model(monkeypatch, tmp_path, capsys):
    counted = tables.summarize(
        {9: ("A title", [paper_row("x", "2.0", "1.0")])}, lambda _: cost(10**6, 2 * 10**9)
    )
    monkeypatch.setattr(tables, "summarize", lambda: counted)
    page, written = tmp_path / "tables.md", tmp_path / "tables.json"
    run(monkeypatch, "--mode", "summary", "--markdown", page, "--json", written)
    assert page.read_text() == tables.to_markdown(counted)
    assert capsys.readouterr().out.startswith("## Table 9: A title")
    assert json.loads(written.read_text())["tables"] == json.loads(json.dumps(counted))


def test_commands_pass_on_what_the_command_line_says(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "make_model", lambda name: name)
    for mode in ("inference", "training", "first_step"):

        def known(*args, mode=mode, **kwargs):
            return {"of": mode, "args": args, "kwargs": kwargs}

        monkeypatch.setattr(compare, f"compare_{mode}", known)
    monkeypatch.setattr(serving, "measure_serving", lambda model: {"served": model})
    monkeypatch.setattr(input, "measure_input", lambda repeats: {"turns": repeats})
    written = tmp_path / "figures.json"

    def result(mode, *options, model=("--model", "x")):
        run(monkeypatch, "--mode", mode, *model, "--json", written, *options)
        return json.loads(written.read_text())

    found = result("infer", "--precision", "bfloat16", "--repeats", 3)
    assert (found["of"], found["args"]) == ("inference", ["x", 16, "bfloat16", 3])
    assert found["kwargs"] == {"jit_compile": False, "engine": "tensorflow"}
    found = result("train", "--batch-size", 4, "--gradient-checkpointing", "--engine", "jax")
    assert (found["of"], found["args"]) == ("training", ["x", 4, "float32", 5])
    options = {"jit_compile": False, "gradient_checkpointing": True, "engine": "jax"}
    assert found["kwargs"] == options
    found = result("first-step", "--jit-compile")
    assert found["of"] == "first_step"
    assert found["kwargs"] == {"jit_compile": True, "engine": "tensorflow"}
    assert result("serve")["served"] == "x"
    assert result("input", "--repeats", 9)["turns"] == 9
    monkeypatch.setattr(scale, "measure_scale", lambda *numbers: {"numbers": numbers})
    monkeypatch.setattr(scale, "to_markdown", lambda figures: str(figures["numbers"]))
    found = result("scale", "--records", 500, "--workers", 4, model=())
    assert found["numbers"] == [500, 4]


@pytest.mark.parametrize(
    ("options", "used"),
    [
        ("summary --model x", {"markdown": None}),
        ("input --model x --batch-size 16", {"repeats": 5}),
        ("scale --records 9", {"records": 9, "workers": 8}),
        ("serve --model x --precision bfloat16", {"model": "x", "precision": "bfloat16"}),
        (
            "infer --model x,y --batch-size 2",
            {
                "model": "x,y",
                "batch_size": 2,
                "repeats": 5,
                "precision": "float32",
                "figure": None,
            },
        ),
        (
            "first-step --model x --repeats 3 --engine jax --jit-compile",
            {"model": "x", "batch_size": 16, "repeats": 3, "precision": "float32"}
            | {"jit_compile": True, "engine": "jax"},
        ),
    ],
)
def test_only_what_a_mode_uses_is_written(monkeypatch, tmp_path, options, used):
    mode, written = options.split()[0], tmp_path / "figures.json"
    monkeypatch.setitem(command.MODES, mode, lambda arguments: {"found": 1})
    run(monkeypatch, "--mode", *options.split(), "--json", written)
    expected = {"mode": mode, **used, "json": str(written), "found": 1}
    assert json.loads(written.read_text()) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("infer --model x,y --precision int8", "--precision int8 is for --engine openvino."),
        ("serve --model x --precision int8", "openvino. Received: --engine tensorflow"),
        ("infer --model x --precision int8 --engine jax", "openvino. Received: --engine jax"),
        (
            "infer --model x,y --jit-compile",
            "--jit-compile is for --mode infer, train, first-step. "
            "Received: --mode infer with several models or --figure",
        ),
        (
            "infer --model x --figure f --engine jax",
            "--engine is for --mode infer, train, first-step. "
            "Received: --mode infer with several models or --figure",
        ),
        ("serve --model x --engine jax", "infer, train, first-step. Received: --mode serve"),
        ("serve --model x --repeats 9", "train, first-step, input. Received: --mode serve"),
        (
            "serve --model x --batch-size 64",
            "--batch-size is for --mode infer, train, first-step.",
        ),
        ("infer --model x --gradient-checkpointing", "for --mode train. Received: --mode infer"),
        (
            "infer --model x --markdown f",
            "--markdown is for --mode summary. Received: --mode infer",
        ),
        ("train --model x --figure f", "--figure is for --mode infer. Received: --mode train"),
        ("first-step --model x --records 5", "is for --mode scale. Received: --mode first-step"),
        ("train --model x --workers 2", "--workers is for --mode scale. Received: --mode train"),
        ("summary --precision bfloat16", "train, first-step, serve. Received: --mode summary"),
        ("input --precision bfloat16", "train, first-step, serve. Received: --mode input"),
        ("scale --model x", "--model is for --mode infer, train, first-step, serve. Received:"),
    ],
)
def test_command_refuses_what_it_would_ignore(monkeypatch, capsys, options, message):
    monkeypatch.setitem(command.MODES, options.split()[0], None)
    with pytest.raises(SystemExit):
        run(monkeypatch, "--mode", *options.split())
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "summary --json {}/no/x",
            "--json must be a file in an existing folder. Received: {}/no/x",
        ),
        ("summary --json {}", "--json must be a file in an existing folder. Received: {}"),
        ("summary --markdown {}/no/x", "--markdown must be a file in an existing folder. "),
        (
            "infer --model deit_tiny --figure {}/no/x.png",
            "--figure must be a file in an existing folder. Received: {}/no/x.png",
        ),
        (
            "infer --model MobileNet,crossvit_digits --figure {}/x.png",
            "--figure needs a --model whose accuracy the paper gives. "
            "Received: --model MobileNet,crossvit_digits",
        ),
    ],
)
def test_command_measures_nothing_that_it_could_not_write(
    monkeypatch, capsys, tmp_path, options, message
):
    for mode in ("summary", "infer"):
        monkeypatch.setitem(command.MODES, mode, None)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--mode", *options.format(tmp_path).split())
    assert ended.value.code == 2
    assert message.format(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize("error", [OSError("full"), ImportError("matplotlib"), ValueError("PNG")])
def test_a_figure_that_fails_costs_no_measurement(monkeypatch, tmp_path, error):
    def fails(rows, path):
        assert (rows, path) == ([{"model": "deit_tiny"}], str(tmp_path / "x.png"))
        raise error

    monkeypatch.setattr(figure1, "plot_speed", fails)
    measured = {"models": [{"model": "deit_tiny"}]}
    monkeypatch.setitem(command.MODES, "infer", lambda arguments: measured)
    written = tmp_path / "infer.json"
    options = ["--model", "deit_tiny", "--json", written, "--figure", tmp_path / "x.png"]
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--mode", "infer", *options)
    assert ended.value.code == f"{type(error).__name__}: {error}"
    assert json.loads(written.read_text())["models"] == measured["models"]


def test_gpus_are_hidden_from_all_that_is_measured():
    """In a process of its own, as they are hidden from this one anyway."""
    code = """
import benchmark
from benchmarks.turns import worker
from tests.benchmarks import processes

with worker(processes.devices) as turn:
    print(turn("variables"))
"""
    own = {"CUDA_VISIBLE_DEVICES": "0", "JAX_PLATFORMS": "cuda", "KERAS_TORCH_DEVICE": "cuda"}
    own["PYTHONPATH"] = os.pathsep.join([str(base.ROOT), str(base.ROOT / "recipes")])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | own, check=True, capture_output=True
    )
    assert done.stdout.split() == [b"['-1',", b"'cpu',", b"'cpu']"]


@pytest.mark.parametrize("mode", ["infer", "train", "first-step", "serve"])
def test_command_asks_for_a_model(monkeypatch, capsys, mode):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--mode", mode)
    assert f"--model is needed for --mode {mode}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--batch-size", "0", "--batch-size must be positive. Received: 0"),
        ("--repeats", "0", "--repeats must be positive. Received: 0"),
        ("--records", "-1", "--records must be positive. Received: -1"),
        ("--workers", "0", "--workers must be positive. Received: 0"),
        ("--precision", "foo", "argument --precision: invalid choice: 'foo' (choose from"),
    ],
)
def test_command_refuses_what_it_cannot_measure_with(monkeypatch, capsys, option, value, message):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--mode", "infer", "--model", "crossvit_9", option, value)
    assert message in capsys.readouterr().err


def test_commands_of_the_pages_are_ones_that_the_recipe_takes(monkeypatch):
    """Those that take long are run by hand, but every option written exists."""
    pages = [*(base.ROOT / "docs").glob("*.md"), base.ROOT / "recipes" / "benchmark.py"]
    written = []
    for page in pages:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        written += re.findall(r"python recipes/benchmark\.py ([^`\n]*)", text)
    assert len(written) >= 5
    for line in written:
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *shlex.split(line, comments=True)])
        arguments = command._parse()
        assert isinstance(arguments, argparse.Namespace)
        for name in (arguments.model or "crossvit_9").split(","):
            name = name.partition("@")[0]
            assert name in kc.presets() or hasattr(keras.applications, name), name
