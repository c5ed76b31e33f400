"""The normalisation of the input, and the names of the predicted classes."""

import keras

from keras_crossvit.common.pixels import MEAN, STD
from keras_crossvit.common.typing import Tensor


def normalization(name: str) -> keras.layers.Normalization:
    """The layer `(pixels / 255 - MEAN) / STD`, in float32: bfloat16 would halve the bits."""
    return keras.layers.Normalization(
        mean=[255 * mean for mean in MEAN],
        variance=[(255 * std) ** 2 for std in STD],
        dtype="float32",
        name=name,
    )


def preprocess_input(
    x: Tensor, data_format: str | None = None, include_preprocessing: bool = True
) -> Tensor:
    """Prepares images for a model, like the functions of this name in `keras.applications`.

    A model with `include_preprocessing=True` (the default) takes pixels in 0..255 and
    normalises them itself, so this returns `x` unchanged, as for ConvNeXt and
    EfficientNetV2. For a model with `include_preprocessing=False`, pass `False` here too.

    Args:
        x: Array or tensor of RGB pixels in 0..255, `(..., H, W, 3)`.
        data_format: `None` or `"channels_last"`, the only format of these models.
        include_preprocessing: The value of this argument when the model was built.

    Returns:
        `x` itself, or `(x / 255 - mean) / std` as float32 with ImageNet's mean and
        standard deviation.

    Raises:
        ValueError: If `data_format` is anything else.
    """
    if data_format not in (None, "channels_last"):
        raise ValueError(
            f'`data_format` must be None or "channels_last". Received: {data_format!r}'
        )
    if include_preprocessing:
        return x
    x = keras.ops.cast(x, "float32") / 255.0
    return (x - keras.ops.array(MEAN, "float32")) / keras.ops.array(STD, "float32")


def decode_predictions(preds: Tensor, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Names ImageNet predictions, like the functions of this name in `keras.applications`.

    Args:
        preds: Probabilities `(N, 1000)`.
        top: How many of the most probable classes to name, positive.

    Returns:
        For each sample a list of `(WordNet id, name, probability)`, most probable first.

    Raises:
        ValueError: If `preds` is not `(N, 1000)`.
    """
    return keras.applications.imagenet_utils.decode_predictions(preds, top=top)
