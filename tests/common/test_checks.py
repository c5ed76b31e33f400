"""Argument checks: what passes, and what the message says about what does not."""

import dataclasses
import pathlib
import re

import pytest

import keras_crossvit as kc
from keras_crossvit.common.checks import check_choice, check_local
from keras_crossvit.conversion import convert
from keras_crossvit.prediction import write_table
from keras_crossvit.recipes import RECIPES
from keras_crossvit.training import train


@pytest.mark.parametrize("value", ["avg", "max"])
def test_a_choice_is_returned(value):
    assert check_choice("pooling", value, {"avg", "max"}) == value


@pytest.mark.parametrize(
    ("value", "choices", "message"),
    [
        ("tokn", {"token", "avg"}, "'avg', 'token'. Received: x='tokn'. Did you mean 'token'?"),
        ("AVG", {"token", "avg"}, "'avg', 'token'. Received: x='AVG'"),
        (["avg"], {"token", "avg"}, "'avg', 'token'. Received: x=['avg']"),
        (3, {1, 2}, "1, 2. Received: x=3"),
        ("True", {True, False}, "False, True. Received: x='True'"),
    ],
)
def test_another_value_gets_the_choices_and_the_nearest(value, choices, message):
    with pytest.raises(ValueError, match=f"^`x` must be one of {re.escape(message)}$"):
        check_choice("x", value, choices)


@pytest.mark.parametrize("path", ["runs/mine", "/runs/mine", "C:/runs", "a:b/c", "gs:", "digits"])
def test_a_path_on_a_disk(path):
    assert check_local("folder", path) == pathlib.Path(path)


def test_a_path_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert check_local("folder", "~/runs/mine") == pathlib.Path("/home/me/runs/mine")


@pytest.mark.parametrize(
    "write",
    [
        lambda model, path: train(dataclasses.replace(RECIPES["digits"], output_dir=path)),
        lambda model, path: kc.export.export_saved_model(model, path),
        lambda model, path: kc.export.export_triton(model, path),
        lambda model, path: kc.export.export_onnx(model, path),
        lambda model, path: model.save_pretrained(path),
        lambda model, path: convert("model.safetensors", path),
        lambda model, path: write_table([], path),
    ],
)
@pytest.mark.parametrize("path", ["gs://bucket/mine", pathlib.Path("s3://bucket/mine")])
def test_nothing_is_written_to_a_bucket(write, path, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"` must be a path on a disk; .*Received: (gs|s3):/"):
        write(model, path)
    assert list(tmp_path.iterdir()) == []
