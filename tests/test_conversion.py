"""Checkpoints from one format to another, the preset found from the weights alone."""

import dataclasses

import keras
import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

import keras_crossvit as kc
from keras_crossvit.conversion import _input_size, convert
from keras_crossvit.models.config import PRESETS
from tests.base import pixels, skip_without, values_of
from tests.reference import randomize


@pytest.fixture(scope="module")
def model():
    config = kc.CrossViTConfig.preset("crossvit_digits")
    return randomize(kc.CrossViT(config, weights=None, classes=7), scale=0.1)


@pytest.fixture
def safetensors(model, tmp_path):
    kc.save_checkpoint(model, tmp_path / "from.safetensors")
    return tmp_path / "from.safetensors"


def assert_same(ours, theirs):
    for one, other in zip(values_of(ours), values_of(theirs), strict=True):
        np.testing.assert_array_equal(one, other)


def test_to_a_model_and_back(model, safetensors, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # on Windows
    made = convert("~/from.safetensors", "~/model.keras")
    assert made.name == "crossvit_digits"
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert loaded.output_shape == (None, 7)
    assert_same(loaded, model)
    convert("~/model.keras", "~/back.safetensors")
    there, back = load_file(safetensors), load_file(tmp_path / "back.safetensors")
    assert there.keys() == back.keys()
    for name in there:
        np.testing.assert_array_equal(there[name], back[name])


def test_to_weights_alone(model, safetensors, tmp_path):
    convert(safetensors, tmp_path / "model.weights.h5")
    other = kc.CrossViT(
        kc.CrossViTConfig.preset("crossvit_digits"),
        weights=str(tmp_path / "model.weights.h5"),
        classes=7,
    )
    assert_same(other, model)


def test_the_authors_file_becomes_timms(model, tmp_path):
    skip_without("torch")
    import torch

    from keras_crossvit.weights.checkpoint import model_state

    state = {
        name.replace("pos_embed_", "pos_embed.").replace("cls_token_", "cls_token."): torch.tensor(
            x
        )
        for name, x in model_state(model).items()
    }
    torch.save({"model": state}, tmp_path / "authors.pth")
    convert(tmp_path / "authors.pth", tmp_path / "timm.safetensors")
    assert load_file(tmp_path / "timm.safetensors").keys() == model_state(model).keys()


def test_size_of_the_input_is_kept(tmp_path):
    """A checkpoint of another size keeps its position embeddings as they are."""
    config = kc.CrossViTConfig.preset("crossvit_digits")
    larger = kc.CrossViT(config, weights=None, classes=3, input_shape=(96, 96, 3))
    kc.save_checkpoint(larger, tmp_path / "larger.safetensors")
    made = convert(tmp_path / "larger.safetensors", tmp_path / "larger.keras")
    assert made.input_shape == (None, 96, 96, 3)
    assert_same(made, larger)


@pytest.mark.parametrize("shape", [(48, 96, 3), (96, 48, 3), (48, 48, 1), (48, 96, 5)])
def test_sides_and_channels_are_kept(shape, tmp_path):
    config = kc.CrossViTConfig.preset("crossvit_digits")
    grey = {"mean": [0.4], "std": [0.2]} if shape[2] == 1 else {}
    other = kc.CrossViT(config, weights=None, classes=3, input_shape=shape, **grey)
    kc.save_checkpoint(other, tmp_path / "other.safetensors")
    made = convert(tmp_path / "other.safetensors", tmp_path / "other.keras")
    assert made.input_shape == (None, *shape)
    assert_same(made, other)
    if shape[2] == 1:
        assert (made.mean, made.std) == ((0.4,), (0.2,))
        save_file(load_file(tmp_path / "other.safetensors"), tmp_path / "bare.safetensors")
        made = convert(tmp_path / "bare.safetensors", tmp_path / "bare.keras")
        np.testing.assert_allclose([*made.mean, *made.std], [0.449, 0.226], atol=1e-9)


def test_one_channel_that_is_normalised_as_three(tmp_path):
    """Its kernels are for three channels, as a file from before this was recorded shows them."""
    config = kc.CrossViTConfig.preset("crossvit_digits")
    grey = randomize(kc.CrossViT(config, weights=None, classes=3, input_shape=(48, 48, 1)))
    kc.save_checkpoint(grey, tmp_path / "grey.safetensors")
    made = convert(tmp_path / "grey.safetensors", tmp_path / "grey.keras")
    assert (made.input_shape, made.mean) == ((None, 48, 48, 1), grey.mean)
    images = pixels(2, 48, 48)[..., :1]
    np.testing.assert_array_equal(made.predict_on_batch(images), grey.predict_on_batch(images))
    save_file(load_file(tmp_path / "grey.safetensors"), tmp_path / "old.safetensors")
    old = convert(tmp_path / "old.safetensors", tmp_path / "old.keras")
    assert old.input_shape == (None, 48, 48, 3)


def test_sizes_that_both_branches_resize():
    """Of the sides that give the file's grids, the nearest to the first branch's patches."""
    config = kc.CrossViTConfig.preset("crossvit_9")
    grids = config.grids(242, 358)
    assert grids == {"small": (20, 30), "large": (15, 21)}  # of 240 x 360, and of 256 x 336
    shapes = {"pos_embed_0": (1, 601, 128), "pos_embed_1": (1, 316, 256)}
    assert _input_size(config, shapes, grids) == (241, 360)
    assert _input_size(config, shapes, {**grids, "large": (17, 21)}) is None


def test_separate_inputs_and_features_with_labels(tmp_path):
    config = kc.CrossViTConfig.preset("crossvit_digits")
    pair = kc.CrossViT(config, weights=None, classes=2, inputs="separate")
    kc.save_checkpoint(pair, tmp_path / "pair.safetensors")
    made = convert(tmp_path / "pair.safetensors", tmp_path / "pair.keras")
    assert made.input_shape == pair.input_shape
    assert made.takes_pairs
    assert_same(made, pair)
    features = kc.CrossViT(
        config, weights=None, include_top=False, classes=2, labels=("a", "b"), pooling="avg"
    )
    kc.save_checkpoint(features, tmp_path / "features.safetensors")
    made = convert(tmp_path / "features.safetensors", tmp_path / "features.keras")
    assert (made.include_top, made.labels) == (False, None)
    assert_same(made, features)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 cut off", "`source` must be a complete .keras file.*a.keras, which cannot"),
        (None, "must hold a CrossViT of this package. .*a.keras, with a Sequential"),
    ],
)
def test_a_keras_file_that_is_none_of_ours(content, message, tmp_path):
    if content is None:
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / "a.keras")
    else:
        (tmp_path / "a.keras").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "a.keras", tmp_path / "b.keras")
    assert not (tmp_path / "b.keras").exists()


