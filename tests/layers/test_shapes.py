"""Layers by themselves: an input of another shape than theirs is refused in one line."""

import re

import keras
import numpy as np
import pytest

from keras_crossvit import layers
from tests import reference

FOUND = {
    "rank 2": "expected ndim=3, found ndim=2",
    "rank 4": "expected ndim=3, found ndim=4",
    "width": "expected axis -1 of input shape to have value 16, but received input with shape",
    "number": "expected axis -2 of input shape to have value 5, but received input with shape",
}


def zeros(*shape):
    return np.zeros(shape, "float32")


def refuses(layer, found, *inputs):
    """Whether the last of the inputs is refused, after the others were taken."""
    *before, last = inputs
    for x in before:
        layer(x)
    with pytest.raises(ValueError, match=re.escape(found)) as raised:
        layer(last)
    assert "\n" not in str(raised.value)
    return True


@pytest.mark.parametrize(
    "make",
    [
        layers.ClassToken,
        layers.PositionEmbedding,
        layers.Mlp,
        lambda: layers.SelfAttention(2),
        lambda: layers.TransformerBlock(2),
        lambda: layers.CrossAttention(2),
    ],
)
def test_tokens(make):
    assert refuses(make(), FOUND["rank 2"], zeros(2, 16))
    assert refuses(make(), FOUND["rank 4"], keras.Input((2, 3, 16)))
    assert refuses(make(), FOUND["width"], zeros(2, 5, 16), zeros(2, 5, 8))


def test_another_number_of_tokens():
    tokens = zeros(2, 5, 16)
    assert refuses(layers.PositionEmbedding(), FOUND["number"], tokens, zeros(2, 1, 16))
    pairwise = layers.FUSIONS["pairwise"](2, 2)
    assert refuses(pairwise, FOUND["number"], [tokens, tokens], [tokens, zeros(2, 10, 16)])
    assert layers.SelfAttention(2)(tokens).shape == (2, 5, 16)


def in_graph(function, *inputs):
    """What it returns in a graph that does not know the number of tokens, with the values."""
    import tensorflow as tf

    signature = [tf.TensorSpec((None, None, x.shape[-1])) for x in inputs]
    return tf.function(lambda *x: function(*x), input_signature=signature)(*inputs)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others know all shapes")
@pytest.mark.parametrize("fusion", ["none", "class_token", "cross_attention", "all_attention"])
def test_an_unknown_number_of_tokens(fusion):
    block = layers.MultiScaleBlock(1, 1, 2, 4, fusion=fusion)
    block.build([(None, None, 8), (None, None, 16)])
    reference.randomize(block)
    for lengths in ((5, 10), (7, 3)):
        tokens = [reference.tokens(2, n, width) for n, width in zip(lengths, (8, 16), strict=True)]
        found = in_graph(lambda *x: block(list(x)), *tokens)
        for ours, expected in zip(found, block(tokens), strict=True):
            np.testing.assert_allclose(ours, expected, atol=1e-5)
        encoder = block.small_blocks[0].attention
        found = in_graph(encoder.attention_map, tokens[0])
        np.testing.assert_allclose(found, encoder.attention_map(tokens[0]), atol=1e-6)


def test_pooling_takes_tokens():
    assert refuses(layers.TokenPool("token"), FOUND["rank 2"], zeros(2, 16))


def test_the_branches_of_a_multi_scale_block():
    def block():
        return layers.MultiScaleBlock(1, 1, 2, 2)

    tokens = keras.Input((5, 16))
    assert refuses(block(), "expects 2 input(s), but it received 1 input tensors", tokens)
    assert refuses(block(), "expects 2 input(s), but it received 3 input tensors", 3 * [tokens])
    assert refuses(block(), FOUND["rank 2"], [tokens, keras.Input((16,))])
    assert refuses(block(), FOUND["width"], [tokens, tokens], [tokens, keras.Input((5, 8))])


@pytest.mark.parametrize("embed", [layers.PatchEmbed, layers.ConvPatchEmbed])
def test_images_of_another_size_are_no_other_images(embed):
    """By their number of patches, 4 of 24 x 48 pixels would be 8 of 24 x 24."""
    for shape in ((4, 24, 48, 3), (1, 48, 48, 3), (4, 30, 30, 3)):
        found = f"expected shape=(None, 24, 24, 3), found shape={shape}"
        assert refuses(embed(12, 16), found, zeros(2, 24, 24, 3), zeros(*shape))
    assert refuses(embed(12, 16), "of known size", keras.Input((24, 24, None)))


def test_a_hidden_width_of_nothing():
    message = (
        "`mlp_ratio` must be at least 1 / 16 for tokens of width 16. Received: mlp_ratio=0.01"
    )
    assert refuses(layers.Mlp(0.01), message, zeros(2, 5, 16))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others know all shapes")
@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.BicubicResize(12, 36),
        lambda: layers.PatchEmbed(12, 16),
        lambda: layers.ConvPatchEmbed(12, 16),
        lambda: layers.T2TPatchEmbed(12, 16),
    ],
)
def test_images_of_which_a_graph_does_not_know_the_size(make):
    """By their number of patches, 2 of 48 x 24 pixels would be 4 of 24 x 24."""
    import tensorflow as tf

    layer, images = make(), reference.tokens(2, 24, 24, 3)
    expected = layer(images)
    for size in ((24, 24, None), (None, None, 3)):
        graph = tf.function(lambda x: layer(x), input_signature=[tf.TensorSpec((None, *size))])
        found = graph(images)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible with expected shape"):
        graph(reference.tokens(2, 48, 24, 3))
