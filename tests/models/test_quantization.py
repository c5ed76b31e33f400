"""A quantised model comes back from a file as saved, whichever layers were quantised, and how."""

import gc
import inspect
import zipfile

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit.models.quantization import quantize_again, quantized_layers
from tests import base

HEADS = ["large_head", "small_head"]
TAKES_SOME = pytest.mark.skipif(
    "filters" not in inspect.signature(keras.Model.quantize).parameters,
    reason="this version of Keras quantises all layers",
)


def weights_alone():
    return {"config": keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)}


@TAKES_SOME
@pytest.mark.parametrize(
    ("arguments", "layers"),
    [
        (lambda: {"mode": "int8", "filters": "head"}, HEADS),
        (lambda: {"mode": "int8", "filters": lambda layer: "head" not in layer.name}, 48),
        (weights_alone, 50),
    ],
    ids=["heads", "all but the heads", "weights alone"],
)
def test_some_layers_or_in_another_way(arguments, layers, tmp_path):
    model = base.small_model()
    model.quantize(**arguments())
    (kind,) = quantized_layers(model)
    assert kind["mode"] == "int8"
    assert sorted(kind["layers"]) == layers if layers is HEADS else len(kind["layers"]) == layers
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert quantized_layers(again) == [kind]
    x = base.pixels()
    np.testing.assert_array_equal(again(x), model(x))
    with pytest.raises(ValueError, match="not quantised"):
        kc.save_checkpoint(model, tmp_path / "model.safetensors")


def test_all_layers_by_the_mode_alone(tmp_path):
    """Recorded as the mode, and in each file alike."""
    model = base.small_model(base.small_config(num_stages=1))
    assert quantized_layers(model) is None
    model.quantize("int8")
    assert quantized_layers(model) == model.get_config()["quantization"] == "int8"
    assert '"quantization": "int8"' in config_in_file(model, tmp_path)


def config_in_file(model, folder):
    model.save(folder / "model.keras")
    with zipfile.ZipFile(folder / "model.keras") as file:
        return file.read("config.json").decode()


@pytest.mark.parametrize("quantizer", [None, keras.quantizers.AbsMaxQuantizer(axis=-1)])
def test_two_files_of_a_model_are_alike(quantizer, tmp_path):
    """Keras writes the addresses of objects that two layers share."""
    model = base.small_model(base.small_config(num_stages=1))
    config = keras.quantizers.Int8QuantizationConfig(activation_quantizer=quantizer)
    model.quantize("int8", config=config)
    again = kc.CrossViT.from_config(model.get_config())
    first, second = (config_in_file(x, tmp_path) for x in (model, again))
    assert first == second
    assert "shared_object_id" not in first


@pytest.fixture(scope="module")
def of_ones_own():
    """A configuration with other layers than dense ones in its fusion."""

    @kc.layers.register_fusion("tests_quantized")
    class Quantized(kc.layers.Fusion):
        def build(self, input_shape):
            (_, _, small), (_, _, large) = input_shape
            dtype = self.dtype_policy
            self.attention = keras.layers.MultiHeadAttention(2, 8, dtype=dtype, name="attention")
            self.attention.build((None, 1, small), (None, None, large))
            self.to_large = keras.layers.EinsumDense(
                "bnc,cd->bnd", (None, large), dtype=dtype, name="to_large"
            )
            self.to_large.build((None, None, small))

        def call(self, tokens, training=False):
            small, large = tokens
            mean = keras.ops.mean(small, axis=1, keepdims=True)
            return [small + self.attention(mean, large), large + self.to_large(mean)]

    return base.small_config(num_stages=1, fusion="tests_quantized")


@TAKES_SOME
@pytest.mark.parametrize(
    ("filters", "layers"),
    [
        (None, None),
        (lambda layer: "head" not in layer.name, 17),
        (lambda layer: isinstance(layer, keras.layers.Dense), 14),
        (lambda layer: isinstance(layer, keras.layers.EinsumDense), 5),
    ],
    ids=["all", "all but the heads", "dense", "the others"],
)
def test_other_layers_than_dense_ones(of_ones_own, filters, layers, tmp_path):
    model = base.small_model(of_ones_own)
    model.quantize("int8", filters=filters)
    quantized = quantized_layers(model)
    assert quantized == "int8" if layers is None else len(quantized[0]["layers"]) == layers
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert quantized_layers(again) == quantized
    copy = kc.CrossViT.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    x = base.pixels()
    np.testing.assert_array_equal(again(x), model(x))
    np.testing.assert_array_equal(copy(x), model(x))


@TAKES_SOME
def test_a_model_made_in_a_name_scope(tmp_path):
    """As one that a user's layer makes when it is built."""
    with keras.name_scope("outer"):
        model = base.small_model(base.small_config(num_stages=1))
    model.quantize("int8", filters="head")
    (kind,) = quantized_layers(model)
    assert sorted(kind["layers"]) == HEADS
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = base.pixels()
    np.testing.assert_array_equal(again(x), model(x))


@TAKES_SOME
def test_older_files_have_paths_with_the_name_scope():
    with keras.name_scope("outer"):
        model = base.small_model(base.small_config(num_stages=1))
    older = [{"mode": "int8", "config": None, "layers": ["outer/small_head", "outer/large_head"]}]
    quantize_again(model, older)
    (kind,) = quantized_layers(model)
    assert sorted(kind["layers"]) == HEADS


@pytest.mark.parametrize("arguments", [{"mode": "int8"}, weights_alone()])
def test_layers_before_an_input_tensor(arguments, tmp_path):
    """Keras makes them quantised from their own configuration."""
    image = keras.Input((40, 40, 3))
    colours = keras.layers.Dense(3, name="colours")(image)
    model = base.small_model(base.small_config(num_stages=1), input_tensor=colours)
    model.quantize(**arguments)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_layer("colours").quantization_mode == "int8"
    assert quantized_layers(again) == quantized_layers(model)
    x = base.pixels()
    np.testing.assert_array_equal(again(x), model(x))


@TAKES_SOME
def test_a_subclass_that_keras_was_told_to_take(tmp_path):
    @kc.layers.register_fusion("tests_subclass")
    class Subclass(kc.layers.Fusion):
        def build(self, input_shape):
            (_, _, small), _ = input_shape
            self.own = type("Own", (keras.layers.Dense,), {})(small, name="own")
            self.own.build((None, None, small))

        def call(self, tokens, training=False):
            return [self.own(tokens[0]), tokens[1]]

    for options, mode in (({}, None), ({"type_check": False}, "int8")):
        model = base.small_model(base.small_config(num_stages=1, fusion="tests_subclass"))
        model.quantize("int8", **options)
        again = kc.CrossViT.from_config(model.get_config())
        assert again.stages[0].fuse.own.quantization_mode == mode
        again.set_weights(model.get_weights())
        x = base.pixels()
        np.testing.assert_array_equal(again(x), model(x))


@pytest.mark.filterwarnings("error:.*`quantize` method")
@pytest.mark.parametrize("frozen", [False, True])
def test_keras_collects_no_garbage_of_others(frozen):
    """It does so once for each of 50 layers, and only looks through what is new."""
    looked_at = []

    def look(phase, info):
        if phase == "start":
            looked_at.append(len(gc.get_objects()))

    model = base.small_model()
    (gc.freeze if frozen else gc.unfreeze)()
    gc.callbacks.append(look)
    try:
        model.quantize("int8")
    finally:
        gc.callbacks.remove(look)
    assert len(looked_at) > 50
    assert max(looked_at[1:]) < 50_000
    assert bool(gc.get_freeze_count()) == frozen