def test_activation_and_labels_are_kept(tmp_path):
    """Of a model with several labels, whose answers a softmax would change."""
    config = kc.CrossViTConfig.preset("crossvit_digits")
    arguments = {"classifier_activation": "sigmoid", "labels": ("a", "b"), "classes": 2}
    other = randomize(kc.CrossViT(config, weights=None, **arguments))
    other.save(tmp_path / "a.keras")
    convert(tmp_path / "a.keras", tmp_path / "b.safetensors")
    made = convert(tmp_path / "b.safetensors", tmp_path / "c.keras")
    assert made.labels == ("a", "b")
    images = pixels(2, *other.input_shape[1:3])
    np.testing.assert_array_equal(made.predict_on_batch(images), other.predict_on_batch(images))


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5", "model.safetensors"])
def test_what_was_there_stays_if_the_new_file_cannot_be_written(
    name, safetensors, tmp_path, monkeypatch
):
    (tmp_path / name).write_bytes(b"good")

    def full(model, path, *arguments, **options):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    monkeypatch.setattr(keras.Model, "save_weights", full)

    def full_too(state, path, metadata):
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full_too)
    with pytest.raises(OSError, match="No space left"):
        convert(safetensors, tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"good"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from.safetensors", name]


def test_a_file_that_is_not_square_and_does_not_say_it(tmp_path):
    config = kc.CrossViTConfig.preset("crossvit_digits")
    wide = kc.CrossViT(config, weights=None, classes=3, input_shape=(48, 96, 3))
    kc.save_checkpoint(wide, tmp_path / "wide.safetensors")
    save_file(load_file(tmp_path / "wide.safetensors"), tmp_path / "old.safetensors")
    with pytest.raises(ValueError, match="for square images unless the file says of which grid"):
        convert(tmp_path / "old.safetensors", tmp_path / "model.keras")


def test_another_fusion_of_the_same_names_and_shapes(tmp_path, monkeypatch):
    """Of two presets that the weights fit, the one that they are of; otherwise none."""
    preset = PRESETS["crossvit_digits"]
    class_token, pairwise = (
        dataclasses.replace(preset, config=dataclasses.replace(preset.config, fusion=fusion))
        for fusion in ("class_token", "pairwise")
    )
    saved = kc.CrossViT(pairwise.config, weights=None, classes=2)
    kc.save_checkpoint(saved, tmp_path / "a.safetensors")
    monkeypatch.setitem(PRESETS._entries, "tests_class_token", class_token)
    with pytest.raises(ValueError, match="weights fit none of them"):
        convert(tmp_path / "a.safetensors", tmp_path / "a.keras")
    monkeypatch.setitem(PRESETS._entries, "tests_pairwise", pairwise)
    made = convert(tmp_path / "a.safetensors", tmp_path / "a.keras")
    assert made.config.fusion == "pairwise"


def test_weights_of_no_preset(safetensors, tmp_path):
    state = load_file(safetensors)
    state.pop("norm.0.weight")
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="`source` must hold the weights of one of the presets"):
        convert(tmp_path / "other.safetensors", tmp_path / "model.keras")
    assert not (tmp_path / "model.keras").exists()


