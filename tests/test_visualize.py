"""What `keras_crossvit.visualize` returns, against the formulas and the model itself."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_crossvit import visualize
from keras_crossvit.layers.intermediates import AttentionRollout
from keras_crossvit.visualize.maps import resize_maps
from tests import base, reference
from tests.paper.test_models import deit_config

HEADS = {"small": 2, "large": 3}  # of `base.small_config()`
OTHER = {"small": "large", "large": "small"}
WIDE = base.pixels(2, 40, 64)
GRIDS = {"small": (5, 8), "large": (2, 4)}  # rows, columns of patches


def shallow_config(**changes):
    """Both branches with one encoder per stage."""
    config = base.small_config()
    return dataclasses.replace(config, large=dataclasses.replace(config.large, depth=1), **changes)


@pytest.fixture(scope="module")
def wide():
    """A model for images of 40 x 64 pixels; tests must not change it."""
    return base.small_model(input_shape=(40, 64, 3))


def value(model, point):
    """The arrays at a symbolic point of a model's graph, for `WIDE`."""
    values = keras.Model(model.input, point)(WIDE)
    return [np.array(x, "float64") for x in keras.tree.flatten(values)]


def below(layer):
    """`{path below a layer inside a model: float64 array}`."""
    return {
        variable.path.split(f"/{layer.name}/", 1)[1]: np.array(variable, "float64")
        for variable in layer.weights
    }


def attention_weights(q, k):
    """softmax(q k^T / sqrt(C/h)) of equation 6, `(B, h, n, N)`, of `(B, h, n or N, C/h)`."""
    return reference.softmax(q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]))


def split(x, num_heads):
    """`(B, N, C)` as `(B, h, N, C/h)`."""
    return np.swapaxes(x.reshape(*x.shape[:2], num_heads, -1), 1, 2)


@pytest.mark.parametrize("branch", ["small", "large"])
def test_cross_attention_is_equation_6(wide, branch):
    maps = visualize.cross_attention(wide, WIDE)
    assert len(maps) == 2
    other = OTHER[branch]
    for number, stage in enumerate(maps):
        block = wide.get_layer(f"stage_{number}")
        encoded = [np.array(x, "float64") for x in block.encode(value(wide, block.input))]
        tokens = dict(zip(("small", "large"), encoded, strict=True))
        w = below(block.fuse)
        query = reference.projection(
            tokens[branch][:, :1], reference.below(w, f"{branch}_projection")
        )
        both = np.concatenate([query, tokens[other][:, 1:]], axis=1)
        w = reference.below(w, f"{branch}_block")
        normed = reference.layer_norm(both, w, "norm")
        w = reference.below(w, "attention")
        q = split(reference.linear(normed[:, :1], w, "query"), HEADS[other])
        k = split(reference.linear(normed, w, "key"), HEADS[other])
        expected = attention_weights(q, k)[:, :, 0]
        shape = (2, HEADS[other], *GRIDS[other])
        np.testing.assert_allclose(stage[branch].itself, expected[..., 0], atol=1e-5)
        np.testing.assert_allclose(
            stage[branch].patches, expected[..., 1:].reshape(shape), atol=1e-5
        )
        assert expected.std() > 0.01  # not all the same


def test_cross_attention_with_depth_2_is_that_of_the_first_module():
    """The second module sees the class token alone."""
    model = base.small_model(base.small_config(fusion_depth=2))
    stage = visualize.cross_attention(model, base.pixels())[0]
    first = model.get_layer("stage_0").fuse.large_blocks[0]
    kernel = first.attention.query.kernel
    kernel.assign(0 * kernel)
    first.attention.query.bias.assign(0 * first.attention.query.bias)
    even = visualize.cross_attention(model, base.pixels())[0]
    np.testing.assert_allclose(even["large"].patches, 1 / 26, atol=1e-6)
    assert np.abs(stage["large"].patches - 1 / 26).max() > 1e-3


def test_cross_attention_without_class_tokens_reads_by_the_average():
    model = base.small_model(base.small_config(class_token=False))
    stage = visualize.cross_attention(model, base.pixels())[-1]
    assert stage["large"].patches.shape == (2, 2, 5, 5)
    for attention in stage.values():
        total = attention.patches.sum(axis=(-2, -1)) + attention.itself
        np.testing.assert_allclose(total, 1, atol=1e-5)


