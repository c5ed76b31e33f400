"""The computational cost of a model."""

import math

import keras


def count_macs(model: keras.Model) -> int:
    """Counts the multiply-accumulates of `model` for one sample, layer by layer.

    Counts what the paper counts as FLOPs: dense layers, convolutions and the matrix products
    of attention, but not normalisation, softmax, GELU or resizing. Cross-attention is counted
    by the paper's formula, which is more than `CrossAttention` computes.

    Args:
        model: A functional model of this package, a model that contains its layers, or one of
            Keras' dense layers and convolutions over images, of any kind.

    Returns:
        The number of multiply-accumulates.
    """
    total = 0
    for layer in model.layers:
        shapes = keras.tree.map_structure(lambda x: x.shape, layer.input)
        if isinstance(layer, keras.Model):
            total += count_macs(layer)
        elif isinstance(layer, keras.layers.Dense):
            total += math.prod(shapes[1:]) * layer.units
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            # Each output position uses the whole kernel. The kernel of a depthwise or grouped
            # convolution has entries only for the inputs that are used.
            total += math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.Conv2DTranspose):
            total += math.prod(shapes[1:3]) * math.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.SeparableConv2D):
            kernels = layer.depthwise_kernel, layer.pointwise_kernel
            products = sum(math.prod(kernel.shape) for kernel in kernels)
            total += math.prod(layer.output.shape[1:3]) * products
        elif hasattr(layer, "macs"):
            total += layer.macs(shapes)
    return total
