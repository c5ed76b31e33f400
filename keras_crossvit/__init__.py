"""CrossViT, the cross-attention multi-scale vision transformer, for Keras 3."""

from keras_crossvit import layers, optimizer  # noqa: F401  (registers what saved models name)
from keras_crossvit.export import export_saved_model
from keras_crossvit.models import (
    BranchConfig,
    CrossViT,
    CrossViT9,
    CrossViT9Dagger,
    CrossViT15,
    CrossViT15Dagger,
    CrossViT18,
    CrossViT18Dagger,
    CrossViTBase,
    CrossViTConfig,
    CrossViTSmall,
    CrossViTTiny,
    branch_logits,
    count_macs,
    decode_predictions,
    feature_model,
    feature_names,
    feature_pyramid,
    freeze,
    from_pretrained,
    preprocess_input,
    presets,
    register_preset,
)
from keras_crossvit.weights import load_checkpoint, save_checkpoint

__version__ = "0.1.0"

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
    "export_saved_model",
    "feature_model",
    "feature_names",
    "feature_pyramid",
    "freeze",
    "from_pretrained",
    "layers",
    "load_checkpoint",
    "preprocess_input",
    "presets",
    "register_preset",
    "save_checkpoint",
]
