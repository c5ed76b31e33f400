"""The multi-scale encoder: encoders, then the fusion of equations 5 to 7."""

import keras
import numpy as np
import pytest

from keras_crossvit import layers
from tests import reference

ARGUMENTS = {
    "small_depth": 1,
    "large_depth": 2,
    "small_num_heads": 2,
    "large_num_heads": 3,
    "small_mlp_ratio": 2,
    "large_mlp_ratio": 3,
}
SHAPES = [(None, 5, 8), (None, 10, 12)]


def both(batch=2):
    return [reference.tokens(batch, 5, 8, seed=1), reference.tokens(batch, 10, 12, seed=2)]


def multi_scale_block(**kwargs):
    layer = layers.MultiScaleBlock(**{**ARGUMENTS, **kwargs})
    layer.build(SHAPES)
    return reference.randomize(layer, scale=0.3)


def fusion(**kwargs):
    layer = layers.CrossAttentionFusion(small_num_heads=2, large_num_heads=3, **kwargs)
    layer.build(SHAPES)
    return reference.randomize(layer)


def assert_close(tokens, expected):
    for ours, theirs in zip(tokens, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)


def test_fusion_equals_equations_5_to_7_in_the_other_branch_width_and_heads():
    layer = fusion()
    w = reference.arrays(layer)
    small, large = both()
    new_small = reference.fused_class_token(small, large, w, "small", other_heads=3)
    new_large = reference.fused_class_token(large, small, w, "large", other_heads=2)
    fused = layer([small, large])
    assert_close([fused[0][:, :1], fused[1][:, :1]], [new_small, new_large])
    np.testing.assert_array_equal(fused[0][:, 1:], small[:, 1:])
    np.testing.assert_array_equal(fused[1][:, 1:], large[:, 1:])


def test_fusion_of_equal_widths_has_no_projections():
    layer = layers.CrossAttentionFusion(small_num_heads=2, large_num_heads=4)
    layer.build([(None, 5, 8), (None, 10, 8)])
    w = reference.arrays(reference.randomize(layer))
    assert {path.split("/")[0] for path in w} == {"small_block", "large_block"}
    small, large = reference.tokens(2, 5, 8, seed=1), reference.tokens(2, 10, 8, seed=2)
    joined = np.concatenate([small[:, :1], large[:, 1:]], axis=1)
    expected = reference.cross_attention_block(joined, reference.below(w, "small_block"), 4)
    assert_close([layer([small, large])[0][:, :1]], [expected])


def test_deeper_fusion_goes_on_with_the_class_token_alone():
    layer = fusion(depth=2)
    w = reference.arrays(layer)
    small, large = both()
    x = reference.projection(small[:, :1], reference.below(w, "small_projection"))
    x = np.concatenate([x, large[:, 1:]], axis=1)
    for index in range(2):
        part = reference.below(w, f"small_block_{index}")
        x = reference.cross_attention_block(x, part, 3)
    expected = reference.projection(x, reference.below(w, "small_back_projection"))
    assert_close([layer([small, large])[0][:, :1]], [expected])


def test_block_is_its_encoders_and_then_its_fusion():
    layer = multi_scale_block()
    w = reference.arrays(layer)
    small, large = both()
    small = reference.transformer_block(small, reference.below(w, "small_block_0"), 2)
    for index in range(2):
        part = reference.below(w, f"large_block_{index}")
        large = reference.transformer_block(large, part, 3)
    assert_close(layer.encode(both()), [small, large])
    assert_close(layer(both()), layer.fuse(layer.encode(both())))


def test_depth_and_ratio_belong_to_their_branch():
    w = reference.arrays(multi_scale_block())
    assert w["small_block_0/mlp/fc1/kernel"].shape == (8, 16)
    assert w["large_block_1/mlp/fc1/kernel"].shape == (12, 36)
    assert not [path for path in w if path.startswith("small_block_1")]


def test_encoder_i_takes_rate_i_and_the_fusion_the_last():
    layer = multi_scale_block(drop_path_rates=[0.1, 0.2])
    assert [block.drop_path.rate for block in layer.small_blocks] == [0.1]
    assert [block.drop_path.rate for block in layer.large_blocks] == [0.1, 0.2]
    ends = (*layer.fuse.small_blocks, *layer.fuse.large_blocks)
    assert [block.drop_path.rate for block in ends] == [0.2, 0.2]


