"""The name table: examples by hand, and one name for each variable of every architecture."""

import keras
import pytest

import keras_crossvit as kc
from keras_crossvit.weights.names import named_variables, timm_name
from tests import base

EXAMPLES = {
    "small_patch_embed/proj/kernel": "patch_embed.0.proj.weight",
    "large_patch_embed/conv_1/bias": "patch_embed.1.proj.2.bias",
    "small_class_token/token": "cls_token_0",
    "large_position_embedding/embedding": "pos_embed_1",
    "stage_2/large_block_4/attention/qkv/kernel": "blocks.2.blocks.1.4.attn.qkv.weight",
    "stage_0/small_block_0/norm2/beta": "blocks.0.blocks.0.0.norm2.bias",
    "stage_0/small_block_0/mlp/fc2/kernel": "blocks.0.blocks.0.0.mlp.fc2.weight",
    "stage_1/fusion/small_projection/norm/gamma": "blocks.1.projs.0.0.weight",
    "stage_1/fusion/large_projection/dense/kernel": "blocks.1.projs.1.2.weight",
    "stage_1/fusion/small_block/attention/query/kernel": "blocks.1.fusion.0.attn.wq.weight",
    "stage_1/fusion/large_block/norm/gamma": "blocks.1.fusion.1.norm1.weight",
    "stage_1/fusion/large_back_projection/dense/bias": "blocks.1.revert_projs.1.2.bias",
    "small_norm/gamma": "norm.0.weight",
    "large_head/bias": "head.1.bias",
    "large_head/kernel/of/another": None,
    "dense/kernel": None,
}


@pytest.mark.parametrize("path", EXAMPLES)
def test_examples(path):
    assert timm_name(path) == EXAMPLES[path]


@pytest.mark.parametrize("fusion", sorted(kc.layers.FUSIONS))
@pytest.mark.parametrize("patch_embed", sorted(kc.layers.PATCH_EMBEDS))
def test_each_variable_of_each_architecture_has_one_name(fusion, patch_embed):
    model = kc.CrossViT(base.any_design(fusion, patch_embed), weights=None, classes=2)
    names = named_variables(model)
    assert len(names) == len(model.weights)
    assert {id(v) for v in names.values()} == {id(v) for v in model.weights}


def test_deeper_fusion_has_names_too():
    model = base.small_model(base.small_config(fusion_depth=2))
    assert "blocks.0.fusion.1.1.attn.wk.weight" in named_variables(model)


def test_a_model_made_in_a_name_scope_has_the_same_names(model):
    """As one that a user's layer makes when it is built."""
    with keras.name_scope("outer"):
        inside = base.small_model()
    assert inside.weights[0].path.startswith("outer/")
    assert [*named_variables(inside)] == [*named_variables(model)]
