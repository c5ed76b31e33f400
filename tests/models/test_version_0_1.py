"""Files that version 0.1 wrote (`tests/data/README.md` says how)."""

import json
import pathlib
import zipfile

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit.models.legacy import ModelOfVersion01

FILES = pathlib.Path(__file__).parents[1] / "data" / "version_0_1.zip"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("version_0_1")
    with zipfile.ZipFile(FILES) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def outputs(folder):
    with np.load(folder / "outputs.npz") as file:
        return dict(file)


def test_model_of_two_branches(folder, outputs):
    model = keras.saving.load_model(folder / "two_branches.keras", safe_mode=True)
    assert type(model) is kc.CrossViT
    assert model.name == "two_branches"
    assert (model.config.patch_embed, model.config.num_stages) == ("conv", 2)
    assert (model.config.small.embed_dim, model.config.large.mlp_ratio) == (8, 1.5)
    assert (model.classes, model.drop_rate, model.drop_path_rate) == (4, 0.2, 0.1)
    assert model.grids == {"small": (2, 3), "large": (2, 3)}
    assert [layer.name for layer in model.layers if not layer.trainable] == ["small_patch_embed"]
    images = outputs["images"].astype("float32")
    np.testing.assert_allclose(model(images), outputs["two_branches"], atol=1e-6)


@pytest.mark.parametrize("pooling", ["avg", "max", "token", None])
def test_model_without_a_top(pooling, folder):
    with zipfile.ZipFile(folder / "two_branches.keras") as file:
        config = json.loads(file.read("config.json"))["config"]
    top = ("_dropout", "_head", "logits", "predictions")
    layers = [layer for layer in config["layers"] if not layer["name"].endswith(top)]
    for layer in layers:
        if layer["name"].endswith("_pool"):
            layer["config"]["mode"] = pooling
    if pooling is not None:
        layers.append({"name": "features", "class_name": "Concatenate", "config": {}})
    model = ModelOfVersion01.from_config({**config, "layers": layers})
    assert (model.include_top, model.pooling) == (False, pooling)


def test_weights_file(folder, outputs):
    model = keras.saving.load_model(folder / "two_branches.keras")
    fresh = kc.CrossViT.from_config(model.get_config())
    fresh.load_weights(folder / "two_branches.weights.h5")
    images = outputs["images"].astype("float32")
    np.testing.assert_allclose(fresh(images), outputs["two_branches"], atol=1e-6)


def test_model_of_one_branch_in_mixed_precision(folder, outputs):
    model = keras.saving.load_model(folder / "one_branch.keras")
    assert type(model) is kc.CrossViT
    assert list(model.branches) == ["large"]
    assert model.stages[0].dtype_policy.name == "mixed_bfloat16"
    assert not model.include_preprocessing
    images = outputs["images"][:, :, :32][:, :24].repeat(2, 1)[:, :32] / np.float32(255)
    np.testing.assert_allclose(model(images), outputs["one_branch"], atol=2e-2)


def test_model_on_a_tensor_stays_a_functional_model(folder, outputs):
    model = keras.saving.load_model(folder / "input_tensor.keras")
    images = np.resize(outputs["images"], (2, 16, 40, 3)).astype("float32")
    np.testing.assert_allclose(model(images), outputs["input_tensor"], atol=1e-6)
