"""The fusions of table 6 against equations 2 to 4 in NumPy."""

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit import layers
from tests import base, reference

HEADS = {"small_num_heads": 2, "large_num_heads": 3}
GRIDS = {"small_grid": (2, 3), "large_grid": (2, 2)}
FUSIONS = ("none", "all_attention", "class_token", "pairwise", "cross_attention")


def both(class_token=True):
    """Tokens of 2 x 3 patches of width 8 and of 2 x 2 patches of width 12."""
    small = reference.tokens(2, class_token + 6, 8, seed=1)
    return [small, reference.tokens(2, class_token + 4, 12, seed=2)]


def fusion(name, **kwargs):
    layer = layers.FUSIONS[name](**{**HEADS, **GRIDS, **kwargs})
    layer.build([x.shape for x in both(kwargs.get("class_token", True))])
    return reference.randomize(layer)


def project(x, w, name):
    return reference.projection(x, reference.below(w, name))


def assert_equal(ours, theirs):
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-4)


def test_the_five_of_table_6_are_registered():
    assert set(FUSIONS) <= set(layers.FUSIONS)
    assert layers.FUSIONS["pairwise"] is layers.PairwiseFusion


def test_none_changes_nothing():
    for ours, theirs in zip(fusion("none")(both()), both(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_all_attention_is_equation_2():
    layer = fusion("all_attention")
    w = reference.arrays(layer)
    small, large = both()
    y = np.concatenate(
        [project(large, w, "large_projection"), project(small, w, "small_projection")], axis=1
    )
    normed = reference.layer_norm(y, w, "norm")
    o = y + reference.self_attention(normed, reference.below(w, "attention"), 3)
    expected = [
        project(o[:, 5:], w, "small_back_projection"),
        project(o[:, :5], w, "large_back_projection"),
    ]
    assert_equal(layer([small, large]), expected)


def test_all_attention_drops_its_attention_in_training():
    layer = fusion("all_attention", drop_path_rate=0.999, seed=1)
    w = reference.arrays(layer)
    small, large = both()
    expected = [
        project(project(small, w, "small_projection"), w, "small_back_projection"),
        project(project(large, w, "large_projection"), w, "large_back_projection"),
    ]
    assert_equal(layer([small, large], training=True), expected)
    assert layer.drop_path.seed == 1


def test_class_token_is_equation_3():
    layer = fusion("class_token")
    w = reference.arrays(layer)
    small, large = both()
    total = project(small[:, :1], w, "small_projection") + large[:, :1]
    fused = layer([small, large])
    assert_equal(
        [fused[0][:, :1], fused[1][:, :1]], [project(total, w, "small_back_projection"), total]
    )
    np.testing.assert_array_equal(fused[0][:, 1:], small[:, 1:])
    np.testing.assert_array_equal(fused[1][:, 1:], large[:, 1:])


def move(patches, grid, other):
    """Patch tokens `(B, N, C)` of one grid, resized to the other."""
    maps = patches.reshape(len(patches), *grid, -1)
    moved = np.stack([reference.cubic_resize(x, *other) for x in maps])
    return moved.reshape(len(patches), other[0] * other[1], -1)


@pytest.mark.parametrize("class_token", [True, False])
def test_pairwise_is_equation_4_with_each_branch_on_its_own_grid(class_token):
    layer = fusion("pairwise", class_token=class_token)
    w = reference.arrays(layer)
    small, large = both(class_token)
    projected = project(small, w, "small_projection")
    first = 1 if class_token else 0
    small_sum = projected[:, first:] + move(large[:, first:], (2, 2), (2, 3))
    large_sum = large[:, first:] + move(projected[:, first:], (2, 3), (2, 2))
    if class_token:
        total = projected[:, :1] + large[:, :1]
        small_sum = np.concatenate([total, small_sum], axis=1)
        large_sum = np.concatenate([total, large_sum], axis=1)
    expected = [project(small_sum, w, "small_back_projection"), large_sum]
    assert_equal(layer([small, large]), expected)


def test_cross_attention_without_class_tokens_moves_the_averages():
    """Section 4.3: the average is the query; the branch's average becomes the answer."""
    layer = fusion("cross_attention", class_token=False)
    w = reference.arrays(layer)
    small, large = both(class_token=False)
    means = [x.mean(axis=1, keepdims=True) for x in (small, large)]
    answers = [
        reference.fused_class_token(
            means[0], np.concatenate([means[1], large], axis=1), w, "small", other_heads=3
        ),
        reference.fused_class_token(
            means[1], np.concatenate([means[0], small], axis=1), w, "large", other_heads=2
        ),
    ]
    fused = layer([small, large])
    assert_equal(fused, [small + answers[0] - means[0], large + answers[1] - means[1]])
    assert_equal([np.mean(x, axis=1, keepdims=True) for x in fused], answers)


@pytest.mark.parametrize("name", ["all_attention", "class_token", "pairwise"])
def test_macs_of_each_equation(name):
    expected = {
        # f and g of 7 + 5 tokens; attention of 12 tokens of width 12.
        "all_attention": 2 * 7 * 8 * 12 + 2 * 5 * 12 * 12 + 4 * 12 * 12**2 + 2 * 12**2 * 12,
        "class_token": 2 * 8 * 12,
        "pairwise": 2 * 7 * 8 * 12,
    }
    assert fusion(name).macs([x.shape for x in both()]) == expected[name]


@pytest.mark.parametrize("name", ["class_token", "pairwise"])
def test_branches_of_equal_width_need_no_projections(name):
    layer = layers.FUSIONS[name](**HEADS)
    shapes = [(2, 5, 12), (2, 5, 12)]
    layer.build(shapes)
    assert layer.weights == []
    assert layer.macs(shapes) == 0
    small, large = reference.tokens(*shapes[0], seed=1), reference.tokens(*shapes[1], seed=2)
    assert_equal([x[:, 0] for x in layer([small, large])], 2 * [small[:, 0] + large[:, 0]])


@pytest.mark.parametrize("name", ["none", "all_attention", "class_token", "pairwise"])
def test_only_cross_attention_stacks(name):
    with pytest.raises(ValueError, match=r"`depth` .* must be 1 .* Received: depth=2"):
        layers.FUSIONS[name](**HEADS, depth=2)


def test_class_token_fusion_needs_class_tokens():
    with pytest.raises(ValueError, match=r"`class_token` must be True .* class_token=False"):
        layers.ClassTokenFusion(**HEADS, class_token=False)


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        ({}, r"`small_grid` must be \(rows, columns\) with a product of 6.* small_grid=None"),
        ({"small_grid": (2, 3), "large_grid": (1, 3)}, r"`large_grid` .* large_grid=\(1, 3\)"),
        ({"small_grid": (2, 3, 1)}, r"`small_grid` must be \(rows, columns\) or None"),
        ({"small_grid": (0, 3)}, r"`small_grid` must be a positive integer"),
    ],
)
def test_pairwise_refuses_grids_that_do_not_fit(grids, message):
    with pytest.raises(ValueError, match=message):
        layers.PairwiseFusion(**HEADS, **grids).build([x.shape for x in both()])


