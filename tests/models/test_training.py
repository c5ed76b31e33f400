"""What a person does with a model: mixed precision, fit, checkpointing, LoRA, int8."""

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from tests import base, golden

pytestmark = pytest.mark.slow

PROJECTIONS = ("qkv", "query", "key", "value", "proj")


def attention_projections(model):
    """The linear layers of all attentions."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Dense) and layer.name in PROJECTIONS
    ]


def labels(count=8):
    return np.arange(count) % 5


# In roundings of bfloat16 (2^-9) and float16 (2^-12), 12 and 21 were the worst errors seen and
# 2.6 and 4.0 the means; the logits have a spread of 0.7.
@pytest.mark.parametrize(
    ("policy", "rounding"), [("mixed_bfloat16", 2**-9), ("mixed_float16", 2**-12)]
)
def test_mixed_precision_is_near_float32(policy, rounding):
    keras.config.set_dtype_policy(policy)
    model = golden.assign(golden.variant_model("9_dagger_240"))
    assert {v.dtype for v in model.weights} == {"float32"}
    assert model.get_layer("stage_0").compute_dtype == policy.removeprefix("mixed_")
    logits = model(golden.images(0, 2, 240, 240))
    assert logits.dtype == "float32"
    expected = golden.values()["9_dagger_240/logits"]
    error = np.abs(logits - expected)
    assert 1e-4 < error.max() < 30 * rounding
    assert error.mean() < 6 * rounding


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_fit_in_mixed_precision_learns(policy):
    keras.config.set_dtype_policy(policy)
    model = base.small_model(base.small_config(num_stages=1))
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    history = model.fit(base.pixels(8), labels(), epochs=4, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]


def test_fit_with_gradient_checkpointing_gives_the_same_weights():
    results = []
    for checkpointing in (False, True):
        keras.utils.set_random_seed(1)
        config = base.small_config(num_stages=1)
        model = base.small_model(config, gradient_checkpointing=checkpointing, drop_path_rate=0.4)
        model.compile(
            keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", jit_compile=False
        )
        history = model.fit(base.pixels(8), labels(), epochs=2, verbose=0, shuffle=False)
        results.append((history.history["loss"], model.get_weights()))
    (plain_losses, plain), (losses, weights) = results
    np.testing.assert_allclose(losses, plain_losses, rtol=1e-5)
    assert losses[1] != losses[0]
    for ours, theirs in zip(weights, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_fit_changes_every_weight(fresh_model):
    before = base.values_of(fresh_model)
    fresh_model.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True
    )
    fresh_model.fit(base.pixels(8), labels(), verbose=0)
    for variable, old in zip(fresh_model.weights, before, strict=True):
        # The gradient of a key's bias is zero, apart from rounding.
        assert variable.path.endswith("key/bias") or not np.array_equal(variable, old)


def test_lora_trains_itself_alone_and_merges(fresh_model):
    x = base.pixels(8)
    before_output = np.array(fresh_model(x))
    dense_layers = attention_projections(fresh_model)
    assert len(dense_layers) == 2 * (3 * 2 + 2 * 4)  # stages: encoders of two, fusions of four
    for dense in dense_layers:
        dense.enable_lora(2)
    for variable in fresh_model.weights:
        variable.trainable = "lora_kernel" in variable.path
    np.testing.assert_allclose(fresh_model(x), before_output, atol=1e-5)
    fresh_model.compile(
        keras.optimizers.Adam(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=True,
    )
    before = {v.path: np.array(v) for v in fresh_model.weights}
    losses = fresh_model.fit(x, labels(), epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    for variable in fresh_model.weights:
        is_lora = "lora_kernel" in variable.path
        assert is_lora != np.array_equal(variable, before[variable.path]), variable.path
    merged = base.small_model(classifier_activation=None)
    for dense, plain in zip(dense_layers, attention_projections(merged), strict=True):
        plain.kernel.assign(dense.kernel)
    np.testing.assert_allclose(fresh_model(x), merged(x), atol=1e-4)
    assert np.abs(merged(x) - before_output).max() > 0.01


def test_lora_model_saves_and_loads_merged(fresh_model, tmp_path):
    for seed, dense in enumerate(attention_projections(fresh_model)):
        dense.enable_lora(2)
        noise = np.random.default_rng(seed).standard_normal(dense.lora_kernel_b.shape)
        dense.lora_kernel_b.assign(0.1 * noise)
    x = base.pixels()
    fresh_model.save_weights(tmp_path / "merged.weights.h5")
    plain = base.small_model(classifier_activation=None)
    plain.load_weights(tmp_path / "merged.weights.h5")
    np.testing.assert_allclose(plain(x), fresh_model(x), atol=1e-4)


def is_dense(layer):
    return isinstance(layer, keras.layers.Dense)


def test_int8_is_near_float32_and_keeps_the_classes():
    model = golden.assign(golden.variant_model("9_240"))
    model.quantize("int8")
    assert {str(d._kernel.dtype) for d in model._flatten_layers() if is_dense(d)} == {"int8"}
    logits = np.array(model(golden.images(0, 2, 240, 240)))
    expected = golden.values()["9_240/logits"]
    error = np.sqrt(np.mean((logits - expected) ** 2))
    assert 0 < error < 0.05 * expected.std()
    np.testing.assert_array_equal(logits.argmax(axis=1), expected.argmax(axis=1))


def test_int8_model_exports_and_keeps_its_weights_file(tmp_path):
    import tensorflow as tf

    config = base.small_config(num_stages=1)
    model = base.small_model(config, classifier_activation=None)
    x = base.pixels()
    float_output = np.array(model(x))
    model.quantize("int8")
    expected = np.array(model(x))
    assert 0 < np.abs(expected - float_output).max() < 0.1 * float_output.std()
    model.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(served.serve(x), expected, atol=1e-5)
    model.save_weights(tmp_path / "int8.weights.h5")
    other = base.small_model(config, classifier_activation=None)
    other.quantize("int8")
    for variable in other.weights:
        variable.assign(keras.ops.zeros_like(variable))
    other.load_weights(tmp_path / "int8.weights.h5")
    np.testing.assert_allclose(other(x), expected, atol=1e-6)
    model.save(tmp_path / "int8.keras")
    again = keras.saving.load_model(tmp_path / "int8.keras")
    assert {str(d._kernel.dtype) for d in again._flatten_layers() if is_dense(d)} == {"int8"}
    np.testing.assert_array_equal(again(x), model(x))
    with pytest.raises(ValueError, match="not quantised"):
        kc.save_checkpoint(model, tmp_path / "int8.safetensors")
