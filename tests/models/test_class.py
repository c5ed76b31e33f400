"""What a CrossViT knows about itself, and what its configuration keeps."""

import dataclasses
import inspect
import json

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit import layers
from tests import base


@pytest.fixture(scope="module")
def model():
    return base.small_model(drop_path_rate=0.1)


def test_attributes(model):
    assert isinstance(model, kc.CrossViT)
    assert isinstance(model, keras.Model)
    assert model.config == base.small_config()
    assert model.grids == {"small": (5, 5), "large": (2, 2)}
    assert model.feature_dim == 16 + 24
    assert model.include_preprocessing is True
    assert model.logits.shape == (None, 5)
    assert [type(stage) for stage in model.stages] == [layers.MultiScaleBlock] * 2


def test_branches_hold_the_layers_by_role(model):
    assert list(model.branches) == ["small", "large"]
    small, large = model.branches["small"], model.branches["large"]
    assert small.resize is None  # it sees the image as it is
    assert (large.resize.height, large.resize.width) == (32, 32)
    assert (small.patch_embed.embed_dim, large.patch_embed.embed_dim) == (16, 24)
    assert [[block.num_heads for block in stage] for stage in small.blocks] == [[2], [2]]
    assert [[block.num_heads for block in stage] for stage in large.blocks] == [[3, 3], [3, 3]]
    for index, stage in enumerate(model.stages):
        assert small.blocks[index][0] is stage.small_blocks[0]
        assert large.blocks[index][1] is stage.large_blocks[1]
    x = base.pixels()
    features = keras.Model(model.input, [b.norm.output for b in model.branches.values()])(x)
    heads = [b.head(f) for b, f in zip(model.branches.values(), features, strict=True)]
    logits = keras.Model(model.input, model.logits)(x)
    np.testing.assert_allclose((heads[0] + heads[1]) / 2, logits, atol=1e-6)
    np.testing.assert_allclose(keras.ops.softmax(logits), model(x), atol=1e-6)


def test_roles_that_a_model_does_not_have():
    config = base.small_config(class_token=False)
    tokens = base.small_model(config, include_top=False).branches["small"]
    assert (tokens.class_token, tokens.pool, tokens.head) == (None, None, None)
    alone = base.small_model(base.small_config(small=None, fusion="none"))
    assert list(alone.branches) == list(alone.grids) == ["large"]
    assert [len(stage) for stage in alone.branches["large"].blocks] == [1] * 4
    assert alone.feature_dim == 24


