"""The constructors: signatures, names, defaults, initial values."""

import dataclasses
import inspect
import json

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from tests import base

CONSTRUCTORS = {
    "CrossViTTiny": "crossvit_tiny",
    "CrossViTSmall": "crossvit_small",
    "CrossViTBase": "crossvit_base",
    "CrossViT9": "crossvit_9",
    "CrossViT15": "crossvit_15",
    "CrossViT18": "crossvit_18",
    "CrossViT9Dagger": "crossvit_9_dagger",
    "CrossViT15Dagger": "crossvit_15_dagger",
    "CrossViT18Dagger": "crossvit_18_dagger",
}
ARGUMENTS = {
    "include_top": True,
    "weights": "imagenet",
    "input_tensor": None,
    "input_shape": None,
    "pooling": None,
    "classes": 1000,
    "classifier_activation": "softmax",
    "include_preprocessing": True,
    "drop_rate": 0.0,
    "drop_path_rate": 0.0,
    "name": None,
}
KEYWORDS = {
    "gradient_checkpointing": False,
    "mean": None,
    "std": None,
    "inputs": "shared",
    "reset_heads": False,
    "labels": None,
    "dtype": None,
}


def test_all_constructors_have_a_row():
    public = [name for name in kc.__all__ if inspect.isfunction(getattr(kc, name))]
    assert {name for name in public if name.startswith("CrossViT")} == set(CONSTRUCTORS)


@pytest.mark.parametrize("title", CONSTRUCTORS)
def test_signature(title):
    parameters = list(inspect.signature(getattr(kc, title)).parameters.values())
    positional, keywords = parameters[: len(ARGUMENTS)], parameters[len(ARGUMENTS) :]
    assert {p.name: p.default for p in positional} == ARGUMENTS
    assert [p.name for p in positional] == list(ARGUMENTS)
    assert {p.kind for p in positional} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert {p.name: p.default for p in keywords} == KEYWORDS
    assert {p.kind for p in keywords} == {inspect.Parameter.KEYWORD_ONLY}
    assert getattr(kc, title).__name__ == title


def test_general_constructor_takes_a_config_first():
    parameters = list(inspect.signature(kc.CrossViT).parameters)
    assert parameters == ["config", *ARGUMENTS, *KEYWORDS]


# (patches, widths, heads, M, r) of the paper's table 1; dagger: convolutions.
TABLE_1 = {
    "crossvit_tiny": ((12, 16), (96, 192), 3, 4, 4),
    "crossvit_small": ((12, 16), (192, 384), 6, 4, 4),
    "crossvit_base": ((12, 16), (384, 768), 12, 4, 4),
    "crossvit_9": ((12, 16), (128, 256), 4, 3, 3),
    "crossvit_15": ((12, 16), (192, 384), 6, 5, 3),
    "crossvit_18": ((12, 16), (224, 448), 7, 6, 3),
}


@pytest.mark.parametrize("name", TABLE_1)
def test_presets_are_the_rows_of_table_1(name):
    config = kc.CrossViTConfig.preset(name)
    small, large = config.small, config.large
    assert (
        (small.patch_size, large.patch_size),
        (small.embed_dim, large.embed_dim),
        small.num_heads,
        large.depth,
        small.mlp_ratio,
    ) == TABLE_1[name]
    assert (small.depth, large.num_heads, large.mlp_ratio) == (1, small.num_heads, small.mlp_ratio)
    assert (config.num_stages, config.fusion_depth, config.fusion) == (3, 1, "cross_attention")
    assert config.patch_embed == "linear"
    assert (small.image_size, large.image_size) == (240, 224)


@pytest.mark.parametrize(("title", "preset"), CONSTRUCTORS.items())
def test_each_constructor_builds_its_preset(title, preset, monkeypatch):
    built = []
    monkeypatch.setattr(
        "keras_crossvit.models.constructors.CrossViT",
        lambda *args, **kwargs: built.append(args[0]),
    )
    getattr(kc, title)(weights=None)
    assert built == [kc.CrossViTConfig.preset(preset)]


def test_names_and_shapes_by_default():
    model = kc.CrossViT9Dagger(weights=None)
    assert model.name == "crossvit_9_dagger"
    assert model.input_shape == (None, 240, 240, 3)
    assert model.output_shape == (None, 1000)
    assert isinstance(model, keras.Model)
    assert base.small_model().name == "crossvit"
    assert base.small_model(name="mine").name == "mine"


def test_two_models_can_be_parts_of_one():
    images = keras.Input((40, 40, 3))
    parts = [base.small_model(name=f"part_{i}") for i in range(2)]
    both = keras.Model(images, keras.layers.Average()([part(images) for part in parts]))
    x = base.pixels()
    np.testing.assert_allclose(both(x), parts[0](x), atol=1e-6)


def test_initial_values_are_those_of_the_reference():
    model = kc.CrossViTTiny(weights=None)
    spread = {}
    for variable in model.weights:
        value = np.array(variable)
        leaf = variable.path.rsplit("/", 1)[1]
        if leaf in ("bias", "beta", "gamma"):
            is_conv = "patch_embed" in variable.path
            assert is_conv or np.all(value == (leaf == "gamma")), variable.path
        elif "patch_embed" in variable.path:  # uniform up to 1 / sqrt(what a patch holds)
            bound = value[..., 0].size ** -0.5
            assert 0.99 * bound < np.abs(value).max() <= bound, variable.path
            assert abs(value.std() / bound - 3**-0.5) < 0.01, variable.path
        else:
            spread[variable.path] = value.std()
            assert abs(value.mean()) < 6 * 0.02 / np.sqrt(value.size), variable.path
            assert abs(value.std() / 0.02 - 1) < 6 / np.sqrt(2 * value.size), variable.path
    assert len(spread) > 100


def test_no_lambda_layers_and_every_layer_is_registered(model):
    for layer in model.layers:
        assert not isinstance(layer, keras.layers.Lambda)
        if type(layer).__module__.startswith("keras_crossvit"):
            assert keras.saving.get_registered_name(type(layer)).startswith("keras_crossvit>")


def test_config_of_numpy_numbers_is_that_of_pythons():
    config = kc.CrossViTConfig.preset("crossvit_9")
    branch = config.large
    numpys = {name: np.asarray(value)[()] for name, value in dataclasses.asdict(branch).items()}
    found = dataclasses.replace(config, large=type(branch)(**numpys), num_stages=np.int64(3))
    assert type(found.num_stages) is int
    assert json.loads(json.dumps(dataclasses.asdict(found))) == dataclasses.asdict(config)


def test_config_is_frozen_and_hashable():
    config = kc.CrossViTConfig.preset("crossvit_9")
    with pytest.raises(AttributeError):
        config.num_stages = 4
    assert hash(config) == hash(kc.CrossViTConfig.preset("crossvit_9"))
