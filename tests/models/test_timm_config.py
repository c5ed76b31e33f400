"""Folders that timm reads, and folders that timm wrote."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import keras_crossvit as kc
from keras_crossvit.models.preprocessing import imagenet_labels
from keras_crossvit.models.pretrained import describe
from keras_crossvit.models.timm_config import arguments_of_timm, sizes_of_timm
from tests import base, reference


def model_of(preset, size, **arguments):
    config = kc.CrossViTConfig.preset(preset)
    return kc.CrossViT(config, **{"weights": None, "input_shape": (*size, 3), **arguments})


def config_of(model, folder):
    """What `save_pretrained` writes beside the weights."""
    folder.mkdir(exist_ok=True)
    classes = model.classes if model.include_top else None
    describe(model, folder, crop_ratio=None, details={}, classes=classes)
    return json.loads((folder / "config.json").read_text())


# What timm multiplies the sides by: the middle of the scales that, after rounding down, give what
# this package's branches see, e.g. 228 and 224 pixels of 224.
OF_224 = [(228 / 224 + 229 / 224) / 2, (224 / 224 + 225 / 224) / 2]
OF_400 = [(396 / 400 + 397 / 400) / 2, (384 / 400 + 385 / 400) / 2]
OF_WIDE = [(84 / 84 + 217 / 216) / 2, (208 / 216 + 81 / 84) / 2]  # of 84 x 216
HEADLESS = {"include_top": False}


@pytest.mark.parametrize(
    ("preset", "size", "arguments", "name", "given"),
    [
        ("crossvit_9", (240, 240), {}, "crossvit_9_240", {}),
        ("crossvit_9", (224, 224), {}, "crossvit_9_240", {"img_scale": OF_224}),
        ("crossvit_9", (84, 216), {}, "crossvit_9_240", {"img_scale": OF_WIDE}),
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
        # timm cannot build these and does not know these names: sides for which no scale gives
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
    model = reference.randomize(model_of(preset, size, **arguments), scale=0.1)
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


@pytest.mark.parametrize(
    ("tag", "classes", "names", "labels"),
    [
        ("in1k", 1000, None, imagenet_labels()),
        ("augreg_in21k_ft_in1k", 1000, None, imagenet_labels()),
        ("in1k", 1000, ["a"] * 1000, ["a"] * 1000),
        ("in1k", 2, None, None),
        (None, 1000, None, None),
        (None, 2, {"0": "no", "1": "yes"}, ["no", "yes"]),
        (None, 2, {"0": "no", "2": "yes"}, None),
    ],
)
def test_names_of_classes_as_timm_gives_them(tag, classes, names, labels):
    """None for ImageNet's, and else a list or a dictionary."""
    found = {
        "architecture": "crossvit_15_dagger_240",
        "num_classes": classes,
        "pretrained_cfg": {"tag": tag, "input_size": [3, 240, 240]},
    }
    if names is not None:
        found["label_names"] = names
    assert arguments_of_timm(found, "x")["labels"] == labels


