"""How much memory a training step takes, estimated before it runs."""

import math
from typing import Any

import keras
import tensorflow as tf


def variable_bytes(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> int:
    """Bytes of the weights, their gradients and the optimizer's state, on each replica."""
    kept = [*model.variables, *optimizer.variables, *model.trainable_variables]
    return sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in kept)


def activation_bytes(model: keras.Model) -> int:
    """Bytes that the forward pass of one image keeps for its backward pass.

    Counted in the graph of both: the tensors that the backward pass reads from the forward
    pass. The compiler may need less, and a step needs some working space.

    Args:
        model: A functional model.
    """

    @tf.function
    def gradients(images):
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
        graph = outputs.graph
        forward = {operation.name for operation in graph.get_operations()}
        tape.gradient(outputs, model.trainable_variables)
        for operation in graph.get_operations():
            if operation.name not in forward:
                kept.update({x.ref(): x for x in operation.inputs if x.op.name in forward})

    kept: dict[Any, tf.Tensor] = {}
    shape = (1, *model.input_shape[1:])
    gradients.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    return sum(_bytes(tensor) for tensor in kept.values())


def _bytes(tensor):
    made_from_images = tensor.shape.rank and tensor.op.type not in ("Const", "ReadVariableOp")
    known = made_from_images and tensor.shape.is_fully_defined() and tensor.dtype.size
    return tensor.shape.num_elements() * tensor.dtype.size if known else 0
