"""Architectures: the configuration, the table of presets, the functional graph."""

from keras_crossvit.models.config import BranchConfig, CrossViTConfig
from keras_crossvit.models.crossvit import (
    CrossViT,
    CrossViT9,
    CrossViT9Dagger,
    CrossViT15,
    CrossViT15Dagger,
    CrossViT18,
    CrossViT18Dagger,
    CrossViTBase,
    CrossViTSmall,
    CrossViTTiny,
    branch_logits,
)
from keras_crossvit.models.macs import count_macs
from keras_crossvit.models.preprocessing import decode_predictions, preprocess_input
from keras_crossvit.models.presets import presets

__all__ = [
    "BranchConfig",
    "CrossViT",
    "CrossViT15",
    "CrossViT15Dagger",
    "CrossViT18",
    "CrossViT18Dagger",
    "CrossViT9",
    "CrossViT9Dagger",
    "CrossViTBase",
    "CrossViTConfig",
    "CrossViTSmall",
    "CrossViTTiny",
    "branch_logits",
    "count_macs",
    "decode_predictions",
    "preprocess_input",
    "presets",
]
