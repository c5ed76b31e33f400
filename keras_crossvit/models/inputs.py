"""The images that a model's graph begins with: one for both branches, or one for each."""

from typing import Any

import keras
import numpy as np

from keras_crossvit.common.checks import check_choice
from keras_crossvit.models.config import CrossViTConfig
from keras_crossvit.weights.sources import WeightSource


def make_images(
    config: CrossViTConfig,
    source: WeightSource | None,
    input_tensor: Any,
    input_shape: Any,
    inputs: str,
) -> dict[str, Any]:
    """The Keras tensors `(B, H, W, channels)` that the branches see.

    Args:
        config: The architecture.
        source: The weights that will be loaded, which may decide the size; `None` for none.
        input_tensor: As in `CrossViT`.
        input_shape: As in `CrossViT`.
        inputs: As in `CrossViT`.

    Returns:
        `{"small": tensor, "large": tensor}`, the same tensor twice unless `inputs` is "separate".

    Raises:
        ValueError: If an argument is not allowed.
    """
    check_choice("inputs", inputs, {"shared", "separate"})
    if inputs == "separate" and (config.small is None or input_tensor is not None):
        raise ValueError(
            '`inputs` must be "shared" for a model of one branch or on an `input_tensor`. '
            f"Received: inputs={inputs!r}"
        )
    if input_tensor is not None:
        _check_tensor(input_tensor, input_shape)
        return dict.fromkeys(config.branches, input_tensor)
    side = (source and source.input_size) or config.input_size
    shape = _check_shape((side, side, 3) if input_shape is None else input_shape)
    config.branch_sizes(*shape[:2])  # so that no graph is made for a size that is too small
    if inputs == "separate":
        return {name: keras.Input(shape, name=f"{name}_images") for name in config.branches}
    return dict.fromkeys(config.branches, keras.Input(shape, name="images"))


def _check_tensor(tensor, input_shape):
    if not keras.utils.is_keras_tensor(tensor):
        raise ValueError(
            f"`input_tensor` must be a Keras tensor. Received: {type(tensor).__name__}"
        )
    shape = _check_shape(tuple(tensor.shape[1:]))
    if input_shape is not None and tuple(np.atleast_1d(input_shape)) != shape:
        raise ValueError(
            f"`input_shape` must be that of `input_tensor`, {shape}, or None. "
            f"Received: input_shape={input_shape}"
        )


def _check_shape(shape):
    shape = tuple(shape) if np.iterable(shape) else (shape,)
    known = len(shape) == 3 and all(isinstance(n, (int, np.integer)) and n > 0 for n in shape)
    if not known:
        raise ValueError(
            "`input_shape` must be three positive integers `(height, width, channels)`: position "
            f"embeddings need a known size. Received: input_shape={shape}"
        )
    if shape[0] <= 4 < min(shape[1:]):
        raise ValueError(
            "`input_shape` must be `(height, width, channels)`, channels last. "
            f"Received: input_shape={shape}, which looks like channels first"
        )
    return tuple(map(int, shape))


def has_layers_before(model: Any) -> bool:
    """Whether a CrossViT's graph begins with other layers than its own, on an `input_tensor`."""
    return any(all(image is not x for x in model.inputs) for image in model.images.values())


def takes_pixels(model: Any) -> bool:
    """Whether a CrossViT takes values of 0..255, which it normalises, with no layers before it."""
    return model.include_preprocessing and not has_layers_before(model)


def image_shape(model: Any) -> tuple[int, int, int]:
    """`(height, width, channels)` of the images that a model takes, with a known size.

    Those of its input, which on an `input_tensor` may be others than its branches see; a side
    that the input leaves open is theirs.
    """
    given, seen = model.inputs[0].shape[1:], model.images["large"].shape[1:]
    height, width, channels = (own or side for own, side in zip(given, seen, strict=True))
    return height, width, channels
