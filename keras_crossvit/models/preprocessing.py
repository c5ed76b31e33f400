"""The pixels that the model wants, and the names of what it answers."""

import keras

from keras_crossvit.common.pixels import MEAN, STD


def normalization(name):
    """The layer `(pixels / 255 - MEAN) / STD`; float32, since bfloat16 would halve the bits."""
    return keras.layers.Normalization(
        mean=[255 * mean for mean in MEAN],
        variance=[(255 * std) ** 2 for std in STD],
        dtype="float32",
        name=name,
    )


def preprocess_input(x, data_format=None, include_preprocessing=True):
    """Prepares pixels for a model, as the function of this name in `keras.applications`.

    A model with `include_preprocessing=True` (the default) takes pixels in 0..255 and
    normalises them itself, so this returns `x` unchanged, as for ConvNeXt and
    EfficientNetV2. For a model with `include_preprocessing=False` pass `False` here too.

    Args:
        x: Array or tensor of RGB pixels in 0..255, `(..., H, W, 3)`.
        data_format: Only `None` or `"channels_last"`: these models have no other.
        include_preprocessing: The argument of the same name that built the model.

    Returns:
        `x` itself, or `(x / 255 - mean) / std` as float32 with ImageNet's mean and
        standard deviation.

    Raises:
        ValueError: If `data_format` is something else.
    """
    if data_format not in (None, "channels_last"):
        raise ValueError(
            f'`data_format` must be None or "channels_last". Received: {data_format!r}'
        )
    if include_preprocessing:
        return x
    x = keras.ops.cast(x, "float32") / 255.0
    return (x - keras.ops.array(MEAN, "float32")) / keras.ops.array(STD, "float32")


def decode_predictions(preds, top=5):
    """Names ImageNet predictions, as the function of this name in `keras.applications`.

    Args:
        preds: Probabilities `(N, 1000)`.
        top: How many of the highest to name, positive.

    Returns:
        For each sample a list of `(WordNet id, name, probability)`, highest first.

    Raises:
        ValueError: If `preds` is not `(N, 1000)`.
    """
    return keras.applications.imagenet_utils.decode_predictions(preds, top=top)
