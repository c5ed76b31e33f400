"""The transformer encoder against equation 1, and gradient checkpointing against none."""

import keras
import numpy as np
import pytest

from keras_crossvit import layers
from tests import reference


def block(**kwargs):
    layer = layers.TransformerBlock(3, mlp_ratio=1.5, **kwargs)
    layer.build((None, 7, 12))
    return reference.randomize(layer)


def test_gelu_is_exact():
    x = np.linspace(-4, 4, 33).astype("float32")
    np.testing.assert_allclose(layers.gelu(x), reference.gelu(x.astype("float64")), atol=1e-6)


def test_mlp_is_linear_gelu_linear():
    layer = layers.Mlp(mlp_ratio=1.6)
    layer.build((None, 7, 12))
    w = reference.arrays(reference.randomize(layer))
    assert w["fc1/kernel"].shape == (12, 19)  # 19.2, truncated
    assert layer.macs((None, 7, 12)) == 2 * 7 * 12 * 19
    x = reference.tokens(2, 7, 12)
    np.testing.assert_allclose(layer(x), reference.mlp(x, w), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["fc1", "fc2"])
def test_one_layer_of_the_mlp_in_int8(name):
    layer = layers.Mlp(mlp_ratio=2)
    layer.build((None, 7, 12))
    w = reference.arrays(reference.randomize(layer))
    getattr(layer, name).quantize("int8")
    x = reference.tokens(2, 7, 12)
    expected = reference.mlp(x, w)
    np.testing.assert_allclose(layer(x), expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_block_equals_equation_1(checkpointing, training):
    layer = block(gradient_checkpointing=checkpointing)
    x = reference.tokens(2, 7, 12)
    expected = reference.transformer_block(x, reference.arrays(layer), 3)
    np.testing.assert_allclose(layer(x, training=training), expected, rtol=1e-4, atol=1e-4)


def test_queries_keys_and_values_without_a_bias():
    names = set(reference.arrays(block())) - set(reference.arrays(block(qkv_bias=False)))
    assert names == {"attention/qkv/bias"}


def test_drop_path_skips_each_residual_of_each_sample_on_its_own():
    layer = block(drop_path_rate=0.5, seed=1)
    w = reference.arrays(layer)
    x = reference.tokens(24, 7, 12)
    attended = reference.self_attention(
        reference.layer_norm(x, w, "norm1"), reference.below(w, "attention"), 3
    )
    y = np.array(layer(x, training=True))
    seen = set()
    for sample in range(24):
        for paths in ((0, 0), (0, 1), (1, 0), (1, 1)):
            half = x[sample] + 2 * paths[0] * attended[sample]
            normed = reference.layer_norm(half, w, "norm2")
            full = half + 2 * paths[1] * reference.mlp(normed, reference.below(w, "mlp"))
            if np.allclose(y[sample], full, rtol=1e-3, atol=1e-3):
                seen.add(paths)
                break
        else:
            pytest.fail(f"sample {sample} is none of the four possible outputs")
    assert len(seen) == 4


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_checkpointing_changes_neither_output_nor_gradients(rate):
    x = reference.tokens(8, 7, 12)
    plain = block(drop_path_rate=rate, seed=5)
    checkpointed = block(drop_path_rate=rate, seed=5, gradient_checkpointing=True)
    expected = gradient_list(plain, x)
    gradients = gradient_list(checkpointed, x)
    assert len(gradients) == 13  # 12 weights and the input
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


def gradient_list(layer, x):
    """Gradients of the sum of squares with respect to weights and input."""
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = keras.ops.sum(keras.ops.square(layer(x, training=True)))
    return tape.gradient(loss, [*[v.value for v in layer.trainable_weights], x])


@pytest.mark.parametrize(("checkpointing", "times"), [(False, 4), (True, 8)])
def test_checkpointing_computes_the_linear_layers_again_in_the_backward_pass(checkpointing, times):
    import tensorflow as tf

    layer = block(gradient_checkpointing=checkpointing)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x, training=True) ** 2)
        return tape.gradient(loss, [v.value for v in layer.trainable_weights])

    graph = step.get_concrete_function(tf.TensorSpec((8, 7, 12))).graph
    bodies = {body.signature.name: body for body in graph.as_graph_def().library.function}
    called = [op.get_attr("f").name for op in graph.get_operations() if "Call" in op.type]
    kinds = [op.type for op in graph.get_operations()]
    kinds += [node.op for name in called for node in bodies[name].node_def]
    assert kinds.count("BiasAdd") == times


@pytest.mark.parametrize(
    "layer",
    [
        layers.SelfAttention(3),
        layers.CrossAttention(3),
        layers.Mlp(2),
        layers.CrossAttentionBlock(3),
        layers.TransformerBlock(3),
        layers.TransformerBlock(3, gradient_checkpointing=True),
        layers.Projection(8),
        layers.ClassToken(),
        layers.PositionEmbedding(),
    ],
    ids=lambda layer: layer.name,
)
def test_every_weight_has_a_gradient(layer):
    layer.build((None, 7, 12))
    norms = reference.gradient_norms(
        reference.randomize(layer), reference.tokens(2, 7, 12), training=True
    )
    assert norms
    assert None not in norms.values(), norms
    # The bias of the keys cancels in the softmax; all else must learn.
    still = {path for path, norm in norms.items() if norm < 1e-3}
    assert still <= {path for path in norms if path.endswith("key/bias")}
