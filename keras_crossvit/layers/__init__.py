"""The layers of CrossViT; each works on its own and is registered with Keras."""

from keras_crossvit.layers.activations import gelu
from keras_crossvit.layers.attention import SelfAttention
from keras_crossvit.layers.bicubic_resize import BicubicResize
from keras_crossvit.layers.cross_attention import CrossAttention
from keras_crossvit.layers.drop_path import DropPath
from keras_crossvit.layers.fusions import (
    FUSIONS,
    AllAttentionFusion,
    ClassTokenFusion,
    CrossAttentionBlock,
    CrossAttentionFusion,
    Fusion,
    NoFusion,
    PairwiseFusion,
    Projection,
    register_fusion,
)
from keras_crossvit.layers.multi_scale_block import MultiScaleBlock
from keras_crossvit.layers.patch_embed import (
    PATCH_EMBEDS,
    BasePatchEmbed,
    ConvPatchEmbed,
    PatchEmbed,
    register_patch_embed,
)
from keras_crossvit.layers.t2t import (
    SoftSplit,
    T2TPatchEmbed,
    T2TTransformerPatchEmbed,
    TokenPerformer,
    TokenTransformer,
)
from keras_crossvit.layers.tokens import ClassToken, PositionEmbedding, TokenPool
from keras_crossvit.layers.transformer_block import Mlp, TransformerBlock

__all__ = [
    "FUSIONS",
    "PATCH_EMBEDS",
    "AllAttentionFusion",
    "BasePatchEmbed",
    "BicubicResize",
    "ClassToken",
    "ClassTokenFusion",
    "ConvPatchEmbed",
    "CrossAttention",
    "CrossAttentionBlock",
    "CrossAttentionFusion",
    "DropPath",
    "Fusion",
    "Mlp",
    "MultiScaleBlock",
    "NoFusion",
    "PairwiseFusion",
    "PatchEmbed",
    "PositionEmbedding",
    "Projection",
    "SelfAttention",
    "SoftSplit",
    "T2TPatchEmbed",
    "T2TTransformerPatchEmbed",
    "TokenPerformer",
    "TokenTransformer",
    "TokenPool",
    "TransformerBlock",
    "gelu",
    "register_fusion",
    "register_patch_embed",
]
