"""The tokens-to-token module against NumPy."""

import keras
import numpy as np
import pytest

from keras_crossvit import layers
from keras_crossvit.layers.t2t import TOKEN_DIM
from tests import reference

# (window, stride, padding) of the three soft splits.
SPLITS = {12: ((7, 4, 2), (3, 3, 0), (3, 1, 1)), 16: ((7, 4, 2), (3, 2, 1), (3, 2, 1))}


def unfold(x, kernel, stride, padding):
    """All windows of `(B, H, W, C)`, one after the other, each flattened."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows = range(0, x.shape[1] - kernel + 1, stride)
    columns = range(0, x.shape[2] - kernel + 1, stride)
    return np.stack(
        [
            np.stack(
                [x[:, i : i + kernel, j : j + kernel].reshape(len(x), -1) for j in columns], 1
            )
            for i in rows
        ],
        axis=1,
    )


def performer(x, w):
    """Token_performer of T2T-ViT, in float64 and as it is written there, without dropout."""
    k, q, v = np.split(reference.linear(reference.layer_norm(x, w, "norm1"), w, "kqv"), 3, axis=-1)

    def features(x):
        random = w["random_features"]
        return np.exp(x @ random - (x**2).sum(-1, keepdims=True) / 2) / np.sqrt(random.shape[1])

    kp, qp = features(k), features(q)
    total = np.einsum("bti,bi->bt", qp, kp.sum(axis=1))[..., None]
    y = np.einsum("bti,bni->btn", qp, np.einsum("bin,bim->bnm", v, kp)) / total
    y = v + reference.linear(y, w, "proj")
    return y + reference.mlp(reference.layer_norm(y, w, "norm2"), reference.below(w, "mlp"))


def transformer(x, w):
    """Token_transformer of T2T-ViT, in float64, without dropout and drop path."""
    x = reference.layer_norm(x, w, "norm1")
    q, k, v = np.split(x @ w["qkv/kernel"], 3, axis=-1)
    weights = reference.softmax(q @ k.transpose(0, 2, 1) / np.sqrt(x.shape[-1]))
    y = v + reference.linear(weights @ v, w, "proj")
    return y + reference.mlp(reference.layer_norm(y, w, "norm2"), reference.below(w, "mlp"))


MIXERS = {layers.T2TPatchEmbed: performer, layers.T2TTransformerPatchEmbed: transformer}


@pytest.mark.parametrize("split", sorted({s for splits in SPLITS.values() for s in splits}))
def test_soft_split_is_an_unfold(split):
    x = reference.tokens(2, 12, 24, 3)
    layer = layers.SoftSplit(*split)
    expected = unfold(x, *split)
    np.testing.assert_array_equal(layer(x), expected.astype("float32"))
    assert layer.compute_output_shape(x.shape) == expected.shape


def test_soft_split_of_a_counted_map():
    x = np.arange(1, 10, dtype="float32").reshape(1, 3, 3, 1)
    y = np.array(layers.SoftSplit(3, 2, 1)(x))[0]
    assert y[0, 0].tolist() == [0, 0, 0, 0, 1, 2, 0, 4, 5]
    assert y[1, 1].tolist() == [5, 6, 0, 8, 9, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((0, 2), "kernel_size"), ((3, 0), "stride"), ((3, 2, -1), "padding")],
)
def test_soft_split_names_what_is_wrong(arguments, name):
    with pytest.raises(ValueError, match=rf"`{name}` .* Received: {name}=(0|-1)"):
        layers.SoftSplit(*arguments)


def token_performer(width=9, units=6):
    layer = layers.TokenPerformer(units)
    layer.build((None, 7, width))
    return reference.randomize(layer)


def test_performer_is_that_of_t2t_vit():
    layer = token_performer()
    x = reference.tokens(2, 7, 9)
    np.testing.assert_allclose(layer(x), performer(x, reference.arrays(layer)), atol=1e-4)


def test_performer_is_finite_where_its_exponentials_are_not():
    layer = token_performer()
    layer.kqv.kernel.assign(100 * layer.kqv.kernel)  # |k|^2 / 2 in the thousands
    assert np.isfinite(np.array(layer(reference.tokens(2, 7, 9)))).all()
    layer = layers.TokenPerformer(2, num_features=2)
    layer.build((None, 1, 2))
    layer.random_features.assign(1000 * np.eye(2))
    query, key = np.eye(2, dtype="float32").reshape(2, 1, 1, 2)  # have no feature in common
    assert np.isfinite(np.array(layer.attend(query, key, key))).all()


def test_performer_estimates_softmax_attention():
    """Many random features of unscaled scores come close to the softmax of equation 6."""
    layer = layers.TokenPerformer(4, num_features=4096)
    layer.build((None, 5, 4))
    random = np.random.default_rng(0).standard_normal((4, 4096))
    layer.random_features.assign(random)
    q, k, v = (0.5 * reference.tokens(1, 5, 4, seed=seed) for seed in range(3))
    expected = reference.softmax(q @ k.transpose(0, 2, 1)) @ v
    np.testing.assert_allclose(layer.attend(q, k, v), expected, atol=0.02)


def test_random_features_are_orthogonal_and_stay():
    layer = layers.TokenPerformer(8)
    layer.build((None, 5, 6))
    w = keras.ops.convert_to_numpy(layer.random_features)
    np.testing.assert_allclose(w.T @ w, 4 * np.eye(4), atol=1e-5)
    assert [v.name for v in layer.non_trainable_weights] == ["random_features"]


@pytest.mark.parametrize("training", [False, True])
def test_transformer_is_that_of_t2t_vit(training):
    layer = layers.TokenTransformer(6)
    layer.build((None, 7, 9))
    reference.randomize(layer)
    x = reference.tokens(2, 7, 9)
    expected = transformer(x, reference.arrays(layer))
    np.testing.assert_allclose(layer(x, training=training), expected, atol=1e-4)


@pytest.mark.parametrize("patch_size", [12, 16])
@pytest.mark.parametrize("layer_class", MIXERS)
def test_embedding_is_splits_and_mixers_in_turn(layer_class, patch_size):
    layer = layer_class(patch_size, 5)
    layer.build((None, 48, 96, 3))
    # Small weights: the features of a hundred normal values would leave float32's range.
    w = reference.arrays(reference.randomize(layer, scale=0.05))
    image = reference.tokens(2, 48, 96, 3)
    x = unfold(image.astype("float64"), *SPLITS[patch_size][0])
    for name, split in zip(("attention1", "attention2"), SPLITS[patch_size][1:], strict=True):
        batch, rows, columns, width = x.shape
        x = MIXERS[layer_class](x.reshape(batch, -1, width), reference.below(w, name))
        x = unfold(x.reshape(batch, rows, columns, TOKEN_DIM), *split)
    assert x.shape == (2, 48 // patch_size, 96 // patch_size, 9 * TOKEN_DIM)
    assert layer.grid == x.shape[1:3]
    expected = reference.linear(x.reshape(2, -1, 9 * TOKEN_DIM), w, "project")
    np.testing.assert_allclose(layer(image), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("layer_class", "count"),
    [(layers.T2TPatchEmbed, 2 * 12 + 2), (layers.T2TTransformerPatchEmbed, 2 * 11 + 2)],
)
def test_every_trainable_weight_has_a_gradient(layer_class, count):
    layer = layer_class(16, 5)
    layer.build((None, 32, 48, 3))
    reference.randomize(layer, scale=0.1)
    norms = reference.gradient_norms(layer, reference.tokens(2, 32, 48, 3))
    assert all(norms.values()), norms
    assert len(norms) == count


def test_macs():
    def attention(length, width):  # linear layers; features, products with values and sums
        return length * (3 * 64 * width + 3 * 64**2 + 32 * (4 * 64 + 1))

    # 48 x 48: 12 x 12 tokens of 7 x 7 x 3, 4 x 4 of 3 x 3 x 64, 4 x 4 of the same.
    expected = attention(144, 147) + attention(16, 576) + 16 * 576 * 8
    assert layers.T2TPatchEmbed(12, 8).macs((None, 48, 48, 3)) == expected


def test_macs_of_transformers():
    def attention(length, width):  # linear layers; scores and weighted sums
        return length * (3 * 64 * width + 3 * 64**2) + 2 * 64 * length**2

    expected = attention(144, 147) + attention(16, 576) + 16 * 576 * 8
    assert layers.T2TTransformerPatchEmbed(12, 8).macs((None, 48, 48, 3)) == expected


def test_patches_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match=r"`patch_size` must be one of 12, 16. Received: .*8"):
        layers.T2TPatchEmbed(8, 16)
