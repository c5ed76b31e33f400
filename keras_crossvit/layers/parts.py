"""The Keras layers that the others are built from, initialised as in the released code."""

import itertools
from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from keras_crossvit.common.typing import DType, Tensor
from keras_crossvit.layers import kernels


def normal_init() -> keras.initializers.Initializer:
    """The initialiser of dense layers, class tokens and position embeddings: N(0, 0.02).

    The released code calls PyTorch's `trunc_normal_(std=0.02)`, which truncates at the absolute
    values -2 and 2. That is a hundred standard deviations from the mean, so nothing is
    truncated. Keras' `TruncatedNormal` would truncate at two standard deviations and leave a
    standard deviation of 0.0176.
    """
    return keras.initializers.RandomNormal(stddev=0.02)


def uniform_init() -> keras.initializers.Initializer:
    """The initialiser of patch embeddings: U(-b, b), b = 1 / sqrt(fan_in), PyTorch's default.

    For the kernels: biases begin at zero, where PyTorch draws them from the same interval.
    """
    return keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")


def tokens_spec(*shape: int | None) -> keras.InputSpec:
    """What Keras checks of tokens before it builds or calls a layer.

    Args:
        *shape: Nothing, for any `(B, N, C)`; C; or N and C. `None` is any number.
    """
    return keras.InputSpec(ndim=3, axes={axis - len(shape): n for axis, n in enumerate(shape)})


def track(owner: keras.layers.Layer, layers: Iterable[keras.layers.Layer]) -> None:
    """Makes the layers of a list part of a `tf.train.Checkpoint`.

    It does not look into Keras' lists, and so would leave out their weights without a word.
    """
    if keras.backend.backend() == "tensorflow":
        for layer in layers:
            owner._track_trackable(layer, name=layer.name, overwrite=True)


def dense(units: int, name: str, dtype: DType, use_bias: bool = True) -> keras.layers.Dense:
    """A dense layer with the initialiser of the released code."""
    return keras.layers.Dense(
        units, use_bias=use_bias, kernel_initializer=normal_init(), dtype=dtype, name=name
    )


def apply_dense(layer: keras.layers.Dense, x: Tensor, training: bool = False) -> Tensor:
    """Applies a layer made by `dense` to `(..., C)`, with this package's own kernel.

    A quantised layer is called instead, since nothing else can read its kernel.

    Args:
        layer: The layer.
        x: `(..., C)`.
        training: Whether a backward pass will follow.
    """
    if layer.quantization_mode is not None:
        return layer(x)
    return kernels.dense(x, *kernel_and_bias(layer), training)


def apply_conv(layer: keras.layers.Conv2D, x: Tensor, training: bool = False) -> Tensor:
    """Applies a convolution without padding, whose bias this package's own kernel adds.

    Args:
        layer: The layer.
        x: `(B, H, W, channels)`.
        training: Whether a backward pass will follow.
    """
    if not training or layer.compute_dtype != "bfloat16":
        return layer(x)
    kernel, bias = kernel_and_bias(layer)
    y = ops.conv(x, kernel, layer.strides, data_format=layer.data_format)
    return kernels.add_bias(y, bias, training)


def kernel_and_bias(layer: keras.layers.Layer) -> tuple[Tensor, Tensor | None]:
    """Kernel (with LoRA's product, if enabled) and bias (or None), in the compute dtype."""
    bias = None if layer.bias is None else ops.cast(layer.bias, layer.compute_dtype)
    return ops.cast(layer.kernel, layer.compute_dtype), bias


def kernel_with_lora(layer: keras.layers.Layer) -> np.ndarray:
    """A layer's kernel with LoRA's product, in full precision.

    Keras' own `layer.kernel`, which it also saves, is rounded to 16 bits in mixed precision.
    """
    a, b = map(ops.convert_to_numpy, (layer.lora_kernel_a, layer.lora_kernel_b))
    kernel = next(variable for variable in layer.variables if variable.name == "kernel")
    return ops.convert_to_numpy(kernel) + layer.lora_alpha / layer.lora_rank * (a @ b)


def attention_weights(scores: Tensor) -> Tensor:
    """Softmax over the last axis, the keys.

    A single key has a weight of 1 whatever its score, and Keras warns of such a softmax. It is
    computed from the score all the same, so that variables have a gradient (of zero).

    Args:
        scores: `(..., N)`.
    """
    return 0 * scores + 1 if scores.shape[-1] == 1 else ops.softmax(scores, axis=-1)


@keras.saving.register_keras_serializable(package="keras_crossvit")
class LayerNorm(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the last axis, by this package's own kernel."""

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        gamma, beta = (ops.cast(x, dtype) for x in (self.gamma, self.beta))
        return kernels.layer_norm(inputs, gamma, beta, self.epsilon, training)


def layer_norm(name: str, dtype: DType = None) -> LayerNorm:
    """Layer normalisation; an epsilon of 1e-5 instead of 1e-6 changes the logits by 4e-5."""
    return LayerNorm(epsilon=1e-6, dtype=dtype, name=name)


def dense_macs(length: int, *widths: int) -> int:
    """Multiply-accumulates of consecutive dense layers of these widths, for `length` tokens."""
    return length * sum(a * b for a, b in itertools.pairwise(widths))
