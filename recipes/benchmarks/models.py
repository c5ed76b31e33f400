"""Models by name: the presets of this package and the CNNs of `keras.applications`."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import keras

from keras_crossvit.layers import ClassToken, PositionEmbedding
from keras_crossvit.models import CrossViT, CrossViTConfig, count_macs, presets


def find_model(name: str) -> tuple[Callable[..., keras.Model], dict[str, Any]]:
    """Looks a model up: the function that builds it and arguments for it; see `make_model`."""
    name, _, side = name.partition("@")
    if side and not side.isdecimal():
        raise ValueError(f"`name` must end in @SIDE, in pixels. Received: name='{name}@{side}'")
    arguments = {"input_shape": (int(side), int(side), 3)} if side else {}
    if name in presets():
        return CrossViT, {"config": CrossViTConfig.preset(name), **arguments}
    constructor = getattr(keras.applications, name, None)
    if not inspect.isfunction(constructor) or name == name.lower():
        raise ValueError(
            "`name` must be a preset of keras_crossvit.presets(), or a model of "
            f"keras.applications such as ResNet101 or EfficientNetB4. Received: name={name!r}"
        )
    return constructor, arguments


def make_model(name: str, **arguments: Any) -> keras.Model:
    """Builds a classifier of 1000 classes without trained weights.

    Args:
        name: A preset ("crossvit_15_dagger"), or a CNN as `keras.applications` spells it
            ("ResNet101", "EfficientNetB4"); either may end in "@SIDE", the side of the input
            in pixels, instead of the model's default.
        **arguments: Further arguments of `CrossViT`; only for presets.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: If there is no such model.
    """
    constructor, found = find_model(name)
    return constructor(weights=None, **found, **arguments)


def cost_of(model: keras.Model) -> dict[str, int]:
    """The cost of a model as papers give it, counted from its layers.

    Returns:
        A dictionary: `parameters` (the trainable ones, so without the moving statistics of batch
        normalisation), `macs` (multiply-accumulates for one image) and `position_parameters`
        (those of the parameters that belong to position embeddings and class tokens).
    """

    def count(layers):
        return sum(math.prod(v.shape) for layer in layers for v in layer.trainable_variables)

    added = [layer for layer in model.layers if isinstance(layer, (ClassToken, PositionEmbedding))]
    return {
        "parameters": count([model]),
        "macs": count_macs(model),
        "position_parameters": count(added),
    }
