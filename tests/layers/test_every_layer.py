"""Keras' own layer test on every layer of `keras_crossvit.layers`."""

import inspect
from typing import NamedTuple

import keras
import pytest
from keras.src.testing import TestCase  # where Keras keeps it; not in its public names

from keras_crossvit import layers

BOTH = [(2, 5, 8), (2, 10, 12)]
IMAGE = (2, 48, 96, 3)
HEADS = {"small_num_heads": 2, "large_num_heads": 3}


class Case(NamedTuple):
    """Arguments, shapes, and numbers counted by hand: a linear layer or norm has two weights."""

    arguments: dict
    input_shape: tuple | list
    output_shape: tuple | list
    trainable: int = 0
    non_trainable: int = 0
    seeds: int = 0


ENCODER, ATTENDS, PROJECTS = 12, 10, 4  # weights of one encoder, one attention, one projection
CASES = {
    "AllAttentionFusion": Case(HEADS, BOTH, BOTH, 4 * PROJECTS + 6),
    "BicubicResize": Case({"height": 6, "width": 9}, (2, 5, 8, 3), (2, 6, 9, 3)),
    "ClassToken": Case({}, (2, 4, 8), (2, 5, 8), 1),
    "ClassTokenFusion": Case(HEADS, BOTH, BOTH, 2 * PROJECTS),
    "ConvPatchEmbed": Case({"patch_size": 12, "embed_dim": 8}, IMAGE, (2, 32, 8), 6),
    "CrossAttention": Case({"num_heads": 2}, (2, 5, 8), (2, 1, 8), 8),
    "CrossAttentionBlock": Case(
        {"num_heads": 2, "drop_path_rate": 0.2, "seed": 1}, (2, 5, 8), (2, 1, 8), ATTENDS, seeds=1
    ),
    "CrossAttentionFusion": Case(HEADS, BOTH, BOTH, 2 * ATTENDS + 4 * PROJECTS),
    "DropPath": Case({"rate": 0.3, "seed": 1}, (3, 4, 8), (3, 4, 8), seeds=1),
    "Mlp": Case({"mlp_ratio": 2}, (2, 5, 8), (2, 5, 8), 4),
    "MultiScaleBlock": Case(
        {"small_depth": 1, "large_depth": 2, **HEADS, "drop_path_rates": [0.1, 0.2]},
        BOTH,
        BOTH,
        3 * ENCODER + 2 * ATTENDS + 4 * PROJECTS,
        seeds=3 + 2,
    ),
    "NoFusion": Case(HEADS, BOTH, BOTH),
    "PairwiseFusion": Case(HEADS, BOTH, BOTH, 2 * PROJECTS),
    "PatchEmbed": Case({"patch_size": 16, "embed_dim": 8}, IMAGE, (2, 18, 8), 2),
    "PositionEmbedding": Case({}, (2, 5, 8), (2, 5, 8), 1),
    "Projection": Case({"units": 12}, (2, 5, 8), (2, 5, 12), PROJECTS),
    "SelfAttention": Case({"num_heads": 2, "qkv_bias": False}, (2, 5, 8), (2, 5, 8), 3),
    "SoftSplit": Case({"kernel_size": 3, "stride": 2, "padding": 1}, (2, 5, 8, 3), (2, 3, 4, 27)),
    "T2TPatchEmbed": Case({"patch_size": 16, "embed_dim": 8}, IMAGE, (2, 18, 8), 2 * 12 + 2, 2),
    "T2TTransformerPatchEmbed": Case(
        {"patch_size": 16, "embed_dim": 8}, IMAGE, (2, 18, 8), 2 * 11 + 2
    ),
    "TokenPerformer": Case({"units": 12}, (2, 5, 8), (2, 5, 12), 12, 1),
    "TokenTransformer": Case({"units": 12}, (2, 5, 8), (2, 5, 12), 11),
    "TokenPool": Case({"mode": "avg"}, (2, 5, 8), (2, 8)),
    "TransformerBlock": Case(
        {"num_heads": 2, "drop_path_rate": 0.2, "gradient_checkpointing": True},
        (2, 5, 8),
        (2, 5, 8),
        ENCODER,
        seeds=1,
    ),
}


def public_layers():
    """Every layer in the package's lists that can be instantiated, so not the base classes."""
    public = [getattr(layers, name) for name in layers.__all__]
    registered = [*layers.FUSIONS.values(), *layers.PATCH_EMBEDS.values()]
    own = [x for x in registered if x.__module__.startswith("keras_crossvit.")]
    bases = (layers.BasePatchEmbed, layers.Fusion)
    is_layer = [x for x in public if inspect.isclass(x) and issubclass(x, keras.layers.Layer)]
    return {layer.__name__: layer for layer in [*is_layer, *own] if layer not in bases}


@pytest.mark.parametrize("name", sorted(public_layers()))
def test_passes_keras_own_layer_test(name):
    assert name in CASES, f"{name} is public: add its case to CASES"
    assert name in layers.__all__
    case = CASES[name]
    test = TestCase()
    test.setUp()
    test.run_layer_test(
        public_layers()[name],
        case.arguments,
        input_shape=case.input_shape,
        expected_output_shape=case.output_shape,
        expected_num_trainable_weights=case.trainable,
        expected_num_non_trainable_weights=case.non_trainable,
        expected_num_seed_generators=case.seeds,
        expected_num_losses=0,
        # tf.data takes a list for one tensor, so Keras' training check cannot feed two branches:
        # their check is in test_multi_scale_block.py.
        run_training_check=case.input_shape is not BOTH,
    )


@pytest.mark.parametrize("name", sorted(public_layers()))
def test_configuration_has_every_argument(name):
    """Keras' own test compares it with that of a copy, which lacks the same ones."""
    layer, given = public_layers()[name], CASES[name].arguments
    config = layer(**given).get_config()
    assert (
        inspect.signature(layer.__init__).parameters.keys() - {"self", "kwargs"} <= config.keys()
    )
    assert {argument: config[argument] for argument in given} == given


@pytest.mark.parametrize("name", sorted(public_layers()))
def test_is_registered_under_the_package_name(name):
    layer = public_layers()[name]
    assert keras.saving.get_registered_name(layer) == f"keras_crossvit>{name}"
    assert keras.saving.get_registered_object(f"keras_crossvit>{name}") is layer


@pytest.mark.parametrize("name", sorted(public_layers()))
def test_computes_the_shape_it_says(name):
    """With a free batch dimension, as in a functional model."""
    case = CASES[name]

    def free(shapes):
        is_list = isinstance(shapes, list)
        return [(None, *s[1:]) for s in shapes] if is_list else (None, *shapes[1:])

    layer = public_layers()[name](**case.arguments)
    assert layer.compute_output_shape(free(case.input_shape)) == free(case.output_shape)
