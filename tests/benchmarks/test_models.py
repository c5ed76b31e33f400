"""Models by name and what they cost."""

import keras
import pytest

import keras_crossvit as kc
from benchmarks.models import cost_of, make_model


def test_macs_of_convolutions():
    """By hand: a strided, a grouped and a depthwise convolution, and a dense layer."""
    x = keras.Input((9, 9, 4))
    y = keras.layers.Conv2D(8, 3, strides=2)(x)  # 4 x 4 positions
    y = keras.layers.Conv2D(8, 1, groups=2)(y)
    y = keras.layers.DepthwiseConv2D(3, padding="same")(y)
    y = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(y))
    expected = 16 * (9 * 4 * 8) + 16 * (4 * 8) + 16 * (9 * 8) + 8 * 5
    assert kc.count_macs(keras.Model(x, y)) == expected


def test_macs_of_transposed_and_separable_convolutions():
    x = keras.Input((9, 9, 4))
    y = keras.layers.SeparableConv2D(8, 3, strides=2)(x)  # 4 x 4 positions
    y = keras.layers.Conv2DTranspose(6, 2, strides=2)(y)  # each gives 2 x 2
    assert kc.count_macs(keras.Model(x, y)) == 16 * (9 * 4 + 4 * 8) + 16 * (4 * 8 * 6)


def test_macs_with_channels_first():
    first = {"data_format": "channels_first"}
    x = keras.Input((4, 9, 12))
    y = keras.layers.Conv2D(8, 3, **first)(x)  # 7 x 10 positions
    y = keras.layers.SeparableConv2D(4, 1, **first)(y)
    y = keras.layers.Conv2DTranspose(6, 2, **first)(y)
    expected = 70 * (9 * 4 * 8) + 70 * (8 + 8 * 4) + 70 * (4 * 4 * 6)
    assert kc.count_macs(keras.Model(x, y)) == expected


def test_macs_of_each_use_of_a_layer_in_this_model():
    dense = keras.layers.Dense(5)
    x, y = keras.Input((5,)), keras.Input((3, 5))
    body = keras.Sequential([keras.Input((5,)), dense])
    twice = keras.Model(x, dense(body(dense(x))))
    assert kc.count_macs(keras.Model(y, dense(y))) == 3 * 25
    assert kc.count_macs(body) == 25
    assert kc.count_macs(twice) == 3 * 25


def test_macs_of_unknown_sizes():
    x = keras.Input((None, None, 3))
    model = keras.Model(x, keras.layers.Conv2D(8, 3, name="stem")(x))
    with pytest.raises(ValueError, match=r"known sizes\. Received: \(None, .*, 3\) for .* 'stem'"):
        kc.count_macs(model)


def test_macs_of_a_feature_model(model):
    """Points inside a stage are computed by the stage: the same work, except for the heads."""
    heads = 5 * (16 + 24)
    tokens = ["small/norm", "large/norm", "stage_0/small/block_0"]
    assert kc.count_macs(kc.feature_model(model, tokens)) == kc.count_macs(model) - heads
    before = kc.count_macs(kc.feature_model(model, "stage_0/large/block_1"))
    with_map = kc.count_macs(kc.feature_model(model, "stage_0/large/block_1/attention"))
    assert with_map - before == 3 * 5 * 24**2 + 5**2 * 24  # of 4 patches and the class token


def test_cost_of_counts_trainable_parameters_and_positions(model):
    counted = cost_of(model)
    assert counted["parameters"] == model.count_params()
    # 5 x 5 and 2 x 2 patches, class token and its position, widths 16 and 24.
    assert counted["position_parameters"] == (26 + 1) * 16 + (5 + 1) * 24
    x = keras.Input((4,))
    normed = keras.Model(x, keras.layers.BatchNormalization()(x))
    assert normed.count_params() == 16
    assert cost_of(normed)["parameters"] == 8


def test_models_by_name():
    model = make_model("deit_tiny@64")
    assert (model.name, model.input_shape) == ("deit_tiny", (None, 64, 64, 3))
    assert make_model("MobileNet").output_shape == (None, 1000)
    frugal = make_model("deit_tiny@64", gradient_checkpointing=True)
    assert frugal.get_layer("large_block_0").gradient_checkpointing


@pytest.mark.parametrize("name", ["crossvit_16", "resnet", "imagenet_utils", "deit_tiny@big"])
def test_unknown_models(name):
    with pytest.raises(ValueError, match=r"`name` must .* Received: name="):
        make_model(name)