def test_rollout_is_the_product_of_half_identity_and_half_attention(wide):
    """Row 0 of the product over all encoders, the last one leftmost."""
    maps = visualize.attention_rollout(wide, WIDE)
    for branch, attention in maps.items():
        product = None
        for number in range(2):
            block = wide.get_layer(f"stage_{number}")
            x = dict(zip(("small", "large"), value(wide, block.input), strict=True))[branch]
            for encoder in getattr(block, f"{branch}_blocks"):
                w = below(encoder)
                qkv = reference.linear(
                    reference.layer_norm(x, w, "norm1"), reference.below(w, "attention"), "qkv"
                )
                q, k, _ = (split(part, HEADS[branch]) for part in np.split(qkv, 3, axis=-1))
                mean = attention_weights(q, k).mean(axis=1)
                step = 0.5 * np.eye(mean.shape[-1]) + 0.5 * mean
                product = step if product is None else step @ product
                x = np.array(encoder(x.astype("float32")), "float64")
        np.testing.assert_allclose(attention.itself, product[:, 0, 0], atol=1e-5)
        patches = product[:, 0, 1:].reshape(2, *GRIDS[branch])
        np.testing.assert_allclose(attention.patches, patches, atol=1e-5)
        np.testing.assert_allclose(attention.itself + attention.patches.sum((1, 2)), 1, atol=1e-5)


def test_rollout_of_known_attention():
    identity = np.broadcast_to(np.eye(4, dtype="float32"), (1, 2, 4, 4))
    even = np.full((1, 2, 4, 4), 0.25, "float32")
    np.testing.assert_array_equal(AttentionRollout()([identity] * 3), [[1, 0, 0, 0]])
    np.testing.assert_allclose(
        AttentionRollout()([identity, even]), [[0.625, 0.125, 0.125, 0.125]]
    )
    # Everything reads token 3, which is then half of all that is not kept.
    third = np.zeros((1, 1, 4, 4), "float32")
    third[..., 3] = 1
    np.testing.assert_allclose(AttentionRollout()([third, third]), [[0.25, 0, 0, 0.75]])


@pytest.mark.parametrize("stage", [0, 1, -1])
def test_feature_maps_are_the_tokens(wide, stage):
    maps = visualize.feature_maps(wide, WIDE, stage=stage)
    small, large = value(wide, wide.get_layer(f"stage_{stage % 2}").output)
    assert maps["small"].shape == (2, 5, 8, 16)
    assert maps["large"].shape == (2, 2, 4, 24)
    np.testing.assert_allclose(maps["small"][:, 2, 3], small[:, 1 + 2 * 8 + 3], atol=1e-5)
    np.testing.assert_allclose(maps["large"].reshape(2, 8, 24), large[:, 1:], atol=1e-5)


def logit_slope(model, branch, channel, classes, step=0.02):
    """The derivative of the logit with respect to a token (patch mean), by central differences.

    What enters the first encoder is moved through the position embeddings of the patches.
    """
    embedding = model.get_layer(f"{branch}_position_embedding").embedding
    before = keras.ops.convert_to_numpy(embedding).copy()
    move = np.zeros_like(before)
    move[:, 1:, channel] = step
    logits = []
    for sign in (1, -1):
        embedding.assign(before + sign * move)
        logits.append(model.predict_on_batch(WIDE)[np.arange(2), classes])
    embedding.assign(before)
    return (logits[0] - logits[1]) / (2 * step) / (before.shape[1] - 1)


@pytest.mark.parametrize("num_stages", [1, 2])
def test_gradcam_is_the_slope_of_the_logit(num_stages):
    """Against finite differences of the model itself; with two stages, through the second."""
    model = base.small_model(
        shallow_config(num_stages=num_stages), input_shape=(40, 64, 3), classifier_activation=None
    )
    classes = np.array([3, 1])
    maps = visualize.gradcam(model, WIDE, classes=classes, stage=0)
    for branch in ("small", "large"):
        (tokens,) = value(model, model.get_layer(f"{branch}_position_embedding").output)
        width = tokens.shape[-1]
        slopes = [logit_slope(model, branch, c, classes) for c in range(width)]
        cam = np.einsum("bnc,cb->bn", tokens[:, 1:], np.array(slopes))
        expected = np.maximum(cam, 0).reshape(2, *GRIDS[branch])
        scale = np.abs(cam).max()
        np.testing.assert_allclose(maps[branch] / scale, expected / scale, atol=0.02)
        assert 0 < (expected > 0.02 * scale).mean() < 1