@pytest.mark.parametrize(
    ("fusion", "patch_embed"),
    [
        *((name, "linear") for name in layers.FUSIONS),
        ("none", "conv"),
        ("none", "t2t"),
        ("none", "t2t_transformer"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_layer_of_every_design_is_built(fusion, patch_embed, dtype):
    """`model.quantize` refuses a layer that is not, even one without variables."""
    model = kc.CrossViT(base.any_design(fusion, patch_embed), weights=None, classes=2, dtype=dtype)
    assert [layer.name for layer in model._flatten_layers() if not layer.built] == []
    if patch_embed == "t2t":
        features = model.branches["large"].patch_embed.attentions[0].random_features
        assert features.dtype == "float32"


def test_config_holds_the_arguments(model):
    config = model.get_config()
    arguments = kc.CrossViTConfig.from_dict(config["config"])
    assert arguments == model.config
    assert (config["weights"], config["classes"], config["drop_path_rate"]) == (None, 5, 0.1)
    assert json.loads(json.dumps(config))["input_shape"] == [40, 40, 3]
    again = kc.CrossViT.from_config(config)
    assert type(again) is kc.CrossViT
    assert again.get_config() == config
    assert [v.path for v in again.weights] == [v.path for v in model.weights]


def test_config_has_every_argument():
    given = {
        **{"classifier_activation": "sigmoid", "drop_rate": 0.2, "drop_path_rate": 0.1},
        **{"gradient_checkpointing": True, "include_preprocessing": False, "name": "mine"},
        **{"labels": tuple("abcde"), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)},
    }
    config = base.small_model(**given, inputs="separate").get_config()
    arguments = inspect.signature(kc.CrossViT).parameters.keys()
    assert arguments - {"reset_heads"} <= config.keys()  # which has done its work
    assert (config["inputs"], config["pooling"]) == ("separate", None)
    assert base.small_model(include_top=False, pooling="avg").get_config()["pooling"] == "avg"
    again = kc.CrossViT.from_config(config)
    assert {name: getattr(again, name) for name in given} == given


@pytest.mark.parametrize("constructor", ["CrossViTTiny", "CrossViT9Dagger"])
def test_constructors_return_the_class(constructor):
    model = getattr(kc, constructor)(weights=None, input_shape=(48, 48, 3))
    assert type(model) is kc.CrossViT


def stem():
    """A tensor with a history: two inputs and a layer with weights."""
    inputs = [keras.Input((16, 40, 3), name=name) for name in ("left", "right")]
    x = keras.layers.Concatenate(axis=1)(inputs)
    return inputs, keras.layers.Conv2D(3, 1, name="colours")(x)


def test_model_on_a_tensor_comes_back_from_its_configuration(tmp_path):
    _, tensor = stem()
    model = base.small_model(input_tensor=tensor)
    assert [x.name for x in model.inputs] == ["left", "right"]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert type(loaded) is kc.CrossViT
    assert loaded.grids == model.grids
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    x = [base.pixels(height=16, seed=seed) for seed in (1, 2)]
    np.testing.assert_array_equal(loaded(x), model(x))


def test_frozen_layers_stay_frozen(tmp_path):
    model = base.small_model()
    model.branches["small"].patch_embed.trainable = False
    model.stages[0].trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    trained = [v.path for v in loaded.trainable_variables]
    assert trained == [v.path for v in model.trainable_variables]
    assert not [path for path in trained if path.startswith(("small_patch_embed", "stage_0"))]
    model.trainable = False
    model.branches["large"].head.trainable = True
    again = kc.CrossViT.from_config(model.get_config())
    assert again.trainable_variables == model.trainable_variables == []
    assert again.branches["large"].head.trainable


def test_layers_that_are_frozen_inside_a_stage_stay_frozen(fresh_model):
    fresh_model.stages[0].fuse.trainable = False
    fresh_model.stages[1].large_blocks[0].trainable = False
    config = fresh_model.get_config()
    assert config["frozen"] == ["stage_0/fusion", "stage_1/large_block_0"]
    again = kc.CrossViT.from_config(config)
    trained = [v.path for v in again.trainable_variables]
    assert trained == [v.path for v in fresh_model.trainable_variables]
    assert not [path for path in trained if path.startswith(tuple(config["frozen"]))]
    assert not again.stages[1].large_blocks[0].mlp.trainable


def test_layers_that_are_trained_inside_frozen_ones_stay_so(tmp_path):
    """As in tuning the norms alone; also of a model that was made in a name scope."""
    with keras.name_scope("outer"):
        model = base.small_model()
    for layer in model.layers:
        layer.trainable = False
    for stage in model.stages:
        for block in (*stage.small_blocks, *stage.large_blocks):
            block.norm1.trainable = True
    model.stages[1].fuse.trainable = True
    model.stages[1].fuse.small_blocks[0].trainable = False
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    trained = [v.path for v in again.trainable_variables]
    assert trained == [v.path.removeprefix("outer/") for v in model.trainable_variables]
    assert "stage_0/small_block_0/norm1/gamma" in trained
    assert any(path.startswith("stage_1/fusion/large_block") for path in trained)
    assert not any(path.startswith("stage_1/fusion/small_block") for path in trained)
    thawed = again.get_config()["thawed"]
    assert "stage_1/fusion" in thawed
    assert "thawed" not in base.small_model().get_config()


def test_dtype_is_an_argument_and_part_of_the_configuration():
    model = base.small_model(dtype="mixed_bfloat16", classifier_activation=None)
    assert model.dtype_policy.name == "mixed_bfloat16"
    assert model.stages[1].compute_dtype == "bfloat16"
    assert model.branches["large"].resize.compute_dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"
    again = kc.CrossViT.from_config(model.get_config())
    assert again.stages[1].dtype_policy.name == "mixed_bfloat16"


@keras.saving.register_keras_serializable("tests")
def halved(x):
    return x / 2


def test_activation_of_ones_own_comes_back():
    model = base.small_model(classifier_activation=halved)
    again = kc.CrossViT.from_config(json.loads(json.dumps(model.get_config())))
    again.set_weights(model.get_weights())
    x = base.pixels()
    np.testing.assert_array_equal(again(x), model(x))
    assert again.classifier_activation is halved


def test_preset_with_a_typo():
    with pytest.raises(ValueError, match=r"Did you mean 'crossvit_15_dagger'\?$"):
        kc.CrossViTConfig.preset("crossvit_15_daggr")


def test_registered_preset_is_a_preset():
    config = base.small_config(num_stages=1, fusion="class_token")
    assert kc.register_preset("tests_own")(config) is config
    assert kc.CrossViTConfig.preset("tests_own") == config
    assert kc.presets()[-1] == "tests_own"
    assert base.small_model(config).name == "tests_own"
    with pytest.raises(ValueError, match="`name` must be new among the presets"):
        kc.register_preset("tests_own")(dataclasses.replace(config, num_stages=2))
    with pytest.raises(ValueError, match=r"must be a CrossViTConfig\. Received: other = 3"):
        kc.register_preset("other")(3)
