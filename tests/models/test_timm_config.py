"""Folders that timm reads, and folders that timm wrote."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import keras_crossvit as kc
from tests import base, reference


def model_of(preset, size, **arguments):
    config = kc.CrossViTConfig.preset(preset)
    arguments = {"weights": None, "input_shape": (*size, 3), **arguments}
    return reference.randomize(kc.CrossViT(config, **arguments), scale=0.1)


def config_of(model, folder):
    model.save_pretrained(folder)
    return json.loads((folder / "config.json").read_text())


# What timm multiplies the sides by: the middle of the scales that give, rounded down, what this
# package's branches see, e.g. 228 and 224 pixels of 224.
OF_224 = [(228 / 224 + 229 / 224) / 2, (224 / 224 + 225 / 224) / 2]
OF_400 = [(396 / 400 + 397 / 400) / 2, (384 / 400 + 385 / 400) / 2]
HEADLESS = {"include_top": False}


@pytest.mark.parametrize(
    ("preset", "size", "arguments", "name", "given"),
    [
        ("crossvit_9", (240, 240), {}, "crossvit_9_240", {}),
        ("crossvit_9", (224, 224), {}, "crossvit_9_240", {"img_scale": OF_224}),
        ("crossvit_9_dagger", (480, 240), {}, "crossvit_9_dagger_240", {}),
        ("crossvit_15_dagger", (408, 408), {}, "crossvit_15_dagger_408", {}),
        ("crossvit_15_dagger", (400, 400), {}, "crossvit_15_dagger_408", {"img_scale": OF_400}),
        ("crossvit_9", (240, 240), HEADLESS, "crossvit_9_240", {}),
        (
            *("crossvit_9", (240, 240), {**HEADLESS, "pooling": "avg"}),
            *("crossvit_9_240", {"global_pool": "avg"}),
        ),
        ("deit_tiny", (96, 128), {}, "deit_tiny_patch16_224", {}),
        (
            *("deit_tiny", (96, 96), {**HEADLESS, "pooling": "max"}),
            *("deit_tiny_patch16_224", {"global_pool": "max", "fc_norm": False}),
        ),
        # Not to be built in timm, which does not know these names: sides of which no scale gives
        # what the branches see, features that timm lacks, two inputs, an architecture of ours.
        ("crossvit_9", (224, 256), {}, "crossvit_9", {}),
        ("deit_tiny", (97, 130), {}, "deit_tiny", {}),
        ("crossvit_9", (240, 240), {**HEADLESS, "pooling": "max"}, "crossvit_9", {}),
        ("crossvit_9", (240, 240), {"inputs": "separate"}, "crossvit_9", {}),
        ("crossvit_digits", (48, 48), {}, "crossvit_digits", {}),
    ],
)
def test_what_timm_is_told(preset, size, arguments, name, given, tmp_path):
    config = config_of(model_of(preset, size, **arguments), tmp_path)
    assert config["architecture"] == name
    assert config["model_args"] == given
    assert config["pretrained_cfg"]["input_size"] == [3, *size]
    card = (tmp_path / "README.md").read_text()
    assert (f"| timm | {name} |" if "_2" in name or "_4" in name else "| timm | no ") in card


def test_first_layers(tmp_path):
    for preset, first in (
        ("crossvit_9", ["patch_embed.0.proj", "patch_embed.1.proj"]),
        ("crossvit_9_dagger", ["patch_embed.0.proj.0", "patch_embed.1.proj.0"]),
        ("deit_tiny", "patch_embed.proj"),
    ):
        config = config_of(model_of(preset, (48, 48)), tmp_path / preset)
        assert config["pretrained_cfg"]["first_conv"] == first


TIMM = """
import sys
try:
    import timm, torch
except Exception as error:
    print("skip: timm cannot be imported:", error)
    sys.exit()
import numpy as np
model = timm.create_model("local-dir:" + sys.argv[1], pretrained=True).eval()
with torch.no_grad():
    answers = model(torch.from_numpy(np.load(sys.argv[2]).transpose(0, 3, 1, 2).copy()))
np.save(sys.argv[3], answers.numpy())
"""


@pytest.mark.parametrize(
    ("preset", "size", "arguments"),
    [
        ("crossvit_9", (112, 112), {}),
        ("crossvit_9_dagger", (100, 100), {**HEADLESS, "pooling": "avg"}),
        ("deit_tiny", (32, 48), {**HEADLESS, "pooling": "max"}),
    ],
)
def test_timm_answers_the_same(preset, size, arguments, tmp_path):
    arguments |= {"include_preprocessing": False, "classifier_activation": None}
    model = model_of(preset, size, **arguments)
    model.save_pretrained(tmp_path / "model")
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
    np.save(tmp_path / "x.npy", images)
    printed = base.run_python(TIMM, tmp_path / "model", tmp_path / "x.npy", tmp_path / "y.npy")
    if printed.startswith("skip"):
        pytest.skip(printed)
    theirs = np.load(tmp_path / "y.npy")
    np.testing.assert_allclose(model(images), theirs, atol=2e-5, rtol=0)


def test_a_folder_that_timm_wrote(tmp_path):
    """The keys of timm's `save_for_hf`, with the architecture and without ours."""
    model = kc.CrossViT9(weights=None, classes=2)
    kc.save_checkpoint(model, tmp_path / "model.safetensors")
    config = {
        "architecture": "crossvit_9_240",
        "num_classes": 2,
        "num_features": 384,
        "pretrained_cfg": {
            "input_size": [3, 240, 240],
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
        },
        "label_names": ["no", "yes"],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    again = kc.from_pretrained(tmp_path)
    assert again.labels == ("no", "yes")
    assert again.mean == (0.5, 0.5, 0.5)
    assert again.name == "crossvit_9"
    for ours, theirs in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_folder_of_timm_that_is_not_square(tmp_path):
    """Timm gives 120 x 480 pixels 10 x 40 and 7 x 28 patches, whose numbers are squares."""
    model = model_of("crossvit_9", (120, 480))
    assert model.grids == {"small": (10, 40), "large": (7, 28)}
    config = config_of(model, tmp_path)
    del config["keras_crossvit"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = tmp_path / "model.safetensors"
    save_file(load_file(weights), weights, metadata={"format": "pt"})
    again = kc.from_pretrained(tmp_path)
    assert again.input_shape == (None, 120, 480, 3)
    for ours, theirs in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
