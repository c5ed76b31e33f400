"""The fusions of section 3.3, one file each; `FUSIONS` is the registry of their names."""

from keras_crossvit.layers.fusions.base import FUSIONS, Fusion, register_fusion
from keras_crossvit.layers.fusions.cross_attention import (
    CrossAttentionBlock,
    CrossAttentionFusion,
    Projection,
)

__all__ = [
    "FUSIONS",
    "CrossAttentionBlock",
    "CrossAttentionFusion",
    "Fusion",
    "Projection",
    "register_fusion",
]
