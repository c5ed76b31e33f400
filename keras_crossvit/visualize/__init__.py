"""What a model attends to, as arrays and as figures. No function changes the model."""

from keras_crossvit.visualize.attention import Attention, attention_rollout, cross_attention
from keras_crossvit.visualize.gradcam import class_scores, gradcam
from keras_crossvit.visualize.maps import feature_maps
from keras_crossvit.visualize.plots import (
    plot_cross_attention,
    plot_feature_maps,
    plot_gradcam,
    plot_rollout,
)

__all__ = [
    "Attention",
    "attention_rollout",
    "class_scores",
    "cross_attention",
    "feature_maps",
    "gradcam",
    "plot_cross_attention",
    "plot_feature_maps",
    "plot_gradcam",
    "plot_rollout",
]
