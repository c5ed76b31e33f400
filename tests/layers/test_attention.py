"""Self-attention and cross-attention against the paper's formulas in NumPy."""

import keras
import numpy as np
import pytest

from keras_crossvit import layers
from keras_crossvit.layers.attention import separate_projections
from keras_crossvit.layers.kernels import portable
from tests import reference

PROJECTIONS = ("query", "key", "value", "proj")


def cross_attention(width=12, num_heads=3, **kwargs):
    layer = layers.CrossAttention(num_heads, **kwargs)
    layer.build((None, 7, width))
    return reference.randomize(layer)


def merged_weights(layer):
    """The weights with LoRA's product and int8's scale worked into the kernels."""
    w = {}
    for name in PROJECTIONS:
        dense = getattr(layer, name)
        kernel = keras.ops.convert_to_numpy(dense._kernel).astype("float64")
        if dense.quantization_mode == "int8":
            # Dense stores kernel * scale, rounded, with one scale per output.
            kernel = kernel / keras.ops.convert_to_numpy(dense.kernel_scale).astype("float64")
        if dense.lora_enabled:
            a, b = dense.lora_kernel_a, dense.lora_kernel_b
            kernel = kernel + (dense.lora_alpha / dense.lora_rank) * keras.ops.convert_to_numpy(
                keras.ops.matmul(a, b)
            )
        w[f"{name}/kernel"] = kernel
        if dense.use_bias:
            w[f"{name}/bias"] = keras.ops.convert_to_numpy(dense.bias).astype("float64")
    return w


