"""What a model returns: heads, features in four forms, branches, and from what input."""

import types

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit.models.answers import probabilities
from tests import base, reference

BRANCHES = ("small", "large")


@pytest.fixture(scope="module")
def features():
    """The features of one batch in all four forms, from models with the same weights."""
    x = base.pixels()
    return {
        pooling: keras.tree.map_structure(
            np.array, base.small_model(include_top=False, pooling=pooling)(x)
        )
        for pooling in (None, "token", "avg", "max")
    }


def test_tokens_of_both_branches(features):
    small, large = features[None]
    assert small.shape == (2, 1 + 25, 16)
    assert large.shape == (2, 1 + 4, 24)


@pytest.mark.parametrize(
    ("pooling", "pool"),
    [
        ("token", lambda tokens: tokens[:, 0]),
        ("avg", lambda tokens: tokens[:, 1:].mean(axis=1)),
        ("max", lambda tokens: tokens[:, 1:].max(axis=1)),
    ],
)
def test_pooled_features_are_made_of_the_tokens(features, pooling, pool):
    expected = np.concatenate([pool(tokens) for tokens in features[None]], axis=1)
    assert expected.shape == (2, 16 + 24)
    np.testing.assert_allclose(features[pooling], expected, atol=2e-6)


def test_tokens_are_the_stages_applied_to_the_embedded_images(model):
    """The whole graph by hand: normalise, resize, embed, add tokens, stages, norm, heads."""
    x = base.pixels()
    w = {v.path: np.array(v).astype("float64") for v in model.weights}
    scaled = (x / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    views = {
        "small": scaled,
        "large": np.stack([reference.cubic_resize(image, 32, 32) for image in scaled]),
    }
    tokens = []
    for branch, patch in (("small", 8), ("large", 16)):
        kernel = w[f"{branch}_patch_embed/proj/kernel"]
        side = views[branch].shape[1] // patch
        patches = views[branch].reshape(2, side, patch, side, patch, 3).transpose(0, 1, 3, 2, 4, 5)
        patches = patches.reshape(2, side**2, -1) @ kernel.reshape(-1, kernel.shape[-1])
        patches = patches + w[f"{branch}_patch_embed/proj/bias"]
        token = np.tile(w[f"{branch}_class_token/token"], (2, 1, 1))
        joined = np.concatenate([token, patches], axis=1)
        tokens.append(joined + w[f"{branch}_position_embedding/embedding"])
    for index in range(2):
        tokens = model.get_layer(f"stage_{index}")([np.array(t, "float32") for t in tokens])
    logits = []
    for branch, branch_tokens in zip(BRANCHES, tokens, strict=True):
        normed = reference.layer_norm(np.array(branch_tokens)[:, 0], w, f"{branch}_norm")
        logits.append(reference.linear(normed, w, f"{branch}_head"))
    np.testing.assert_allclose(model(x), np.mean(logits, axis=0), atol=2e-5, rtol=1e-5)


@pytest.mark.filterwarnings("error")
def test_mean_of_the_branch_logits_is_the_logits(model):
    x = base.pixels()
    branches = kc.branch_logits(model)(x)
    assert set(branches) == set(BRANCHES)
    mean = (branches["small"] + branches["large"]) / 2
    np.testing.assert_allclose(mean, model(x), atol=1e-6)
    assert np.abs(branches["small"] - branches["large"]).max() > 0.1


def test_branch_logits_share_the_weights(fresh_model):
    branches = kc.branch_logits(fresh_model)
    x = base.pixels()
    before = np.array(branches(x)["small"])
    fresh_model.get_layer("small_head").bias.assign_add(np.ones(5))
    np.testing.assert_allclose(branches(x)["small"], before + 1, atol=1e-5)


def test_branch_logits_are_averaged_as_the_model_does_in_half_precision():
    model = base.small_model(dtype="mixed_bfloat16", classifier_activation=None)
    x = base.pixels()
    branches = {name: np.array(x) for name, x in kc.branch_logits(model)(x).items()}
    assert {str(logits.dtype) for logits in branches.values()} == {"float32"}
    mean = (branches["small"] + branches["large"]) / 2
    np.testing.assert_array_equal(mean, model(x))


def test_classifier_activation(model):
    x = base.pixels()
    logits = np.array(model(x)).astype("float64")
    probabilities = base.small_model()(x)
    np.testing.assert_allclose(probabilities, reference.softmax(logits), atol=1e-6)
    sigmoid = base.small_model(classifier_activation="sigmoid")(x)
    np.testing.assert_allclose(sigmoid, 1 / (1 + np.exp(-logits)), atol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("activation", "expected"),
    [("hard_sigmoid", 2 / 3), ("softmax", 0.7310586), (None, 0.7310586)],
)
def test_probability_of_one_class(activation, expected):
    """By the model's own activation, except that a softmax would give 1."""
    one = types.SimpleNamespace(classes=1, classifier_activation=activation)
    np.testing.assert_allclose(probabilities(one, [[1.0]]), [[expected]], atol=1e-6)


def test_input_tensor_is_where_the_graph_begins(model):
    images = keras.Input((40, 40, 3))
    flipped = keras.layers.Rescaling(-1, offset=255)(images)
    on_top = base.small_model(input_tensor=flipped, classifier_activation=None)
    x = base.pixels()
    assert on_top.inputs == [images]
    np.testing.assert_allclose(on_top(255 - x), model(x), atol=1e-5)


@pytest.mark.filterwarnings("error")
def test_input_tensor_that_is_an_input(model):
    images = keras.Input((40, 40, 3), name="mine")
    on_top = base.small_model(input_tensor=images, classifier_activation=None)
    assert on_top.inputs == [images]
    x = base.pixels()
    np.testing.assert_allclose(on_top(x), model(x), atol=1e-6)


def test_non_square_input_equals_the_square_model_on_what_it_sees():
    """A wide image: the grids are wide, and rows are not confused with columns."""
    wide = base.small_model(input_shape=(40, 80, 3), include_top=False)
    tall = base.small_model(input_shape=(80, 40, 3), include_top=False)
    grids = [[m.get_layer(f"{b}_patch_embed").grid for b in BRANCHES] for m in (wide, tall)]
    assert grids == [[(5, 10), (2, 4)], [(10, 5), (4, 2)]]
    # Transposed image, kernels and positions: the same class tokens.
    for branch, grid in zip(BRANCHES, grids[0], strict=True):
        embed = [m.get_layer(f"{branch}_patch_embed").convs[0].kernel for m in (wide, tall)]
        embed[1].assign(np.array(embed[0]).transpose(1, 0, 2, 3))
        positions = [m.get_layer(f"{branch}_position_embedding").embedding for m in (wide, tall)]
        old = np.array(positions[0])
        turned = old[0, 1:].reshape(*grid, -1).transpose(1, 0, 2).reshape(1, -1, old.shape[-1])
        positions[1].assign(np.concatenate([old[:, :1], turned], axis=1))
    x = base.pixels(2, 40, 80)
    for ours, theirs in zip(wide(x), tall(x.transpose(0, 2, 1, 3)), strict=True):
        np.testing.assert_allclose(ours[:, 0], theirs[:, 0], atol=1e-4)


@pytest.mark.parametrize(
    ("side", "small", "large"),
    [
        (240, 240, 224),
        (408, 408, 384),
        (504, 504, 480),
        (224, 228, 224),
        (54, 60, 64),  # halfway between two multiples
        (100, 96, 96),
        (16, 12, 16),
    ],
)
def test_published_architectures_see_the_sizes_of_the_contract(side, small, large):
    sizes = kc.CrossViTConfig.preset("crossvit_9").branch_sizes(side, 240)
    assert sizes == {"small": (small, 240), "large": (large, 224)}


def test_preprocessing_is_inside_or_outside(model):
    x = base.pixels()
    outside = base.small_model(include_preprocessing=False, classifier_activation=None)
    prepared = kc.preprocess_input(x, include_preprocessing=False)
    expected = (x / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(prepared, expected, atol=1e-5)
    np.testing.assert_allclose(outside(prepared), model(x), atol=1e-5)
    assert kc.preprocess_input(x) is x


def test_decode_predictions_names_the_highest(monkeypatch):
    index = {str(i): [f"n{i:08}", f"class_{i}"] for i in range(1000)}
    monkeypatch.setattr("keras.src.applications.imagenet_utils.CLASS_INDEX", index)
    probabilities = np.zeros((2, 1000), "float32")
    probabilities[0, [7, 3, 999]] = [0.5, 0.3, 0.2]
    probabilities[1, 42] = 1
    named = kc.decode_predictions(probabilities, top=3)
    assert named[0] == [
        ("n00000007", "class_7", np.float32(0.5)),
        ("n00000003", "class_3", np.float32(0.3)),
        ("n00000999", "class_999", np.float32(0.2)),
    ]
    assert named[1][0] == ("n00000042", "class_42", 1.0)


def test_dropout_before_the_heads_and_drop_path_work_in_training_only():
    x = base.pixels(8)
    plain = base.small_model(classifier_activation=None)
    for rates in ({"drop_rate": 0.5}, {"drop_path_rate": 0.5}):
        model = base.small_model(classifier_activation=None, **rates)
        np.testing.assert_allclose(model(x), plain(x), atol=1e-6)
        assert np.abs(model(x, training=True) - plain(x, training=True)).max() > 0.1
    # Training uses other kernels: equal apart from rounding, with logits up to 2.
    np.testing.assert_allclose(plain(x, training=True), plain(x), atol=3e-6)


def test_drop_path_grows_linearly_over_the_stages():
    model = base.small_model(drop_path_rate=0.3)
    rates = [model.get_layer(f"stage_{stage}").drop_path_rates for stage in range(2)]
    np.testing.assert_allclose(rates, [[0, 0.1], [0.2, 0.3]], atol=1e-12)


def test_drop_path_counts_a_deeper_fusion_as_the_released_code_does():
    """Rates of its blocks and fusions for depth=[[1, 2, 2]] * 2 and drop_path_rate=0.7."""
    model = base.small_model(base.small_config(fusion_depth=2), drop_path_rate=0.7)
    table = [([0.0], [0.0, 0.1], [0.3, 0.3]), ([0.4], [0.4, 0.5], [0.7, 0.7])]
    for stage, (small, large, fusion) in zip(model.stages, table, strict=True):
        for blocks, rates in (
            (stage.small_blocks, small),
            (stage.large_blocks, large),
            (stage.fuse.small_blocks, fusion),
            (stage.fuse.large_blocks, fusion),
        ):
            found = [block.drop_path.rate for block in blocks]
            np.testing.assert_allclose(found, rates, atol=1e-12)
