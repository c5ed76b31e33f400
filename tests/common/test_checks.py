"""Argument checks: what passes, and what the message says about what does not."""

import dataclasses
import enum
import pathlib
import re

import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit.common.checks import (
    check_choice,
    check_folder,
    check_local,
    check_not_negative,
    check_not_negative_int,
    check_positive,
    check_positive_int,
    check_rate,
)
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


@pytest.mark.parametrize(
    ("check", "value", "plain"),
    [
        (check_positive_int, np.int64(3), 3),
        (check_not_negative_int, np.uint8(0), 0),
        (check_positive, np.float32(0.5), 0.5),
        (check_not_negative, np.float64(0.0), 0.0),
        (check_rate, np.float32(0.25), 0.25),
    ],
)
def test_a_number_of_numpy_becomes_one_of_python(check, value, plain):
    found = check("x", value)
    assert (type(found), found) == (type(plain), plain)


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (check_positive_int, np.int64(0)),
        (check_positive_int, np.float32(1.0)),
        (check_positive_int, np.bool_(True)),
        (check_not_negative_int, np.int8(-1)),
        (check_positive, np.float32("nan")),
        (check_not_negative, np.bool_(False)),
        (check_rate, np.float64(1.0)),
    ],
)
def test_a_number_of_numpy_outside_the_range(check, value):
    with pytest.raises(ValueError, match=f"^`x` must be .* Received: x={value.item()}$"):
        check("x", value)


@pytest.mark.parametrize("path", ["runs/mine", "/runs/mine", "C:/runs", "a:b/c", "gs:", "digits"])
def test_a_path_on_a_disk(path):
    assert check_local("folder", path) == pathlib.Path(path)


def test_a_path_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert check_local("folder", "~/runs/mine") == pathlib.Path("/home/me/runs/mine")
    assert check_local("folder", "~nobody-here/mine") == pathlib.Path("~nobody-here/mine")


@pytest.mark.parametrize(
    "write",
    [
        lambda model, path: train(dataclasses.replace(RECIPES["digits"], output_dir=path)),
        lambda model, path: kc.export.export_saved_model(model, path),
        lambda model, path: kc.export.export_triton(model, path),
        lambda model, path: kc.export.export_onnx(model, path),
        lambda model, path: model.save_pretrained(path),
        lambda model, path: kc.save_checkpoint(model, path),
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


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("file", "which is a file"),
        ("file/run", "where file is a file"),
        ("link", "which is a broken link"),
        ("link/a/b", "where link is a broken link"),
    ],
)
def test_where_no_folder_can_be_made(path, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("file").write_text("")
    pathlib.Path("link").symlink_to("nowhere")
    message = f"`output_dir` must be a folder. Received: {path}, {reason}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_folder("output_dir", path)
    pathlib.Path("folder").mkdir()
    pathlib.Path("to").symlink_to("folder")
    for fine in ("folder", "to", "to/new", "new/newer", ".", tmp_path / "new"):
        assert check_folder("output_dir", fine) == pathlib.Path(fine)


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    message = f"`output_dir` must be .* Received: {tmp_path / 'new'}, and {tmp_path} cannot be"
    with pytest.raises(PermissionError, match=message):
        check_folder("output_dir", tmp_path / "new")
    assert check_folder("output_dir", tmp_path / "new", writes=False) == tmp_path / "new"


def test_a_drive_that_is_not_there(monkeypatch):
    monkeypatch.setattr("os.path.lexists", lambda path: False)
    with pytest.raises(ValueError, match=r"^`output_dir` must .*: a/b, no part of which exists$"):
        check_folder("output_dir", "a/b")


def test_a_text_of_another_kind_is_a_choice():
    class Loss(enum.StrEnum):
        SOFTMAX = "softmax"

    assert type(check_choice("loss", Loss.SOFTMAX, {"softmax"})) is str
    assert check_choice("resume", np.bool_(True), {True, False}) is True


@pytest.mark.parametrize("value", [True, 1.0, "1"])
def test_what_only_equals_a_choice_is_none(value):
    assert check_choice("stages", np.int64(1), range(3)) == 1
    with pytest.raises(ValueError, match=f"`stages` must be one of 0, 1, 2. .*stages={value!r}"):
        check_choice("stages", value, range(3))
