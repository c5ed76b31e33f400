"""How much memory a training step takes, estimated before it runs."""

import math
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf


def variable_bytes(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> int:
    """Bytes of the weights, their gradients and the optimizer's state, on each replica."""
    return bytes_of([*model.variables, *optimizer.variables, *model.trainable_variables])


def bytes_of(variables: Iterable[keras.Variable]) -> int:
    """Bytes of these variables together."""
    return sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in variables)


def activation_bytes(model: keras.Model) -> int:
    """Bytes that the forward pass of one image keeps for its backward pass.

    Counted in the graph of both: the tensors that the backward pass reads from the forward
    pass and that depend on the image. The compiler may need less, and a step needs some working
    space.

    Args:
        model: A functional model.
    """

    @tf.function
    def gradients(images):
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
        forward = outputs.graph.get_operations()
        tape.gradient(outputs, model.trainable_variables)
        made = _made_from(images, forward)
        for operation in outputs.graph.get_operations()[len(forward) :]:
            kept.update({x.ref(): x for x in operation.inputs if x.op.name in made})

    kept: dict[Any, tf.Tensor] = {}
    shape = (1, *model.input_shape[1:])
    gradients.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    return sum(_bytes(tensor) for tensor in kept.values())


def _made_from(images, operations):
    """Names of the operations that read the images: a weight in bfloat16 is there once for all."""
    made = {images.op.name}
    for operation in operations:
        if any(x.op.name in made for x in operation.inputs):
            made.add(operation.name)
    return made


def _bytes(tensor):
    known = tensor.shape.rank and tensor.shape.is_fully_defined() and tensor.dtype.size
    return tensor.shape.num_elements() * tensor.dtype.size if known else 0
