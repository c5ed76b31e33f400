"""The `weights` argument of a model: every kind of source, heads, wrong files."""

import logging

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import keras_crossvit as kc
from keras_crossvit.weights import resolve
from keras_crossvit.weights.sources import WeightSource
from tests import base, reference

SUFFIXES = (".safetensors", ".keras", ".weights.h5", ".pth")


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """The session's model of 5 classes and one of 1000, in every format."""
    folder = tmp_path_factory.mktemp("sources")
    imagenet = base.small_model(classes=1000)
    for name, saved in (("five", model), ("imagenet", imagenet)):
        kc.save_checkpoint(saved, folder / f"{name}.safetensors")
        saved.save(folder / f"{name}.keras")
        saved.save_weights(folder / f"{name}.weights.h5")
        try:
            import torch
        except ImportError:
            continue
        state = kc.weights.checkpoint.model_state(saved)
        torch.save({k: torch.from_numpy(v) for k, v in state.items()}, folder / f"{name}.pth")
    return folder


def built(path, **kwargs):
    arguments = {"classes": 5, "classifier_activation": None, **kwargs}
    return kc.CrossViT(base.small_config(), weights=path, **arguments)


def need_torch(suffix):
    if suffix == ".pth":
        pytest.importorskip("torch", reason="torch is not installed")


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_file_of_each_kind(suffix, as_text, files, model):
    need_torch(suffix)
    path = files / f"five{suffix}"
    loaded = built(str(path) if as_text else path)
    for ours, theirs in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_h5_file_of_a_checkpoint_in_training(tmp_path):
    """It has the optimizer's variables, too."""
    trained = base.small_model()
    trained.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    trained.train_on_batch(np.zeros((2, 40, 40, 3), "float32"), np.array([0, 3]))
    trained.save_weights(tmp_path / "trained.weights.h5")
    loaded = built(tmp_path / "trained.weights.h5")
    for ours, theirs in zip(loaded.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_model_without_heads_takes_the_rest_of_an_h5_file(files, model):
    loaded = built(files / "five.weights.h5", include_top=False)
    for ours, theirs in zip(loaded.weights, model.weights, strict=False):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("suffix", [".safetensors", ".keras", ".pth"])
def test_imagenet_heads_are_left_out_for_other_classes_and_this_is_said(suffix, files, caplog):
    need_torch(suffix)
    source = {v.path: v for v in base.small_model(classes=1000).weights}
    with caplog.at_level(logging.WARNING, logger="keras_crossvit"):
        loaded = built(files / f"imagenet{suffix}", classes=7)
    (record,) = caplog.records
    assert "two heads of 7 classes are new and not trained" in record.getMessage()
    assert f"imagenet{suffix}" in record.getMessage()
    assert loaded.heads_left_out
    for variable in loaded.weights:
        if "_head/" in variable.path:
            assert np.abs(variable).max() < 0.2  # drawn with a spread of 0.02
        else:
            np.testing.assert_array_equal(variable, source[variable.path])


@pytest.mark.parametrize("name", ["imagenet.safetensors", "five.safetensors", "five.keras"])
def test_model_without_heads_takes_any_heads_silently(name, files, caplog):
    loaded = built(files / name, include_top=False, pooling="token")
    source = {v.path: v for v in base.small_model().weights}
    assert not caplog.records
    assert not [v.path for v in loaded.weights if "head" in v.path]
    for variable in loaded.weights:
        np.testing.assert_array_equal(variable, source[variable.path])


def test_same_classes_load_without_a_word(files, caplog):
    assert not built(files / "imagenet.safetensors", classes=1000).heads_left_out
    assert not built(files / "five.safetensors").heads_left_out
    assert not caplog.records


@pytest.mark.parametrize("suffix", [".safetensors", ".keras"])
def test_what_weights_do_not_show(suffix, tmp_path, caplog):
    """Labels are taken over where there are none; other deviations or labels are logged."""
    path, names = tmp_path / f"saved{suffix}", tuple("vwxyz")
    saved = base.small_model(std=(0.1, 0.2, 0.3), labels=list(names))
    saved.save(path) if suffix == ".keras" else kc.save_checkpoint(saved, path)
    same = built(path, std=(0.1, 0.2, 0.3))
    assert (same.labels, caplog.records) == (names, [])
    assert built(path, std=(0.1, 0.2, 0.3), reset_heads=True).labels is None
    caplog.clear()
    other = built(path, labels=list("zyxwv"))
    assert other.labels == tuple("zyxwv")
    std, labels = (record.message for record in caplog.records)
    assert "of a model with std=[0.1, 0.2, 0.3]. This one has [0.229, 0.224, 0.225]" in std
    assert "of a model with labels=[v, w, x, y, z]. This one has [z, y, x, w, v]" in labels
    caplog.clear()
    built(path, include_preprocessing=False)  # its images are normalised elsewhere
    assert caplog.records == []
    if suffix == ".safetensors":
        kc.load_checkpoint(other, path)
        assert len(caplog.records) == 2


@pytest.mark.parametrize("suffix", [".safetensors", ".keras"])
def test_heads_that_are_not_of_imagenet_are_not_dropped(suffix, files):
    with pytest.raises(ValueError, match=r"`classes` must be 5.*Received: classes=7"):
        built(files / f"five{suffix}", classes=7)


def test_keras_file_of_another_input_size_is_resized(files, model):
    loaded = built(files / "five.keras", input_shape=(80, 40, 3))
    assert loaded.get_layer("small_patch_embed").grid == (10, 5)
    before = np.array(model.get_layer("small_position_embedding").embedding)[0]
    after = np.array(loaded.get_layer("small_position_embedding").embedding)[0]
    np.testing.assert_array_equal(after[0], before[0])
    expected = reference.cubic_resize(before[1:].reshape(5, 5, -1), 10, 5)
    np.testing.assert_allclose(after[1:].reshape(10, 5, -1), expected, atol=1e-6)


WRONG = {
    "h5 of another architecture": (
        "other.weights.h5",
        "same architecture, input size",
    ),
    "h5 of more stages": (
        "three.weights.h5",
        r"same architecture, .* which also holds \d+ that the model lacks",
    ),
    "h5 of other classes": ("imagenet.weights.h5", "same architecture, input size"),
    "h5 that is none": ("text.weights.h5", "which does not fit"),
    "keras that is none": ("text.keras", "`weights` must be a complete .keras file"),
    "cut keras": ("cut.keras", "`weights` must be a complete .keras file"),
    "keras of another package": ("dense.keras", "`weights` must be a .keras file of a CrossViT"),
    "keras of another architecture": ("other.keras", "must be of the same architecture"),
    "keras that holds code": ("code.keras", "`weights` must be a complete .keras file"),
    "safetensors that is none": ("text.safetensors", "complete safetensors file"),
    "safetensors with NaN": ("nan.safetensors", r"finite .* where 1 are not: norm\.1\.bias \(NaN"),
    "keras with NaN": ("nan.keras", r"finite .* where 1 are not: norm\.1\.bias \(NaN"),
    "h5 with NaN": ("nan.weights.h5", r"finite .* where 1 are not: large_norm/beta \(NaN"),
    "scalar head": ("scalar.safetensors", r"1 shapes differ: head\.0\.bias \(\) for \(5,\)"),
}


@pytest.fixture(scope="module")
def wrong_files(files):
    other = base.small_model(base.small_config(num_stages=1))
    other.save(files / "other.keras")
    other.save_weights(files / "other.weights.h5")
    three = base.small_model(base.small_config(num_stages=3))
    three.save_weights(files / "three.weights.h5")
    for suffix in (".keras", ".weights.h5", ".safetensors"):
        (files / f"text{suffix}").write_bytes(b"<html>not found</html>")
    whole = (files / "five.keras").read_bytes()
    (files / "cut.keras").write_bytes(whole[: len(whole) // 2])
    dense = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    dense.save(files / "dense.keras")
    nan = base.small_model()
    nan.get_layer("large_norm").beta.assign(np.full(24, np.nan))
    nan.save(files / "nan.keras")
    nan.save_weights(files / "nan.weights.h5")
    kc.save_checkpoint(nan, files / "nan.safetensors")
    scalar = {**load_file(files / "five.safetensors"), "head.0.bias": np.array(1, "float32")}
    save_file(scalar, files / "scalar.safetensors")
    code = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: 2 * x)])
    code.save(files / "code.keras")
    return files


