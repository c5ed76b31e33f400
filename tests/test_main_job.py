"""The main job, as `make train` does it: train on real images, export, classify a file."""

import csv
import json
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit.data.pipeline import evaluation_batches
from keras_crossvit.data.sources import open_source
from keras_crossvit.export import export_litert, export_openvino
from keras_crossvit.export.formats import top1

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run of the digits recipe: what it printed, and its folder (with a space)."""
    folder = tmp_path_factory.mktemp("main job")
    command = [sys.executable, str(ROOT / "recipes" / "train.py"), "--recipe", "digits"]
    command += ["--output-dir", str(folder / "run"), "--data-dir", str(folder / "data")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, folder / "run"


@pytest.mark.main_job
def test_accuracy_on_held_out_digits(run):
    output, _ = run
    accuracy = float(re.search(r"held-out accuracy: ([\d.]+)% top-1", output).group(1))
    assert accuracy >= 97  # on another processor rounding leads elsewhere, as another seed does


@pytest.mark.main_job
def test_savedmodel_classifies_a_picture_file(run):
    output, folder = run
    answer, score, truth = re.search(
        r"the SavedModel on .*held_out\.png: (\w+) \(([\d.]+)%\); it is (\w+)", output
    ).groups()
    assert answer == truth
    assert float(score) > 50
    assert (folder / "held_out.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "export" / "1" / "saved_model.pb").is_file()


@pytest.mark.main_job
def test_run_folder_holds_the_run(run):
    output, folder = run
    config = json.loads((folder / "config.json").read_text())
    assert config["model"] == "crossvit_digits"
    with open(folder / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(config["epochs"]))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "model.keras").is_file()
    assert list((folder / "tensorboard").rglob("events.out.*"))
    assert "Epoch 1/" in output  # the progress bar


@pytest.mark.main_job
def test_int8_keeps_the_accuracy(run):
    """`model.quantize("int8")` of the trained model: within one point of float32's top-1."""
    output, folder = run
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    source = open_source("digits", folder.parent / "data")
    batches = evaluation_batches(source.validation, 10, model.input_shape[1:3], 60, 1.0)
    labels = np.concatenate([one_hot.numpy().argmax(1) for _, one_hot, _ in batches])
    float32 = (model.predict(batches, verbose=0).argmax(1) == labels).mean()
    assert f"{float32:.2%} top-1" in output  # the saved model is the evaluated one
    model.quantize("int8")
    int8 = (model.predict(batches, verbose=0).argmax(1) == labels).mean()
    assert abs(int8 - float32) <= 0.01


@pytest.mark.main_job
def test_bfloat16_keeps_the_accuracy(run):
    """The same weights, cast once: within half a point of float32's top-1."""
    output, folder = run
    float32 = float(re.search(r"held-out accuracy: ([\d.]+)% top-1", output).group(1)) / 100
    keras.config.set_dtype_policy("bfloat16")
    config = kc.CrossViTConfig.preset("crossvit_digits")
    model = kc.CrossViT(config, weights=folder / "model.keras", classes=10)
    assert {v.dtype for v in model.trainable_variables} == {"bfloat16"}
    source = open_source("digits", folder.parent / "data")
    batches = evaluation_batches(source.validation, 10, model.input_shape[1:3], 60, 1.0)
    labels = np.concatenate([one_hot.numpy().argmax(1) for _, one_hot, _ in batches])
    bfloat16 = (model.predict(batches, verbose=0).argmax(1) == labels).mean()
    assert abs(bfloat16 - float32) <= 0.005


@pytest.mark.main_job
def test_int8_of_litert_keeps_the_accuracy(run, tmp_path):
    """LiteRT's int8, of weights alone and of activations too: within one point of float32."""
    output, folder = run
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    source = open_source("digits", folder.parent / "data")
    size = model.input_shape[1:3]
    held_out = evaluation_batches(source.validation, 10, size, 60, 1.0)
    samples = next(iter(evaluation_batches(source.train, 10, size, 300, 1.0)))[0].numpy()
    float32 = top1(export_litert(model, tmp_path / "float32.tflite"), held_out)
    assert f"{float32:.2%} top-1" in output
    for name, measured in (("weights", None), ("activations", samples)):
        path = tmp_path / f"{name}.tflite"
        int8 = top1(export_litert(model, path, int8=True, samples=measured), held_out)
        assert abs(int8 - float32) <= 0.01, name
        assert path.stat().st_size < 0.4 * (tmp_path / "float32.tflite").stat().st_size


@pytest.mark.main_job
def test_openvino_keeps_the_accuracy(run, tmp_path):
    """In float32, in bfloat16, and in int8 with 100 images: within one point of float32."""
    output, folder = run
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    source = open_source("digits", folder.parent / "data")
    size = model.input_shape[1:3]
    held_out = evaluation_batches(source.validation, 10, size, 60, 1.0)
    samples = next(iter(evaluation_batches(source.train, 10, size, 100, 1.0)))[0].numpy()
    exact = export_openvino(model, tmp_path / "float32.xml")
    small = export_openvino(model, tmp_path / "int8.xml", int8=True, samples=samples)
    float32 = top1(exact, held_out)
    assert f"{float32:.2%} top-1" in output
    for path, precision in ((exact, "bfloat16"), (small, "float32"), (small, "bfloat16")):
        assert abs(top1(path, held_out, precision) - float32) <= 0.01, (path.name, precision)
    weights = [path.with_suffix(".bin").stat().st_size for path in (small, exact)]
    assert weights[0] < 0.4 * weights[1]
