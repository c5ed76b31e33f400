"""Whole models of the paper's other experiments: they build, save, load and train."""

import dataclasses
import zlib

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit.common.bicubic import resize_grid
from keras_crossvit.models.presets import published_weights
from keras_crossvit.weights import sources
from keras_crossvit.weights.checkpoint import assign_state, model_state
from tests import base, reference

pytestmark = pytest.mark.slow


def t2t_config():
    return kc.CrossViTConfig(
        small=kc.BranchConfig(48, 12, embed_dim=16, depth=1, num_heads=2, mlp_ratio=2),
        large=kc.BranchConfig(32, 16, embed_dim=24, depth=1, num_heads=3, mlp_ratio=2),
        num_stages=1,
        patch_embed="t2t",
    )


def deit_config():
    """The large branch of `small_config()` alone: 32 pixels, 2 x 2 patches, 4 encoders."""
    return base.small_config(small=None, fusion="none")


CONFIGS = {
    "none": base.small_config(fusion="none"),
    "all_attention": base.small_config(fusion="all_attention"),
    "class_token": base.small_config(fusion="class_token"),
    "pairwise": base.small_config(fusion="pairwise"),
    "no_class_token": base.small_config(class_token=False),
    "t2t": t2t_config(),
    "deit": deit_config(),
    "deit_t2t_no_class_token": dataclasses.replace(
        t2t_config(), small=None, fusion="none", class_token=False
    ),
}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def images(config, batch=2):
    return base.pixels(batch, config.input_size, config.input_size)


@each_config
def test_keras_file_gives_the_same_model(config, tmp_path):
    model = base.small_model(config)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    x = images(config)
    np.testing.assert_array_equal(loaded(x), model(x))
    assert [layer.get_config() for layer in loaded.layers] == [
        layer.get_config() for layer in model.layers
    ]


@each_config
def test_checkpoint_gives_the_same_model(config, tmp_path):
    model = base.small_model(config)
    kc.save_checkpoint(model, tmp_path / "model.safetensors")
    other = kc.CrossViT(config, weights=tmp_path / "model.safetensors", classes=5)
    np.testing.assert_array_equal(other(images(config)), model(images(config)))


