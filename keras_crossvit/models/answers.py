"""A classifier's answers: names of its classes, and probabilities."""

import keras
import numpy as np

from keras_crossvit.common.typing import Tensor
from keras_crossvit.models.crossvit import CrossViT


def class_names(model: CrossViT) -> tuple[str, ...]:
    """The model's labels or, if it has none, the numbers of its classes."""
    return model.labels or tuple(map(str, range(model.classes)))


def gives_logits(model: CrossViT) -> bool:
    """Whether the model returns logits rather than probabilities."""
    return keras.activations.get(model.classifier_activation) is keras.activations.linear


def probabilities(model: CrossViT, logits: Tensor, several: bool = False) -> np.ndarray:
    """Probabilities by the model's own activation, or by softmax if it returns logits.

    Args:
        model: A classifier.
        logits: `(B, classes)`, before the activation.
        several: Whether images have several labels; if the model returns logits, the classes are
            then independent, by the sigmoid.

    Returns:
        `(B, classes)`, in [0, 1].
    """
    logits = keras.ops.convert_to_tensor(logits)
    activation = keras.activations.get(model.classifier_activation)
    if activation is keras.activations.linear:
        activation = keras.activations.sigmoid if several else keras.activations.softmax
    if model.classes == 1 and activation is keras.activations.softmax:
        activation = keras.activations.sigmoid
    return np.array(keras.ops.convert_to_numpy(activation(logits)))


def check_one_image(model: keras.Model) -> None:
    """Raises `ValueError` if a model takes an image for each branch."""
    if getattr(model, "takes_pairs", False):
        raise ValueError(
            "`model` must see one image with both branches. Received: one with inputs='separate'"
        )


def check_finite(scores: Tensor) -> np.ndarray:
    """The scores as an array; if they were not finite, the highest could be any class's.

    Raises:
        ValueError: If some are NaN or infinite.
    """
    scores = np.asarray(scores)
    if not np.isfinite(scores).all():
        raise ValueError(
            "`model` must answer with finite numbers. Received: NaN or infinity, as from weights "
            "that training or a conversion has broken"
        )
    return scores
