"""What a model costs."""

import math

import keras


def count_macs(model):
    """Multiply-accumulates of one sample through `model`, by a walk over its layers.

    Counts what the paper counts as FLOPs: linear layers, convolutions and the products of
    attention; no normalisation, softmax, GELU or resize. Cross-attention counts as the
    paper's formula, which is more than `CrossAttention` computes.

    Args:
        model: A functional model of this package, one that contains its layers, or a CNN of
            `keras.applications` made of dense layers and (depthwise) convolutions.

    Returns:
        An integer.
    """
    total = 0
    for layer in model.layers:
        shapes = keras.tree.map_structure(lambda x: x.shape, layer.input)
        if isinstance(layer, keras.Model):
            total += count_macs(layer)
        elif isinstance(layer, keras.layers.Dense):
            total += math.prod(shapes[1:]) * layer.units
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            # Each output position takes the whole kernel; a depthwise or grouped kernel has
            # only the inputs that it reads.
            total += math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape)
        elif hasattr(layer, "macs"):
            total += layer.macs(shapes)
    return total
