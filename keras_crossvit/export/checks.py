"""Checks that every export makes first."""

import importlib.util

import keras

from keras_crossvit.models import CrossViT
from keras_crossvit.models.inputs import image_shape


def check_classifier(model: CrossViT, pairs: bool = False, files: bool = False) -> None:
    """Checks that a model can be exported.

    Args:
        model: The model.
        pairs: Whether it may take an image for each branch.
        files: Whether its images must be what image files hold.

    Raises:
        ValueError: If `model` is not a classifier of this package, or takes several inputs,
            an image for each branch or other than 1 or 3 channels where that may not be.
    """
    if not isinstance(model, CrossViT) or not model.include_top:
        raise ValueError(
            "`model` must be a classifier of this package, a CrossViT with include_top=True. "
            f"Received: model={getattr(model, 'name', model)!r}"
        )
    one = len(model.inputs) == 1 and len(model.input_shape) == 4
    if not one and not (pairs and model.takes_pairs):
        raise ValueError(
            "`model` must have one input, (None, H, W, channels). "
            f"Received: inputs of shapes {model.input_shape}"
        )
    if files and not reads_files(model):
        raise ValueError(
            "`model` must take images of 1 or 3 channels, as image files hold them. "
            f"Received: images of shape {(None, *image_shape(model))}"
        )


def reads_files(model: CrossViT) -> bool:
    """Whether a model takes what image files hold: 1 channel, or 3."""
    return image_shape(model)[2] in (1, 3)


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