@pytest.mark.parametrize("case", WRONG)
def test_wrong_file_is_named_and_changes_nothing(case, wrong_files, fresh_model):
    name, message = WRONG[case]
    before = base.values_of(fresh_model)
    with pytest.raises(ValueError, match=message) as error:
        built(wrong_files / name)
    assert name in str(error.value)
    with pytest.raises(ValueError, match=message):
        resolve(wrong_files / name).load_into(fresh_model)
    for variable, value in zip(fresh_model.weights, before, strict=True):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize(
    "weights",
    [
        "imagenet-1k",
        "no/such/file.safetensors",
        "",
        3,
        True,
        b"imagenet",
        ["imagenet"],
        "README.md",
    ],
)
def test_weights_that_are_nothing_known(weights):
    with pytest.raises(ValueError, match=r"`weights` must be None, one of \"imagenet\"") as error:
        kc.CrossViT9(weights=weights)
    assert repr(weights) in str(error.value)


@pytest.mark.parametrize(
    ("weights", "meant"),
    [
        ("timm/crossvit_15_240.in1k", "hf://timm/crossvit_15_240.in1k"),
        ("someone/pets", "hf://someone/pets"),
        ("imagnet", "imagenet"),
        ("imagenet_408", "imagenet-408"),
    ],
)
def test_weights_that_are_nearly_known(weights, meant):
    message = rf"Received: weights={weights!r}\. Did you mean {meant!r}\?$"
    with pytest.raises(ValueError, match=message):
        kc.CrossViT9(weights=weights)


