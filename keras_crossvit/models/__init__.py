"""Architectures: their configuration, the presets and the functional model."""

from keras_crossvit.models import legacy  # noqa: F401  (registers what version 0.1 saved)
from keras_crossvit.models.assembly import BranchLayers
from keras_crossvit.models.config import BranchConfig, CrossViTConfig
from keras_crossvit.models.constructors import (
    CrossViT9,
    CrossViT9Dagger,
    CrossViT15,
    CrossViT15Dagger,
    CrossViT18,
    CrossViT18Dagger,
    CrossViTBase,
    CrossViTSmall,
    CrossViTTiny,
)
from keras_crossvit.models.crossvit import CrossViT
from keras_crossvit.models.features import branch_logits, feature_model, feature_names
from keras_crossvit.models.freezing import freeze
from keras_crossvit.models.macs import count_macs
from keras_crossvit.models.preprocessing import decode_predictions, preprocess_input
from keras_crossvit.models.presets import presets, register_preset
from keras_crossvit.models.pretrained import from_pretrained
from keras_crossvit.models.pyramid import feature_pyramid

__all__ = [
    "BranchConfig",
    "BranchLayers",
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
    "feature_model",
    "feature_names",
    "feature_pyramid",
    "freeze",
    "from_pretrained",
    "preprocess_input",
    "presets",
    "register_preset",
]
