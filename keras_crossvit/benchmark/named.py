"""Models by name: the presets of this package and the CNNs of `keras.applications`."""

import inspect
import math

import keras

from keras_crossvit.layers import ClassToken, PositionEmbedding
from keras_crossvit.models import CrossViT, CrossViTConfig, count_macs, presets


def make_model(name, **arguments):
    """Builds a classifier of 1000 classes without trained weights.

    Args:
        name: A preset ("crossvit_15_dagger"), or a CNN as `keras.applications` spells it
            ("ResNet101", "EfficientNetB4"); either may end in "@SIDE", the side of the input
            in pixels, which otherwise is the model's default.
        **arguments: Further arguments of `CrossViT`; only for presets.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: If there is no such model.
    """
    name, _, side = name.partition("@")
    if side and not side.isdecimal():
        raise ValueError(f"`name` must end in @SIDE, in pixels. Received: name='{name}@{side}'")
    if side:
        arguments["input_shape"] = (int(side), int(side), 3)
    if name in presets():
        return CrossViT(CrossViTConfig.preset(name), weights=None, **arguments)
    constructor = getattr(keras.applications, name, None)
    if not inspect.isfunction(constructor) or name == name.lower():
        raise ValueError(
            "`name` must be a preset of keras_crossvit.presets(), or a model of "
            f"keras.applications such as ResNet101 or EfficientNetB4. Received: name={name!r}"
        )
    return constructor(weights=None, **arguments)


def cost_of(model):
    """What papers give as the cost of a model, counted from the model.

    Returns:
        A dictionary of integers: `parameters` (trainable ones: the moving statistics of
        batch normalisation are none), `macs` (multiply-accumulates of one image) and
        `position_parameters` (the share of position embeddings and class tokens).
    """

    def count(layers):
        return sum(math.prod(v.shape) for layer in layers for v in layer.trainable_variables)

    added = [layer for layer in model.layers if isinstance(layer, (ClassToken, PositionEmbedding))]
    return {
        "parameters": count([model]),
        "macs": count_macs(model),
        "position_parameters": count(added),
    }
