"""A quantised model comes back from a file as saved, whichever layers were quantised, and how."""

import gc
import inspect

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit.models.quantization import quantized_layers
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


def test_all_layers_by_the_mode_alone():
    """Recorded as the mode, as in all files so far."""
    model = base.small_model(base.small_config(num_stages=1))
    assert quantized_layers(model) is None
    model.quantize("int8")
    assert quantized_layers(model) == model.get_config()["quantization"] == "int8"


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
