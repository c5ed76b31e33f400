"""Copies in float32 and int8: what is exported is the model's answer, which stays as it is."""

import re

import keras
import numpy as np
import pytest

from keras_crossvit.export import export, export_onnx, load_exported
from keras_crossvit.export.precision import in_float32, quantized
from tests import base
from tests.export.helpers import LABELS
from tests.reference import randomize

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("onnx", "mixed_bfloat16"),
        ("litert", "mixed_float16"),
        ("openvino", "mixed_float16"),
        ("triton", "mixed_bfloat16"),
    ],
)
def test_mixed(tmp_path, name, precision):
    """The file computes in float32; the model stays as it is."""
    base.skip_without("tf2onnx")
    config, images = base.small_config(num_stages=1), base.pixels(3)
    mixed, exact = (base.small_model(config, dtype=x) for x in (precision, "float32"))
    before, expected = mixed.predict_on_batch(images), exact.predict_on_batch(images)
    answer = load_exported(export(mixed, name, tmp_path))(images)
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    assert np.abs(before - expected).max() > 1e-4
    np.testing.assert_array_equal(mixed.predict_on_batch(images), before)
    assert mixed.dtype_policy.name == precision


def test_what_a_copy_keeps():
    config = base.small_config(num_stages=1)
    mixed = base.small_model(config, dtype="mixed_bfloat16", labels=LABELS, name="mine")
    mixed.reading = {"crop_ratio": 0.9}
    exact = in_float32(mixed)
    assert exact is not mixed
    assert exact.get_config() == {**mixed.get_config(), "dtype": exact.get_config()["dtype"]}
    assert exact.dtype_policy.name == "float32"


def test_float32_under_another_global_policy(tmp_path):
    base.skip_without("tf2onnx")
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = base.small_model(base.small_config(num_stages=1), dtype="float32")
    assert in_float32(model) is model
    answer = load_exported(export_onnx(model, tmp_path / "m.onnx"))(base.pixels(3))
    np.testing.assert_allclose(answer, model.predict_on_batch(base.pixels(3)), atol=1e-5)


@pytest.mark.parametrize("name", ["onnx", "litert", "openvino", "triton"])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_layer_that_is_quantised(tmp_path, name, precision):
    base.skip_without("tf2onnx")
    model = base.small_model(base.small_config(num_stages=1), dtype=precision)
    model.branches["large"].blocks[0][0].mlp.fc1.quantize("int8")
    found = {f"int8_from_{precision}", precision} - {"float32"}
    with pytest.raises(ValueError, match=re.escape(f"the policies {sorted(found)}")):
        export(model, name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_layers_before_the_model():
    tensor = keras.layers.Rescaling(0.5, dtype="mixed_bfloat16")(keras.Input((40, 40, 3)))
    model = base.small_model(input_tensor=tensor, dtype="mixed_bfloat16")
    with pytest.raises(ValueError, match=r"must compute in float32.*\['mixed_bfloat16'\]"):
        in_float32(model)


def test_lora_is_merged(tmp_path):
    """As in a file that Keras writes; the model keeps it."""
    lora, images = base.small_model(base.small_config(num_stages=1)), base.pixels(3)
    for layer in lora._flatten_layers():
        if isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D)):
            layer.enable_lora(2)
            randomize(layer, scale=0.2)
    before = lora.predict_on_batch(images)
    lora.save(tmp_path / "m.keras")
    merged = keras.saving.load_model(tmp_path / "m.keras")
    merged.quantize("int8")
    answer = quantized(lora).predict_on_batch(images)
    np.testing.assert_array_equal(answer, merged.predict_on_batch(images))
    np.testing.assert_array_equal(lora.predict_on_batch(images), before)


def test_lora_in_mixed_precision_is_merged_in_float32():
    config = base.small_config(num_stages=1)
    lora = base.small_model(config, dtype="mixed_bfloat16")
    projection = lora.branches["small"].blocks[0][0].attention.proj
    before = np.array(projection.kernel)
    projection.enable_lora(2)
    randomize(projection, scale=0.2)
    found = {variable.name: np.array(variable) for variable in projection.variables}
    exact = found["kernel"] + found["lora_kernel_a"] @ found["lora_kernel_b"]
    copy = in_float32(lora).branches["small"].blocks[0][0].attention.proj
    np.testing.assert_allclose(copy.kernel, exact, atol=1e-7)
    assert np.abs(exact - before).max() > 1e-2


def test_an_activation_that_keras_does_not_know():
    def squash(logits):
        return keras.ops.tanh(logits)

    config = base.small_config(num_stages=1)
    model = base.small_model(config, classifier_activation=squash)
    whole, images = quantized(model), base.pixels(3)
    model.quantize("int8")
    np.testing.assert_array_equal(whole(images), model(images))


def test_an_adapted_layer():
    """What it derives from its variables is copied, too."""
    adapted = keras.layers.Normalization(name="adapted")
    tensor = adapted(keras.Input((40, 40, 3)))
    model = base.small_model(base.small_config(num_stages=1), input_tensor=tensor)
    adapted.adapt(base.pixels(4))
    whole, images = quantized(model), base.pixels(3)
    model.quantize("int8")
    np.testing.assert_array_equal(whole(images), model(images))
