"""What the exports need to know of a model: is it a classifier, and what does it return."""

import keras

from keras_crossvit.models import CrossViT


def check_classifier(model: CrossViT) -> None:
    """Checks that a model can be exported.

    Raises:
        ValueError: If `model` is no classifier of this package, or has other inputs than one of
            3 channels.
    """
    if not isinstance(model, CrossViT) or not model.include_top:
        raise ValueError(
            "`model` must be a classifier of this package, a CrossViT with include_top=True. "
            f"Received: model={getattr(model, 'name', model)!r}"
        )
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] != 3:
        raise ValueError(
            "`model` must have one input of 3 channels, (None, H, W, 3). "
            f"Received: an input of shape {shape}"
        )


def check_backend(function):
    """Raises RuntimeError if Keras' backend is not TensorFlow; `function` names the caller."""
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"{function} needs the TensorFlow backend: save the model by `model.save` and "
            "export it in a process with KERAS_BACKEND=tensorflow. "
            f"Received: the backend {keras.backend.backend()!r}"
        )


def gives_logits(model: CrossViT) -> bool:
    """Whether the model answers with logits rather than with probabilities."""
    return keras.activations.get(model.classifier_activation) is keras.activations.linear