def test_gradcam_of_the_last_stage_is_that_of_a_model_cut_there():
    """The last encoders' input, with branches of unequal depth: the same gradient by hand."""
    import tensorflow as tf

    model = base.small_model(input_shape=(40, 64, 3), classifier_activation=None)
    maps = visualize.gradcam(model, WIDE, classes=2)
    block = model.get_layer("stage_1")
    small, large = (tf.constant(x, "float32") for x in value(model, block.input))
    large = block.large_blocks[0](large)
    with tf.GradientTape() as tape:
        tape.watch([small, large])
        tokens = block.fuse([block.small_blocks[0](small), block.large_blocks[1](large)])
        logits = [
            model.get_layer(f"{x}_head")(model.get_layer(f"{x}_norm")(t[:, 0]))
            for x, t in zip(("small", "large"), tokens, strict=True)
        ]
        total = tf.reduce_sum((logits[0][:, 2] + logits[1][:, 2]) / 2)
    for branch, x, g in zip(
        ("small", "large"), (small, large), tape.gradient(total, [small, large]), strict=True
    ):
        cam = np.einsum("bnc,bc->bn", x[:, 1:], np.mean(g[:, 1:], axis=1))
        expected = np.maximum(cam, 0).reshape(2, *GRIDS[branch])
        np.testing.assert_allclose(maps[branch], expected, atol=1e-5)
    assert maps["both"].shape == (2, 40, 64)
    assert maps["both"].min() >= 0
    parts = sum(maps[x].sum((1, 2)) for x in ("small", "large"))
    np.testing.assert_allclose(maps["both"].sum((1, 2)), parts, rtol=1e-4)


def test_gradcam_explains_the_answer_unless_told(wide):
    answers = wide.predict_on_batch(WIDE).argmax(axis=1)
    own, told = visualize.gradcam(wide, WIDE), visualize.gradcam(wide, WIDE, classes=answers)
    np.testing.assert_array_equal(own["small"], told["small"])
    other = visualize.gradcam(wide, WIDE, classes=(answers + 1) % 5)
    assert np.abs(other["both"] - own["both"]).max() > 1e-4


def test_one_branch():
    model = base.small_model(deit_config())
    images = base.pixels(2, 32, 32)
    attention = visualize.attention_rollout(model, images)
    assert list(attention) == ["large"]
    assert attention["large"].patches.shape == (2, 2, 2)
    maps = visualize.feature_maps(model, images, stage=1)
    tokens = keras.Model(model.input, model.get_layer("large_block_1").output)(images)
    np.testing.assert_allclose(maps["large"].reshape(2, 4, 24), tokens[:, 1:], atol=1e-5)
    cam = visualize.gradcam(model, images)
    assert list(cam) == ["large", "both"]
    scores = [score for _, score in visualize.class_scores(model, images)]
    np.testing.assert_allclose(scores, model.predict_on_batch(images).max(axis=1), atol=1e-5)
    with pytest.raises(ValueError, match=r"`model` must .*cross_attention.* of one branch"):
        visualize.cross_attention(model, images)


@pytest.mark.parametrize("fusion", ["none", "all_attention", "class_token", "pairwise"])
def test_other_fusions(fusion):
    model = base.small_model(base.small_config(fusion=fusion, num_stages=1))
    images = base.pixels()
    assert visualize.attention_rollout(model, images)["small"].patches.shape == (2, 5, 5)
    assert visualize.gradcam(model, images)["large"].max() > 0
    with pytest.raises(ValueError, match=r"`model` must .* Received: a model with another fusion"):
        visualize.cross_attention(model, images)


def test_maps_at_the_size_of_the_picture():
    maps = np.array([[0.0, 4.0]])
    np.testing.assert_allclose(resize_maps(maps, 1, 4), [[0, 1, 3, 4]])
    np.testing.assert_allclose(resize_maps(maps, 3, 2), [[0, 4]] * 3)
    constant = resize_maps(np.full((2, 3, 5), 7.0), 40, 64)
    np.testing.assert_allclose(constant, np.full((2, 40, 64), 7.0), rtol=1e-6)