def test_a_deeper_fusion_takes_the_last_rate_of_its_own():
    layer = multi_scale_block(fusion_depth=2, drop_path_rates=[0.1, 0.2, 0.3, 0.4])
    assert [block.drop_path.rate for block in layer.small_blocks] == [0.1]
    assert [block.drop_path.rate for block in layer.large_blocks] == [0.1, 0.2]
    ends = (*layer.fuse.small_blocks, *layer.fuse.large_blocks)
    assert [block.drop_path.rate for block in ends] == [0.4] * 4
    assert multi_scale_block(fusion_depth=2, drop_path_rates=[0, 0.1]).fuse.drop_path_rate == 0.1
    with pytest.raises(ValueError, match=r"must hold 2 rates, .* or 2 more for the fusion\. Rec"):
        multi_scale_block(fusion_depth=2, drop_path_rates=[0.1, 0.2, 0.3])


def test_seed_decides_all_draws_and_no_two_parts_draw_alike():
    rates = {"drop_path_rates": [0.5, 0.5]}
    first, again, other = (multi_scale_block(seed=seed, **rates) for seed in (1, 1, 2))
    outputs = [layer(both(16), training=True)[1] for layer in (first, again, other)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.abs(outputs[0] - outputs[2]).max() > 0.1
    parts = [*first.small_blocks, *first.large_blocks]
    parts += [*first.fuse.small_blocks, *first.fuse.large_blocks]
    assert len({part.seed for part in parts}) == 5


@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_weight_has_a_gradient(checkpointing):
    layer = multi_scale_block(gradient_checkpointing=checkpointing)
    norms = reference.gradient_norms(layer, both(), training=True)
    assert None not in norms.values(), norms
    still = {path for path, norm in norms.items() if norm < 1e-3}
    assert still <= {path for path in norms if path.endswith("key/bias")}


def two_branch_model(layer):
    inputs = [keras.Input(shape[1:]) for shape in SHAPES]
    pooled = [layers.TokenPool("token")(tokens) for tokens in layer(inputs)]
    return keras.Model(inputs, keras.layers.Concatenate()(pooled))


FITTED = [layers.MultiScaleBlock, *(layers.FUSIONS[name] for name in sorted(layers.FUSIONS))]
FITTED.remove(layers.NoFusion)  # it has no weights


@pytest.mark.parametrize("layer_class", FITTED)
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_fit_changes_every_weight(layer_class, policy):
    """What `run_layer_test` does for layers with one input."""
    arguments = {"small_num_heads": 2, "large_num_heads": 3}
    if layer_class is layers.MultiScaleBlock:
        arguments["large_depth"] = 2
    layer = layer_class(**arguments, dtype=policy)
    model = two_branch_model(layer)
    reference.randomize(layer, scale=0.3)
    before = [keras.ops.convert_to_numpy(v) for v in layer.weights]
    model.compile("adam", "mse", run_eagerly=True)
    history = model.fit(both(4), np.ones((4, 20), "float32"), epochs=3, verbose=0)
    losses = history.history["loss"]
    assert losses[-1] < losses[0]
    still = [
        v.path
        for v, old in zip(layer.weights, before, strict=True)
        if np.array_equal(keras.ops.convert_to_numpy(v), old)
    ]
    # The bias of the keys has a gradient of zero, apart from rounding.
    assert not [path for path in still if not path.endswith("key/bias")]
    for v in layer.weights:
        assert v.dtype == "float32"


def test_macs_add_up():
    layer = multi_scale_block()
    # Encoder: 4 N C^2 + 2 N^2 C of the attention, 2 N C (r C) of the MLP.
    small = 4 * 5 * 8**2 + 2 * 5**2 * 8 + 2 * 5 * 8 * 16
    large = 4 * 10 * 12**2 + 2 * 10**2 * 12 + 2 * 10 * 12 * 36
    # Cross-attention: query and output of one token, keys and values of all, 2 N C.
    reads_large = 2 * 12**2 + 2 * 10 * 12**2 + 2 * 10 * 12
    reads_small = 2 * 8**2 + 2 * 5 * 8**2 + 2 * 5 * 8
    assert layer.macs(SHAPES) == small + 2 * large + reads_large + reads_small + 4 * 8 * 12


def test_macs_of_other_cross_attentions():
    def reads(width, keys):
        return 2 * width**2 + 2 * keys * width**2 + 2 * keys * width

    reads_both, projections = reads(12, 10) + reads(8, 5), 4 * 8 * 12
    deeper = reads(12, 1) + reads(8, 1)  # the class token alone
    assert fusion(depth=3).macs(SHAPES) == reads_both + 2 * deeper + projections
    averages = fusion(class_token=False).macs(SHAPES)  # which come beside the tokens
    assert averages == reads(12, 11) + reads(8, 6) + projections
    equal = layers.CrossAttentionFusion(small_num_heads=2, large_num_heads=4)
    shapes = [(None, 5, 8), (None, 10, 8)]
    equal.build(shapes)
    assert equal.macs(shapes) == reads(8, 10) + reads(8, 5)
