"""Checks that every export makes first, and what a model returns."""

import importlib.util

import keras

from keras_crossvit.models import CrossViT


def check_classifier(model: CrossViT, pairs: bool = False) -> None:
    """Checks that a model can be exported.

    Args:
        model: The model.
        pairs: Whether it may take an image for each branch.

    Raises:
        ValueError: If `model` is not a classifier of this package, or does not have a single
            input of 1 or 3 channels.
    """
    if not isinstance(model, CrossViT) or not model.include_top:
        raise ValueError(
            "`model` must be a classifier of this package, a CrossViT with include_top=True. "
            f"Received: model={getattr(model, 'name', model)!r}"
        )
    shape = model.input_shape
    if pairs and model.takes_pairs:
        shape = shape[0]
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] not in (1, 3):
        raise ValueError(
            "`model` must have one input of 1 or 3 channels, (None, H, W, channels). "
            f"Received: an input of shape {shape}"
        )


def check_float32(model: CrossViT) -> None:
    """Raises ValueError unless all of a model computes in float32, as converters need."""
    policies = {layer.dtype_policy.name for layer in model.layers} - {"float32"}
    if policies:
        raise ValueError(
            "`model` must compute in float32: build it with dtype='float32' and load its "
            f"weights. Received: the policies {sorted(policies)}"
        )


def check_backend(function: str) -> None:
    """Raises RuntimeError if Keras' backend is not TensorFlow; `function` names the caller."""
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"{function} needs the TensorFlow backend: save the model with `model.save` and "
            "export it in a process with KERAS_BACKEND=tensorflow. "
            f"Received: the backend {keras.backend.backend()!r}"
        )


def check_packages(purpose: str, *packages: str, extra: str = "tensorflow,runtimes") -> None:
    """Raises ImportError, which names the `extra` to install, if one of `packages` is missing."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(
            f'{purpose} needs {" and ".join(missing)}: pip install "keras-crossvit[{extra}]"'
        )


def input_prefixes(model: CrossViT) -> list[str]:
    """What the names of an export's inputs begin with: nothing, or "small_" and "large_"."""
    return [f"{branch}_" for branch in model.images] if model.takes_pairs else [""]


def gives_logits(model: CrossViT) -> bool:
    """Whether the model returns logits rather than probabilities."""
    return keras.activations.get(model.classifier_activation) is keras.activations.linear


def takes_pixels(model: CrossViT) -> bool:
    """Whether the model takes pixels in 0..255 rather than normalised images.

    One that was built on an `input_tensor` does: what comes before that tensor is its own
    preprocessing.
    """
    return model.include_preprocessing or all(
        x is not image for x in model.inputs for image in model.images.values()
    )