@pytest.mark.parametrize("num_heads", [1, 3, 4])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_folded_cross_attention_equals_equation_6(num_heads, qkv_bias):
    layer = cross_attention(num_heads=num_heads, qkv_bias=qkv_bias)
    x = reference.tokens(2, 7, 12)
    expected = reference.cross_attention(x, reference.arrays(layer), num_heads)
    np.testing.assert_allclose(layer(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("error:You are using a softmax")
def test_cross_attention_of_one_token_is_its_value():
    layer = cross_attention()
    x = reference.tokens(2, 1, 12)
    w = reference.arrays(layer)
    expected = reference.linear(reference.linear(x, w, "value"), w, "proj")
    np.testing.assert_allclose(layer(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("error:You are using a softmax")
@pytest.mark.parametrize("layer_class", [layers.SelfAttention, layers.CrossAttention])
def test_one_token_has_all_the_attention(layer_class):
    layer = layer_class(3)
    layer.build((None, 1, 12))
    reference.randomize(layer)
    x = reference.tokens(2, 1, 12)
    found = np.array(layer.attention_map(x))
    np.testing.assert_array_equal(found, np.ones((2, 3, 1, 1)[: found.ndim]))
    assert found.dtype == "float32"


def test_attention_map_is_that_of_equation_6():
    layer = cross_attention(num_heads=3)
    x = reference.tokens(2, 7, 12)
    w = reference.arrays(layer)
    query = reference.linear(x[:, 0], w, "query").reshape(2, 3, 4)
    keys = reference.linear(x, w, "key").reshape(2, 7, 3, 4)
    expected = reference.softmax(np.einsum("bhd,bnhd->bhn", query, keys) / 2)
    np.testing.assert_allclose(layer.attention_map(x), expected, atol=1e-6)


def test_cross_attention_reads_only_the_first_token_as_query():
    layer = cross_attention()
    x = reference.tokens(1, 7, 12)
    shuffled = np.concatenate([x[:, :1], x[:, 1:][:, ::-1]], axis=1)
    np.testing.assert_allclose(layer(x), layer(shuffled), atol=1e-5)
    assert np.abs(layer(x) - layer(x[:, ::-1])).max() > 0.1


def test_cross_attention_with_lora_equals_equation_6_of_the_merged_weights():
    layer = cross_attention()
    x = reference.tokens(2, 7, 12)
    before = keras.ops.convert_to_numpy(layer(x))
    for name in PROJECTIONS:
        getattr(layer, name).enable_lora(2, lora_alpha=3)
    np.testing.assert_allclose(layer(x), before, atol=1e-6)  # B starts at zero
    for seed, name in enumerate(PROJECTIONS):
        dense = getattr(layer, name)
        dense.lora_kernel_b.assign(reference.tokens(2, 12, seed=seed))
    expected = reference.cross_attention(x, merged_weights(layer), 3)
    np.testing.assert_allclose(layer(x), expected, atol=2e-4, rtol=1e-4)
    assert np.abs(expected - before).max() > 0.5


@pytest.mark.parametrize("lora", [False, True])
def test_cross_attention_in_int8_is_near_equation_6_of_its_stored_weights(lora):
    layer = cross_attention(width=48)
    x = reference.tokens(2, 9, 48)
    float_output = keras.ops.convert_to_numpy(layer(x))
    for name in PROJECTIONS:
        getattr(layer, name).quantize("int8")
        if lora:
            getattr(layer, name).enable_lora(2)
            getattr(layer, name).lora_kernel_b.assign(0.2 * reference.tokens(2, 48))
    expected = reference.cross_attention(x, merged_weights(layer), 3)
    # Inputs of each product are rounded to 8 bits: 1/254 of the largest each time.
    spread = np.std(expected)
    assert np.abs(layer(x) - expected).max() < 0.15 * spread
    if not lora:
        assert 0 < np.abs(layer(x) - float_output).max() < 0.3 * spread


@pytest.mark.parametrize("part", ["key", "value"])
def test_cross_attention_with_one_projection_in_int8(part):
    layer = cross_attention(width=48)
    x = reference.tokens(2, 9, 48)
    getattr(layer, part).quantize("int8")
    expected = reference.cross_attention(x, merged_weights(layer), 3)
    assert np.abs(layer(x) - expected).max() < 0.15 * np.std(expected)


@pytest.mark.parametrize("num_heads", [1, 3])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_self_attention_equals_its_formula(num_heads, qkv_bias):
    layer = layers.SelfAttention(num_heads, qkv_bias)
    layer.build((None, 7, 12))
    x = reference.tokens(2, 7, 12)
    expected = reference.self_attention(x, reference.arrays(reference.randomize(layer)), num_heads)
    np.testing.assert_allclose(layer(x), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_separate_projections_compute_the_same(qkv_bias):
    layer = layers.SelfAttention(4, qkv_bias)
    layer.build((None, 7, 12))
    reference.randomize(layer)
    x = reference.tokens(2, 7, 12)
    with separate_projections():
        separate = layer(x)
    np.testing.assert_allclose(separate, layer(x), atol=1e-5)  # other products round otherwise


def test_separate_projections_leave_quantised_layers_as_they_are():
    layer = layers.SelfAttention(4)
    layer.build((None, 7, 12))
    reference.randomize(layer)
    layer.qkv.quantize("int8")
    x = reference.tokens(2, 7, 12)
    with separate_projections():
        separate = layer(x)
    np.testing.assert_array_equal(separate, layer(x))


@pytest.mark.parametrize("layer_class", [layers.SelfAttention, layers.CrossAttention])
def test_macs_are_those_of_the_paper_formula(layer_class):
    # C = 8, N = 5: projections of N tokens (a query: of one), scores, weighted sum.
    expected = {
        "SelfAttention": 5 * 8 * 24 + 5 * 5 * 8 + 5 * 5 * 8 + 5 * 8 * 8,
        "CrossAttention": 8 * 8 + 2 * 5 * 8 * 8 + 5 * 8 + 5 * 8 + 8 * 8,
    }
    assert layer_class(2).macs((None, 5, 8)) == expected[layer_class.__name__]


@pytest.mark.parametrize(
    ("backend", "device", "flash"),
    [("jax", "tpu", False), ("jax", "gpu", None), ("jax", "cpu", None), ("torch", None, None)],
)
def test_no_flash_attention_on_a_tpu(backend, device, flash, monkeypatch):
    """With JAX, Keras would mask what comes after a token if the tokens fill whole blocks."""
    given = []

    def attend(query, key, value, **options):
        given.append(options)
        return value

    jax = pytest.importorskip("jax", reason="jax is not installed")
    monkeypatch.setattr(jax, "default_backend", lambda: device)
    monkeypatch.setattr(portable.keras.backend, "backend", lambda: backend)
    monkeypatch.setattr(portable.ops, "dot_product_attention", attend)
    values = portable.attention(reference.tokens(2, 8, 36), 3)
    assert given == [{"flash_attention": flash}]
    np.testing.assert_allclose(values, reference.tokens(2, 8, 36)[..., 24:], rtol=1e-6)
