"""Every wrong argument ends in one error that names it, what is allowed and what was given."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_crossvit as kc
from keras_crossvit import layers
from tests import base


def branch(**changes):
    return dataclasses.replace(base.small_config().small, **changes)


def model(*args, **kwargs):
    return kc.CrossViT(base.small_config(), *args, **{"weights": None, **kwargs})


def other_channels(*shape, **kwargs):
    return model(input_tensor=keras.Input(shape), **kwargs)


# What is called -> parts of the message: the argument, what is allowed, what was given.
WRONG_MODELS = {
    **{
        f"flag {name}": (
            lambda name=name: model(**{name: "no"}),
            [f"`{name}` must be one of False, True. Received: {name}='no'"],
        )
        for name in (
            *("include_top", "include_preprocessing", "gradient_checkpointing", "reset_heads"),
        )
    },
    "preset with a slash": (
        lambda: kc.register_preset("own/net")(base.small_config()),
        ["`name` must be without '/'. Received: name='own/net'"],
    ),
    "freeze by a float": (lambda: kc.freeze(model(), 1.0), ["`stages` must be", "stages=1.0"]),
    "freeze by a flag": (lambda: kc.freeze(model(), True), ["`stages` must be", "stages=True"]),
    "macs of nothing": (lambda: kc.count_macs("x"), ["`model` must be a functional model", "'x'"]),
    "macs of an unbuilt model": (
        lambda: kc.count_macs(keras.Sequential([keras.layers.Dense(2)])),
        ["`model` must be a functional model, or a Sequential one that is built"],
    ),
    "means of another number": (
        lambda: kc.preprocess_input(base.pixels(), include_preprocessing=False, mean=(1, 2)),
        ["`mean` must be 3 numbers", "mean=(1, 2)"],
    ),
    "policies of layers": (
        lambda: model(dtype=keras.dtype_policies.DTypePolicyMap()),
        ["`dtype` must be one Keras dtype policy of floating-point numbers", "DTypePolicyMap"],
    ),
    "quantised policy": (
        lambda: model(dtype="int8_from_float32"),
        ["`dtype` must be one", "model.quantize", "dtype='int8_from_float32'"],
    ),
    "integers": (lambda: model(dtype="int32"), ["`dtype` must be one", "dtype='int32'"]),
    "unknown policy": (lambda: model(dtype="flot32"), ["`dtype` must be one", "dtype='flot32'"]),
    "activation is a layer": (
        lambda: model(classifier_activation=keras.layers.Softmax()),
        ["`classifier_activation` must be the name of", "a function", "<Softmax"],
    ),
    "rate of NumPy": (
        lambda: model(drop_rate=np.float32(1)),
        ["`drop_rate` must be a number in [0, 1)", "drop_rate=", "1.0"],
    ),
    "unknown preset": (
        lambda: kc.CrossViTConfig.preset("crossvit_16"),
        ["`name` must be one of", "'crossvit_9_dagger'", "Received: name='crossvit_16'"],
    ),
    "config is a name": (lambda: kc.CrossViT("crossvit_9"), ["`config`", "'crossvit_9'"]),
    "input too small": (
        lambda: kc.CrossViT9(weights=None, input_shape=(15, 240, 3)),
        ["`input_shape` must be at least 16 pixels", "height=15, width=240"],
    ),
    "input of unknown size": (
        lambda: model(input_shape=(None, None, 3)),
        ["`input_shape` must be three positive integers", "(None, None, 3)"],
    ),
    "input without channels": (
        lambda: model(input_shape=(40, 40)),
        ["`input_shape` must be three positive integers", "(40, 40)"],
    ),
    "input with a batch": (lambda: model(input_shape=(1, 40, 40, 3)), ["`input_shape`"]),
    "input of floats": (lambda: model(input_shape=(40.0, 40, 3)), ["`input_shape`", "40.0"]),
    "input of negative size": (lambda: model(input_shape=(-40, 40, 3)), ["`input_shape`", "-40"]),
    "input is a number": (lambda: model(input_shape=40), ["`input_shape`", "40"]),
    "channels first": (
        lambda: model(input_shape=(3, 40, 40)),
        ["`input_shape` must be", "channels last", "(3, 40, 40)"],
    ),
    "mean of other channels": (
        lambda: model(input_shape=(40, 40, 2), mean=(0.5, 0.5, 0.5)),
        ["`mean` must be None or 2 numbers", "mean=(0.5, 0.5, 0.5)"],
    ),
    "mean of one number without std": (
        lambda: model(input_shape=(40, 40, 1), mean=[0.5]),
        ["`mean` and `std` must both be given", "mean=[0.5], std=None"],
    ),
    "std of 0": (
        lambda: model(std=(0.2, 0.0, 0.2)),
        ["`std` must be None or 3 positive numbers", "std=(0.2, 0.0, 0.2)"],
    ),
    "other inputs": (lambda: model(inputs="two"), ["`inputs` must be one of", "inputs='two'"]),
    "separate inputs of one branch": (
        lambda: kc.CrossViT(
            base.small_config(small=None, fusion="none"), weights=None, inputs="separate"
        ),
        ['`inputs` must be "shared"', "inputs='separate'"],
    ),
    "stages to freeze": (
        lambda: kc.freeze(model(), stages=3),
        ["`stages` must be one of 0, 1, 2", "stages=3"],
    ),
    "freezing another model": (
        lambda: kc.freeze(keras.Sequential()),
        ["`model` must be a CrossViT", "Sequential"],
    ),
    "freezing all": (
        lambda: kc.freeze(model(include_top=False)),
        ["`stages` must be a number for a model without heads"],
    ),
    "input_tensor is an array": (
        lambda: model(input_tensor=np.zeros((1, 40, 40, 3))),
        ["`input_tensor` must be a Keras tensor", "ndarray"],
    ),
    "input_tensor of another shape": (
        lambda: other_channels(40, 40, 3, input_shape=(48, 48, 3)),
        ["`input_shape` must be that of `input_tensor`, (40, 40, 3)", "(48, 48, 3)"],
    ),
    "input_tensor of unknown size": (lambda: other_channels(None, None, 3), ["`input_shape`"]),
    "no classes": (
        lambda: model(classes=0),
        ["`classes` must be a positive", "classes=0"],
    ),
    "negative classes": (lambda: model(classes=-5), ["`classes`", "classes=-5"]),
    "classes is a float": (lambda: model(classes=10.0), ["`classes`", "classes=10.0"]),
    "classes is a bool": (lambda: model(classes=True), ["`classes`", "classes=True"]),
    "classes is text": (lambda: model(classes="10"), ["`classes`", "classes='10'"]),
    "pooling": (
        lambda: model(include_top=False, pooling="mean"),
        ["`pooling` must be one of 'avg', 'max', 'token'", "pooling='mean'"],
    ),
    "pooling is a list": (
        lambda: model(include_top=False, pooling=["avg"]),
        ["`pooling` must be one of 'avg', 'max', 'token'", "pooling=['avg']"],
    ),
    "activation": (
        lambda: model(classifier_activation="soft"),
        ["`classifier_activation`", "'soft'"],
    ),
    "drop rate of 1": (lambda: model(drop_rate=1.0), ["`drop_rate`", "[0, 1)", "drop_rate=1.0"]),
    "negative drop path": (
        lambda: model(drop_path_rate=-0.1),
        ["`drop_path_rate`", "[0, 1)", "drop_path_rate=-0.1"],
    ),
    "drop rate is text": (lambda: model(drop_rate="0.1"), ["`drop_rate`", "drop_rate='0.1'"]),
    "drop rate is no number": (lambda: model(drop_rate=float("nan")), ["`drop_rate`", "nan"]),
    "branch logits without heads": (
        lambda: kc.branch_logits(model(include_top=False)),
        ["`model` must be a CrossViT with include_top=True", "'crossvit', without a small_head"],
    ),
    "preprocess channels first": (
        lambda: kc.preprocess_input(np.zeros((1, 3, 4, 4)), data_format="channels_first"),
        ["`data_format`", "channels_last", "channels_first"],
    ),
    "decode other classes": (
        lambda: kc.decode_predictions(np.zeros((1, 10))),
        ["1000", "(1, 10)"],
    ),
}

WRONG_CONFIGS = {
    "class token": (
        lambda: base.small_config(class_token="no"),
        ["`class_token` must be one of False, True. Received: class_token='no'"],
    ),
    "heads": (
        lambda: branch(num_heads=3),
        ["`num_heads` must divide embed_dim=16", "num_heads=3"],
    ),
    "patch": (
        lambda: branch(patch_size=7),
        ["`image_size` must be a multiple of patch_size=7", "image_size=40"],
    ),
    "no depth": (lambda: branch(depth=0), ["`depth` must be a positive integer", "depth=0"]),
    "width": (lambda: branch(embed_dim=16.0), ["`embed_dim`", "16.0"]),
    "ratio": (lambda: branch(mlp_ratio=0), ["`mlp_ratio` must be positive", "0"]),
    "ratio is text": (lambda: branch(mlp_ratio="2"), ["`mlp_ratio` must be positive", "2"]),
    "branch": (lambda: base.small_config(large=16), ["`large` must be a BranchConfig", "16"]),
    "stages": (lambda: base.small_config(num_stages=0), ["`num_stages`", "num_stages=0"]),
    "fusion": (
        lambda: base.small_config(fusion="sum"),
        ["`fusion` must be one of", "'cross_attention'", "fusion='sum'"],
    ),
    "fusion depth": (lambda: base.small_config(fusion_depth=-1), ["`fusion_depth`", "-1"]),
    "patch embedding": (
        lambda: base.small_config(patch_embed="convolution"),
        ["`patch_embed` must be one of", "'conv'", "'linear'", "patch_embed='convolution'"],
    ),
    "patch of a convolution": (
        lambda: kc.CrossViT(base.small_config(patch_embed="conv"), weights=None),
        ["`patch_size` must be one of 12, 16", "patch_size=8"],
    ),
}

WRONG_LAYERS = {
    "attention heads": (
        lambda: layers.SelfAttention(5).build((None, 7, 12)),
        ["`num_heads` must divide the width of the tokens, 12", "num_heads=5"],
    ),
    "cross-attention heads": (
        lambda: layers.CrossAttention(5)(np.zeros((1, 7, 12))),
        ["`num_heads` must divide the width of the tokens, 12", "num_heads=5"],
    ),
    "no heads": (lambda: layers.CrossAttention(0), ["`num_heads`", "num_heads=0"]),
    "image and patches": (
        lambda: layers.PatchEmbed(16, 8)(np.zeros((1, 40, 48, 3))),
        ["multiples of patch_size=16", "(1, 40, 48, 3)"],
    ),
    "unknown image": (
        lambda: layers.PatchEmbed(16, 8).build((None, None, None, 3)),
        ["multiples of patch_size=16", "None"],
    ),
    "conv patch": (lambda: layers.ConvPatchEmbed(8, 8), ["`patch_size` must be one of 12, 16"]),
    "conv width": (lambda: layers.ConvPatchEmbed(12, 6), ["`embed_dim`", "4", "embed_dim=6"]),
    "resize": (lambda: layers.BicubicResize(0, 4), ["`height`", "height=0"]),
    "resize of unknown": (
        lambda: layers.BicubicResize(4, 4).build((None, None, 4, 3)),
        ["known size", "None"],
    ),
    "drop path": (lambda: layers.DropPath(1.5), ["`rate`", "[0, 1)", "rate=1.5"]),
    "mlp": (lambda: layers.Mlp(-1), ["`mlp_ratio` must be positive", "-1"]),
    "pool": (lambda: layers.TokenPool("sum"), ["`mode` must be one of 'avg'", "mode='sum'"]),
    "pool without token": (
        lambda: layers.TokenPool("token", class_token=False),
        ["`mode` must be one of 'avg', 'max'", "mode='token'"],
    ),
    "positions": (
        lambda: layers.PositionEmbedding().build((None, None, 8)),
        ["known number of tokens", "None"],
    ),
    "rates": (
        lambda: layers.MultiScaleBlock(large_depth=3, drop_path_rates=[0.1]),
        ["`drop_path_rates` must hold 3 rates", "[0.1]"],
    ),
    "block fusion": (lambda: layers.MultiScaleBlock(fusion="sum"), ["`fusion`", "'sum'"]),
    "block depth": (lambda: layers.MultiScaleBlock(small_depth=0), ["`small_depth`", "0"]),
    "block fusion depth": (
        lambda: layers.MultiScaleBlock(fusion_depth="2"),
        ["`fusion_depth` must be a positive integer", "fusion_depth='2'"],
    ),
    "block grid": (
        lambda: layers.MultiScaleBlock(small_grid=5),
        ["`small_grid` must be (rows, columns)", "small_grid=5"],
    ),
    "fusion depth": (
        lambda: layers.CrossAttentionFusion(2, 2, depth=0),
        ["`depth`", "depth=0"],
    ),
    "fusion name taken": (
        lambda: layers.register_fusion("cross_attention")(layers.NoFusion),
        ["`name` must be new", "'cross_attention'", "CrossAttentionFusion"],
    ),
}


WRONG_FILES = {
    "suffix": (
        lambda: kc.load_checkpoint(model(), "README.md"),
        ["`source` must end in one of .safetensors", "README.md"],
    ),
    "written suffix": (
        lambda: kc.save_checkpoint(model(), "weights.pth"),
        ["`path` must end in .safetensors", "weights.pth"],
    ),
}


def cases(*tables):
    return [pytest.param(*case, id=name) for table in tables for name, case in table.items()]


@pytest.mark.parametrize(
    ("call", "parts"), cases(WRONG_MODELS, WRONG_CONFIGS, WRONG_LAYERS, WRONG_FILES)
)
def test_wrong_argument(call, parts):
    with pytest.raises(ValueError, match=r"\w") as error:
        call()
    for part in parts:
        assert part in str(error.value)


def test_missing_file_is_a_file_not_found_error():
    with pytest.raises(FileNotFoundError, match=r"`source` must be an existing file.*no\.pth"):
        kc.load_checkpoint(model(), "no.pth")


def test_wrong_arguments_are_found_before_the_download(monkeypatch):
    """A model that cannot be built must not fetch a hundred megabytes first."""

    def fetch(*args, **kwargs):
        pytest.fail("the hub was asked")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    wrong = (
        {"classes": 0},
        {"pooling": "mean"},
        {"input_shape": (8, 8, 3)},
        {"input_shape": (240, 240, 3), "mean": (0.5, 0.5)},
        {"drop_path_rate": 2.0},
        {"classifier_activation": "soft"},
    )
    for arguments in wrong:
        with pytest.raises(ValueError, match="Received"):
            kc.CrossViT9(weights="imagenet", **arguments)
