"""The computational cost of a model."""

import itertools
import math

import keras

_CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.SeparableConv2D,
)


def count_macs(model: keras.Model) -> int:
    """Counts the multiply-accumulates of `model` for one sample, layer by layer.

    Counts what the paper counts as FLOPs: dense layers, convolutions and the matrix products
    of attention, but not normalisation, softmax, GELU or resizing. Cross-attention is counted
    by the paper's formula, which is more than `CrossAttention` computes.

    Args:
        model: A functional model of this package, a model that contains its layers, or one of
            Keras' dense layers and convolutions over images, of any kind.

    Returns:
        The number of multiply-accumulates. A layer counts each time that `model` uses it.

    Raises:
        ValueError: If `model` is of another kind, or the sizes of what a layer computes are not
            known.
    """
    graph = model
    if isinstance(model, keras.Sequential) and model.built:
        graph = keras.Model(model.inputs, model.outputs)
    if not isinstance(graph, keras.Model) or not hasattr(graph, "operations"):
        raise ValueError(
            "`model` must be a functional model, or a Sequential one that is built. "
            f"Received: {model!r}"
        )
    # A layer's own inputs may be those of its use in another model.
    uses = itertools.chain.from_iterable(graph._nodes_by_depth.values())
    return sum(_macs(use.operation, use.input_tensors, use.output_tensors) for use in uses)


def _macs(layer, inputs, outputs):
    """The multiply-accumulates of one use of a layer."""
    if isinstance(layer, keras.Model):
        return count_macs(layer)
    if not hasattr(layer, "macs") and not isinstance(layer, (keras.layers.Dense, *_CONVOLUTIONS)):
        return 0
    shapes = [tuple(x.shape) for x in inputs]
    if None in itertools.chain.from_iterable(shape[1:] for shape in shapes):
        raise ValueError(
            "`model` must have an input of known sizes. "
            f"Received: {', '.join(map(str, shapes))} for the layer {layer.name!r}"
        )
    if hasattr(layer, "macs"):
        return layer.macs(shapes if len(shapes) > 1 else shapes[0])
    if isinstance(layer, keras.layers.Dense):
        return math.prod(shapes[0][1:]) * layer.units
    return _macs_of_convolution(layer, shapes[0], outputs[0].shape)


def _macs_of_convolution(layer, input_shape, output_shape):
    axes = slice(1, 3) if layer.data_format == "channels_last" else slice(2, 4)
    if isinstance(layer, keras.layers.Conv2DTranspose):
        return math.prod(input_shape[axes]) * math.prod(layer.kernel.shape)
    if isinstance(layer, keras.layers.SeparableConv2D):
        kernels = [layer.depthwise_kernel, layer.pointwise_kernel]
    else:
        kernels = [layer.kernel]
    # Each output position uses the whole kernel. The kernel of a depthwise or grouped
    # convolution has entries only for the inputs that are used.
    return math.prod(output_shape[axes]) * sum(math.prod(kernel.shape) for kernel in kernels)