@pytest.mark.parametrize("shape", [(), (16,), (17, 64), (1, 0, 64), (1, 1, 64), (2, 17, 64)])
def test_odd_position_embeddings_fit_no_preset(shape, safetensors, tmp_path):
    odd = {**load_file(safetensors), "pos_embed_0": np.zeros(shape, "float32")}
    save_file(odd, tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match=r"Received: .*odd\.safetensors, whose \d+ weights fit"):
        convert(tmp_path / "odd.safetensors", tmp_path / "model.keras")
    assert not (tmp_path / "model.keras").exists()


def test_weights_that_are_not_finite_are_not_written(safetensors, tmp_path):
    state = load_file(safetensors)
    state["norm.1.bias"][0] = np.nan
    save_file(state, tmp_path / "nan.safetensors")
    message = r"finite.*Received: .*nan\.safetensors, where 1 are not: norm\.1\.bias \(NaN"
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "nan.safetensors", tmp_path / "model.keras")
    assert not (tmp_path / "model.keras").exists()


def test_unknown_destination(safetensors, tmp_path):
    with pytest.raises(ValueError, match="`destination` must end in"):
        convert(safetensors, tmp_path / "model.onnx")


def test_what_normalises_and_pools_is_kept(tmp_path):
    config = kc.CrossViTConfig.preset("crossvit_digits")
    bare = {"include_preprocessing": False, "include_top": False, "pooling": "avg"}
    model = kc.CrossViT(config, weights=None, **bare)
    kc.save_checkpoint(model, tmp_path / "bare.safetensors")
    again = convert(tmp_path / "bare.safetensors", tmp_path / "bare.keras")
    assert (again.include_preprocessing, again.include_top, again.pooling) == (False, False, "avg")
    images = pixels(2, 48, 48)
    np.testing.assert_array_equal(again.predict_on_batch(images), model.predict_on_batch(images))


def test_layers_before_a_model_are_left_out_with_a_word(tmp_path, caplog):
    config = kc.CrossViTConfig.preset("crossvit_digits")
    tensor = keras.layers.Rescaling(255.0)(keras.Input((48, 48, 3)))
    kc.CrossViT(config, weights=None, classes=3, input_tensor=tensor).save(tmp_path / "a.keras")
    convert(tmp_path / "a.keras", tmp_path / "a.safetensors")
    assert "leaves out the layers before the model" in caplog.text