def test_pairwise_refuses_an_unknown_number_of_tokens():
    with pytest.raises(ValueError, match=r"^PairwiseFusion needs a known number of tokens\. Rec"):
        layers.PairwiseFusion(**HEADS, **GRIDS).build([(None, 7, 8), (None, None, 12)])


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("class_token", [True, False])
def test_gradients_reach_every_variable_of_a_model(name, class_token):
    if name == "class_token" and not class_token:
        with pytest.raises(ValueError, match="`class_token` must be True"):
            base.small_model(base.small_config(fusion=name, class_token=False))
        return
    config = base.small_config(fusion=name, class_token=class_token)
    model = base.small_model(config, classifier_activation=None)
    norms = reference.gradient_norms(model, base.pixels())
    assert None not in norms.values(), [path for path, norm in norms.items() if norm is None]
    still = [path for path, norm in norms.items() if norm == 0]
    assert not [path for path in still if not path.endswith("key/bias")]


@pytest.mark.filterwarnings("error:You are using a softmax")
def test_gradients_of_a_deeper_fusion_are_zero_where_there_is_one_token():
    """Zero, not missing: of the queries and keys of the modules after the first."""
    config = base.small_config(fusion_depth=2, num_stages=1)
    model = base.small_model(config, classifier_activation=None)
    norms = reference.gradient_norms(model, base.pixels())
    parts = [f"{part}/{leaf}" for part in ("query", "key") for leaf in ("kernel", "bias")]
    expected = [
        f"stage_0/fusion/{branch}_block_1/attention/{part}"
        for branch in ("small", "large")
        for part in parts
    ]
    assert sorted(path for path, norm in norms.items() if not norm) == sorted(expected)
    assert {norms[path] for path in expected} == {0.0}


def test_a_fusion_of_ten_lines_outside_of_the_package_trains():
    @kc.layers.register_fusion("tests_swap_means_in_ten_lines")
    class TenLines(kc.layers.Fusion):
        def build(self, input_shape):
            (_, _, small), (_, _, large) = input_shape
            self.to_small, self.to_large = keras.layers.Dense(small), keras.layers.Dense(large)
            self.to_small.build((None, large))
            self.to_large.build((None, small))

        def call(self, tokens, training=False):
            small, large = (keras.ops.mean(x, axis=1, keepdims=True) for x in tokens)
            return [tokens[0] + self.to_small(large), tokens[1] + self.to_large(small)]

    config = base.small_config(fusion="tests_swap_means_in_ten_lines", num_stages=1)
    model = base.small_model(config, drop_path_rate=0.1)
    kernel = model.get_layer("stage_0").fuse.to_small.kernel
    before = keras.ops.convert_to_numpy(kernel)
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    labels = np.array([0, 1])
    losses = model.fit(base.pixels(), labels, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert np.abs(keras.ops.convert_to_numpy(kernel) - before).max() > 0
