"""The normalisation of the input, and the names of the predicted classes."""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_crossvit.common.pixels import MEAN, STD
from keras_crossvit.common.typing import Tensor
from keras_crossvit.models.inputs import has_layers_before


def normalize(
    images: Mapping[str, Any], mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    """The Keras tensors `(pixels / 255 - mean) / std`, by one layer, in float32.

    In bfloat16 pixels would lose half of their bits. One channel becomes as many as there are
    means: a grey image is normalised as red, as green and as blue.
    """
    # Not `keras.layers.Normalization`, with which `model.export(path, format="onnx")` writes files
    # that no runtime can run. With three axes, `Rescaling` reads the last as that of channels
    # also where Keras' image data format is channels first.
    layer = keras.layers.Rescaling(
        scale=[[[1 / (255 * value) for value in std]]],
        offset=[[[-m / s for m, s in zip(mean, std, strict=True)]]],
        dtype="float32",
        name="normalization",
    )
    normalized: dict[int, Any] = {}  # one for each image, even if two branches share it
    for image in images.values():
        if id(image) not in normalized:
            channels = image
            if image.shape[-1] != len(mean):
                channels = keras.layers.Concatenate(dtype="float32")([image] * len(mean))
            normalized[id(image)] = layer(channels)
    return {branch: normalized[id(image)] for branch, image in images.items()}


def check_normalization(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int, as_rgb: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The `mean` and `std` of a model, a number each for every channel that is normalised.

    Args:
        mean: The argument of `CrossViT`; `None` for ImageNet's three, repeated for more channels
            as the published weights are.
        std: Likewise.
        channels: Channels of the model's input.
        as_rgb: Whether one channel may be normalised as three.

    Raises:
        ValueError: If there are not as many numbers as channels, or not as many in both, or a
            deviation is not positive.
    """
    means = _numbers("mean", mean, MEAN, channels, as_rgb)
    deviations = _numbers("std", std, STD, channels, as_rgb)
    if len(means) != len(deviations):
        raise ValueError(
            "`mean` and `std` must both be given with as many numbers, 1 or 3, for images of one "
            f"channel. Received: mean={mean!r}, std={std!r}"
        )
    return means, deviations


def _numbers(name, values, default, channels, as_rgb):
    if values is None:
        if channels == 1:
            return tuple(default) if as_rgb else (float(np.mean(default)),)
        return tuple(np.resize(default, channels).tolist())
    found = tuple(values) if np.iterable(values) and not isinstance(values, str) else (values,)
    known = all(isinstance(x, (int, float, np.number)) and np.isfinite(x) for x in found)
    fits = len(found) == channels or (as_rgb and len(found) == len(default))
    if not known or not fits or (name == "std" and min(found) <= 0):
        positive = "positive " if name == "std" else ""
        raise ValueError(
            f"`{name}` must be None or {channels} {positive}numbers, one for each channel, of "
            f"pixels in 0..1. Received: {name}={values!r}"
        )
    return tuple(map(float, found))


def preprocess_input(
    x: Tensor,
    data_format: str | None = None,
    include_preprocessing: bool = True,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
) -> Tensor:
    """Prepares images for a model, like the functions of this name in `keras.applications`.

    A model with `include_preprocessing=True` (the default) takes pixels in 0..255 and
    normalises them itself, so this returns `x` unchanged, as for ConvNeXt and
    EfficientNetV2. For a model with `include_preprocessing=False`, pass `False` here too.

    Args:
        x: Array or tensor of RGB pixels in 0..255, `(..., H, W, 3)`.
        data_format: `None` or `"channels_last"`, the only format of these models.
        include_preprocessing: The value of this argument when the model was built.
        mean: `model.mean`; by default ImageNet's.
        std: `model.std`, likewise.

    Returns:
        `x` itself, or `(x / 255 - mean) / std` as float32.

    Raises:
        ValueError: If `data_format` is anything else, or `mean` and `std` do not fit the channels.
    """
    if data_format not in (None, "channels_last"):
        raise ValueError(
            f'`data_format` must be None or "channels_last". Received: {data_format!r}'
        )
    if include_preprocessing:
        return x
    x = keras.ops.cast(x, "float32") / 255.0
    channels = x.shape[-1]
    for name, values in (("mean", mean), ("std", std)):
        if channels not in (None, 1) and np.size(values) not in (1, channels):
            raise ValueError(
                f"`{name}` must be {channels} numbers, one for each channel, or one for all. "
                f"Received: {name}={values!r}"
            )
    return (x - keras.ops.array(mean, "float32")) / keras.ops.array(std, "float32")


def as_model_takes(model: keras.Model, pixels: Tensor) -> Tensor:
    """Pixels in 0..255 as a model takes them: as they are, or normalised.

    A `CrossViT` with `include_preprocessing=False` takes normalised images, unless it was built
    on an `input_tensor`: what comes before that tensor is its own preprocessing. For any other
    model this is not known, so it gets the pixels.

    Args:
        model: A Keras model.
        pixels: Array or tensor `(..., H, W, channels)`, pixels in 0..255.
    """
    if getattr(model, "include_preprocessing", True) or has_layers_before(model):
        return pixels
    return preprocess_input(pixels, include_preprocessing=False, mean=model.mean, std=model.std)


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes in order: WordNet's first word for each."""
    text = pathlib.Path(__file__).with_name("imagenet_labels.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def decode_predictions(preds: Tensor, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Names ImageNet predictions, like the functions of this name in `keras.applications`.

    The names are Keras' own list, which is downloaded once and stays in Keras' cache.

    Args:
        preds: Probabilities `(N, 1000)`.
        top: Number of most probable classes to name; positive.

    Returns:
        For each sample a list of `(WordNet id, name, probability)`, most probable first.

    Raises:
        ValueError: If `preds` is not `(N, 1000)`.
    """
    return keras.applications.imagenet_utils.decode_predictions(preds, top=top)