@pytest.mark.parametrize(
    "weights", ["runs/best.safetensors", "./timm/x", "/a/b", "a/b/c", "tests/weights"]
)
def test_paths_are_not_taken_for_repositories(weights):
    with pytest.raises(ValueError, match=rf"Received: weights={weights!r}$"):
        kc.CrossViT9(weights=weights)


@pytest.mark.parametrize("weights", ["hf://", "hf://owner", "hf://owner/", "hf://a/b/c"])
def test_hub_name_of_another_form(weights):
    with pytest.raises(ValueError, match="hf://owner/name"):
        kc.CrossViT9(weights=weights)


def test_published_weights_exist_for_presets_only():
    with pytest.raises(ValueError, match="an architecture that is no preset"):
        kc.CrossViT(base.small_config(), weights="imagenet")


def test_imagenet_names_belong_to_the_published_heads(files, monkeypatch):
    """Heads that are new, or that a model has not, are not called by them."""
    source = WeightSource("imagenet", files / "imagenet.safetensors", input_size=40)
    monkeypatch.setattr("keras_crossvit.weights.resolve", lambda *arguments: source)
    labels = built("imagenet", classes=1000).labels
    assert (len(labels), labels[0], labels[-1]) == (1000, "tench", "toilet tissue")
    assert built("imagenet", classes=1000, reset_heads=True).labels is None
    assert built("imagenet", classes=7).labels is None
    assert built("imagenet", classes=1000, include_top=False).labels is None


def test_408_exists_for_two_models():
    with pytest.raises(ValueError, match=r"crossvit_15_dagger, crossvit_18_dagger.*crossvit_9$"):
        kc.CrossViT9(weights="imagenet-408")