def test_a_folder_of_timm_that_is_not_square(tmp_path):
    """Timm splits 120 x 480 pixels into 10 x 40 and 7 x 28 patches: square numbers."""
    model = model_of("crossvit_9", (120, 480))
    assert model.grids == {"small": (10, 40), "large": (7, 28)}
    config = config_of(model, tmp_path)
    del config["keras_crossvit"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = tmp_path / "model.safetensors"
    kc.save_checkpoint(model, weights)
    save_file(load_file(weights), weights, metadata={"format": "pt"})
    again = kc.from_pretrained(tmp_path)
    assert again.input_shape == (None, 120, 480, 3)
    for ours, theirs in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def folder_of_timm(model, folder, **changes):
    """A folder as timm's `save_for_hf` writes it, by way of ours."""
    config = {**config_of(model, folder), "global_pool": "token", **changes}
    kc.save_checkpoint(model, folder / "model.safetensors")
    del config["keras_crossvit"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("preset", "pooling"), [("crossvit_9", "token"), ("crossvit_9", "avg"), ("deit_tiny", None)]
)
def test_features_as_timm_pools_them(preset, pooling, tmp_path):
    """A model of timm without heads joins its class tokens, unless it says otherwise."""
    model = model_of(preset, (48, 48), include_top=False, pooling=pooling)
    pool = {} if pooling == "token" else {"global_pool": pooling or ""}
    again = kc.from_pretrained(folder_of_timm(model, tmp_path, **pool))
    images = base.pixels(height=48, width=48)
    np.testing.assert_array_equal(again.predict_on_batch(images), model.predict_on_batch(images))


@pytest.mark.parametrize("given", [[0.3, 0.4, 0.5], [0.4]])
def test_grey_images_of_timm(given, tmp_path):
    """An older timm writes the mean of three channels for a model of one."""
    grey = {"mean": [0.4], "std": [0.4], "classes": 2, "input_shape": (48, 48, 1)}
    model = reference.randomize(
        kc.CrossViT(kc.CrossViTConfig.preset("crossvit_9"), weights=None, **grey)
    )
    config = config_of(model, tmp_path)["pretrained_cfg"] | {"mean": given, "std": given}
    again = kc.from_pretrained(folder_of_timm(model, tmp_path, pretrained_cfg=config))
    assert again.input_shape == (None, 48, 48, 1)
    images = base.pixels(height=48, width=48)[..., :1]
    np.testing.assert_allclose(again(images), model(images), atol=1e-6)


@pytest.mark.parametrize("side", [48, [48, 48]])
def test_size_and_channels_that_timm_was_told(side, tmp_path):
    """By arguments, while its `pretrained_cfg` still has those of the published weights."""
    model = reference.randomize(model_of("crossvit_9", (48, 48), classes=2))
    config = config_of(model, tmp_path)
    cfg = config["pretrained_cfg"] | {"input_size": [4, 240, 240]}
    told = config["model_args"] | {"img_size": side, "in_chans": 3}
    folder = folder_of_timm(model, tmp_path, pretrained_cfg=cfg, model_args=told)
    again = kc.from_pretrained(folder)
    assert again.input_shape == (None, 48, 48, 3)
    images = base.pixels(height=48, width=48)
    np.testing.assert_array_equal(again(images), model(images))
    folder_of_timm(model, tmp_path, pretrained_cfg=None)
    with pytest.raises(ValueError, match="`source` must say the size of its images"):
        kc.from_pretrained(folder)


def test_one_scale_for_both_branches():
    config = kc.CrossViTConfig.preset("crossvit_9")
    found = sizes_of_timm({"model_args": {"img_scale": 0.5}}, config, (48, 96))
    assert found == {"small": (24, 48), "large": (24, 48)}


@pytest.fixture(scope="module")
def model():
    return model_of("crossvit_9", (48, 48), classes=2)


def test_sides_that_timm_cuts_off_are_said(tmp_path, caplog):
    model = model_of("deit_tiny", (96, 96), classes=2)
    config = config_of(model, tmp_path)["pretrained_cfg"] | {"input_size": [3, 100, 96]}
    folder_of_timm(model, tmp_path, architecture="deit_tiny_patch16_224", pretrained_cfg=config)
    again = kc.from_pretrained(tmp_path)
    assert again.input_shape == (None, 100, 96, 3)
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path}: of images of 100 x 96 pixels timm's branches see ")
    assert "{'large': (100, 96)}, and drop what is left beside whole patches" in message
    assert "this model resizes to {'large': (96, 96)}" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_pool": "avg"}, "must classify by its class tokens, .* with global_pool='avg'"),
        (
            {"model_args": {"num_classes": 2, "crop_scale": True}},
            "must be of timm's architecture as it is.* of crossvit_9_240 with crop_scale",
        ),
    ],
)
def test_a_model_that_is_another_here(changes, message, model, tmp_path):
    folder_of_timm(model, tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        kc.from_pretrained(tmp_path)
