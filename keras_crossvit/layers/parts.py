"""The plain Keras layers that the others are made of, set up as in the released code."""

import itertools

import keras
from keras import ops

from keras_crossvit.layers import kernels


def normal_init():
    """Kernels of linear layers, class tokens and position embeddings: N(0, 0.02).

    The released code calls PyTorch's `trunc_normal_(std=0.02)`, which cuts at the absolute
    values -2 and 2: a hundred standard deviations away, so nothing is cut. Keras'
    `TruncatedNormal` would cut at two standard deviations and leave a spread of 0.0176.
    """
    return keras.initializers.RandomNormal(stddev=0.02)


def uniform_init():
    """Kernels of patch embeddings: U(-b, b) with b = 1 / sqrt(fan_in), PyTorch's default."""
    return keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")


def dense(units, name, dtype, use_bias=True):
    """A linear layer."""
    return keras.layers.Dense(
        units, use_bias=use_bias, kernel_initializer=normal_init(), dtype=dtype, name=name
    )


def apply_dense(layer, x):
    """What a layer made by `dense` returns for `(..., C)`, through this package's own kernel.

    A quantised layer is called instead, since only it can read its weights.
    """
    if layer.quantization_mode is not None:
        return layer(x)
    return kernels.dense(x, *kernel_and_bias(layer))


def kernel_and_bias(layer):
    """Kernel (with LoRA's product, if it is enabled) and bias or None, in the compute dtype."""
    bias = None if layer.bias is None else ops.cast(layer.bias, layer.compute_dtype)
    return ops.cast(layer.kernel, layer.compute_dtype), bias


@keras.saving.register_keras_serializable(package="keras_crossvit")
class LayerNorm(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the last axis, by this package's own arithmetic."""

    def call(self, inputs, training=False):
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        gamma, beta = (ops.cast(x, dtype) for x in (self.gamma, self.beta))
        return kernels.layer_norm(inputs, gamma, beta, self.epsilon, training)


def layer_norm(name, dtype=None):
    """Layer normalisation over the width; 1e-5 instead of 1e-6 moves the logits by 4e-5."""
    return LayerNorm(epsilon=1e-6, dtype=dtype, name=name)


def dense_macs(length, *widths):
    """Multiply-accumulates of linear layers in a row, over `length` tokens."""
    return length * sum(a * b for a, b in itertools.pairwise(widths))
