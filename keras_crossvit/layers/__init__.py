"""The layers of CrossViT; each stands alone and is registered with Keras."""

from keras_crossvit.layers.activations import gelu
from keras_crossvit.layers.attention import SelfAttention
from keras_crossvit.layers.bicubic_resize import BicubicResize
from keras_crossvit.layers.cross_attention import CrossAttention
from keras_crossvit.layers.drop_path import DropPath
from keras_crossvit.layers.fusions import (
    FUSIONS,
    CrossAttentionBlock,
    CrossAttentionFusion,
    Fusion,
    Projection,
    register_fusion,
)
from keras_crossvit.layers.multi_scale_block import MultiScaleBlock
from keras_crossvit.layers.patch_embed import PATCH_EMBEDS, ConvPatchEmbed, PatchEmbed
from keras_crossvit.layers.tokens import ClassToken, PositionEmbedding, TokenPool
from keras_crossvit.layers.transformer_block import Mlp, TransformerBlock

__all__ = [
    "FUSIONS",
    "PATCH_EMBEDS",
    "BicubicResize",
    "ClassToken",
    "ConvPatchEmbed",
    "CrossAttention",
    "CrossAttentionBlock",
    "CrossAttentionFusion",
    "DropPath",
    "Fusion",
    "Mlp",
    "MultiScaleBlock",
    "PatchEmbed",
    "PositionEmbedding",
    "Projection",
    "SelfAttention",
    "TokenPool",
    "TransformerBlock",
    "gelu",
    "register_fusion",
]
