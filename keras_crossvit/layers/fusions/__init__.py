"""The fusions of section 3.3, one per file; `FUSIONS` is the registry."""

from keras_crossvit.layers.fusions.all_attention import AllAttentionFusion
from keras_crossvit.layers.fusions.base import FUSIONS, Fusion, register_fusion
from keras_crossvit.layers.fusions.class_token import ClassTokenFusion
from keras_crossvit.layers.fusions.cross_attention import (
    CrossAttentionBlock,
    CrossAttentionFusion,
)
from keras_crossvit.layers.fusions.none import NoFusion
from keras_crossvit.layers.fusions.pairwise import PairwiseFusion
from keras_crossvit.layers.fusions.projection import Projection

__all__ = [
    "FUSIONS",
    "AllAttentionFusion",
    "ClassTokenFusion",
    "CrossAttentionBlock",
    "CrossAttentionFusion",
    "Fusion",
    "NoFusion",
    "PairwiseFusion",
    "Projection",
    "register_fusion",
]