@each_config
def test_fit_lowers_the_loss(config):
    model = base.small_model(dataclasses.replace(config, num_stages=1), drop_path_rate=0.1)
    optimizer = keras.optimizers.Adam(0.003)
    # One trace, and no XLA: so small a model spends most of its time there.
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    x, labels = images(config, 4), np.arange(4)
    losses = model.fit(x, labels, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@each_config
def test_images_need_not_be_square(config):
    model = base.small_model(config, input_shape=(48, 96, 3))
    assert model.output_shape == (None, 5)
    probabilities = np.array(model(base.pixels(2, 48, 96)))
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
    assert np.abs(probabilities[0] - probabilities[1]).max() > 1e-4


def test_pairwise_in_a_model_knows_grids_that_are_not_square():
    model = base.small_model(CONFIGS["pairwise"], input_shape=(48, 96, 3))
    fuse = model.get_layer("stage_1").fuse
    assert (fuse.small_grid, fuse.large_grid) == ((6, 12), (3, 5))


@pytest.mark.parametrize("name", ["no_class_token", "deit_t2t_no_class_token"])
def test_without_class_tokens_the_heads_read_the_average(name):
    config = CONFIGS[name]
    model = base.small_model(config, classifier_activation=None)
    assert not [layer.name for layer in model.layers if "class_token" in layer.name]
    tokens = kc.CrossViT(config, include_top=False, weights=None)
    assign_state(tokens, {k: v for k, v in model_state(model).items() if "head" not in k}, "")
    outputs = tokens(images(config))
    logits = []
    for branch, x in zip(config.branches, keras.tree.flatten(outputs), strict=True):
        head = reference.arrays(model.get_layer(f"{branch}_head"))
        logits.append(np.mean(x, axis=1) @ head["kernel"] + head["bias"])
    np.testing.assert_allclose(model(images(config)), np.mean(logits, axis=0), atol=1e-4)


def test_without_class_tokens_pooling_by_token_is_refused():
    message = r"`pooling` must be 'avg', 'max' or None .* Received: pooling='token'"
    with pytest.raises(ValueError, match=message):
        kc.CrossViT(CONFIGS["no_class_token"], include_top=False, pooling="token", weights=None)


def test_one_branch_has_no_fusion():
    with pytest.raises(ValueError, match=r"`fusion` must be 'none' .* fusion='cross_attention'"):
        base.small_config(small=None)
    with pytest.raises(ValueError, match=r"`large` must be a BranchConfig"):
        base.small_config(large=None)


def test_deit_equals_timm():
    """`VisionTransformer(img_size=48, patch_size=16, embed_dim=24, depth=4, num_heads=3,
    mlp_ratio=2, num_classes=5)` of timm 1.0.31 in float64, weights and images as here.
    """
    config = dataclasses.replace(
        deit_config(), large=kc.BranchConfig(48, 16, 24, depth=2, num_heads=3, mlp_ratio=2)
    )
    model = kc.CrossViT(
        config,
        weights=None,
        classes=5,
        include_preprocessing=False,
        classifier_activation=None,
    )

    def weight(name, shape):
        random = np.random.RandomState(zlib.crc32(name.encode()))
        return (0.2 * random.standard_normal(shape)).astype("float32")

    state = {name: weight(name, x.shape) for name, x in model_state(model).items()}
    assign_state(model, state, "the rule")
    x = np.random.RandomState(0).standard_normal((2, 48, 48, 3)).astype("float32")
    expected = [
        [-0.41831126, 0.2237497, -0.22726588, -0.31303136, 0.02528312],
        [-0.42745043, 0.26371368, -0.20847416, -0.25177604, 0.03229253],
    ]
    np.testing.assert_allclose(model(x), expected, atol=1e-6)


def test_deit_tiny_has_the_names_and_shapes_of_timm():
    model = kc.CrossViT(kc.CrossViTConfig.preset("deit_tiny"), weights=None)
    expected = {
        "cls_token": (1, 1, 192),
        "pos_embed": (1, 197, 192),
        "patch_embed.proj.weight": (192, 3, 16, 16),
        "patch_embed.proj.bias": (192,),
        "norm.weight": (192,),
        "norm.bias": (192,),
        "head.weight": (1000, 192),
        "head.bias": (1000,),
    }
    for i in range(12):
        expected |= {
            f"blocks.{i}.norm1.weight": (192,),
            f"blocks.{i}.norm1.bias": (192,),
            f"blocks.{i}.attn.qkv.weight": (576, 192),
            f"blocks.{i}.attn.qkv.bias": (576,),
            f"blocks.{i}.attn.proj.weight": (192, 192),
            f"blocks.{i}.attn.proj.bias": (192,),
            f"blocks.{i}.norm2.weight": (192,),
            f"blocks.{i}.norm2.bias": (192,),
            f"blocks.{i}.mlp.fc1.weight": (768, 192),
            f"blocks.{i}.mlp.fc1.bias": (768,),
            f"blocks.{i}.mlp.fc2.weight": (192, 768),
            f"blocks.{i}.mlp.fc2.bias": (192,),
        }
    assert {name: x.shape for name, x in model_state(model).items()} == expected


@pytest.mark.parametrize("name", ["deit", "no_class_token"])
def test_positions_of_another_size_are_resized(name, tmp_path):
    model = base.small_model(CONFIGS[name])
    kc.save_checkpoint(model, tmp_path / "model.safetensors")
    other = kc.CrossViT(
        CONFIGS[name],
        weights=tmp_path / "model.safetensors",
        classes=5,
        input_shape=(64, 96, 3),
    )

    def positions(model):
        embedding = model.get_layer("large_position_embedding").embedding
        return keras.ops.convert_to_numpy(embedding)[0]

    old, new = positions(model), positions(other)
    rows, columns = other.get_layer("large_patch_embed").grid
    first = int(CONFIGS[name].class_token)
    np.testing.assert_array_equal(new[:first], old[:first])
    grid = resize_grid(old[first:].reshape(2, 2, 24), rows, columns)
    np.testing.assert_array_equal(new[first:], grid.reshape(-1, 24))


def test_outputs_of_one_branch_without_top():
    config = deit_config()
    tokens = kc.CrossViT(config, include_top=False, weights=None)
    assert tokens.output_shape == (None, 5, 24)
    assert tokens.input_shape == (None, 32, 32, 3)
    x = images(config)
    expected = {
        "token": lambda x: x[:, 0],
        "avg": lambda x: x[:, 1:].mean(axis=1),
        "max": lambda x: x[:, 1:].max(axis=1),
    }
    for pooling, pool in expected.items():
        model = kc.CrossViT(config, include_top=False, pooling=pooling, weights=None)
        assign_state(model, model_state(tokens), "")
        np.testing.assert_allclose(model(x), pool(np.array(tokens(x))), atol=1e-6)


@pytest.mark.parametrize("name", ["tiny", "small", "base"])
def test_deit_takes_the_published_weights_of_timm(name):
    source = sources.resolve("imagenet", f"deit_{name}", published_weights())
    assert source.repository == f"timm/deit_{name}_patch16_224.fb_in1k"
    assert source.input_size == 224


@pytest.mark.parametrize("name", ["deit_15", "crossvit_small_pairwise", "crossvit_18_t2t"])
def test_what_was_not_published_has_no_imagenet_weights(name):
    message = rf"`weights=\"imagenet\"` exists for crossvit_tiny, .*Received: .*{name}"
    with pytest.raises(ValueError, match=message):
        kc.CrossViT(kc.CrossViTConfig.preset(name), weights="imagenet")


def test_new_classes_for_one_branch_keep_all_but_the_head(tmp_path, caplog):
    model = base.small_model(deit_config(), classes=1000)
    kc.save_checkpoint(model, tmp_path / "model.safetensors")
    other = kc.CrossViT(deit_config(), weights=tmp_path / "model.safetensors", classes=3)
    assert "the weights of the head of 3 classes are new" in caplog.text
    for name, array in model_state(model).items():
        if not name.startswith("head."):
            np.testing.assert_array_equal(model_state(other)[name], array)
