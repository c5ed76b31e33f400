"""The definitions, for every backend; the other module is tested against them."""

import keras
from keras import ops

from keras_crossvit.common.typing import Tensor
from keras_crossvit.layers.activations import gelu


def dense(x: Tensor, kernel: Tensor, bias: Tensor | None = None, training: bool = False) -> Tensor:
    """`x @ kernel + bias`.

    Args:
        x: `(..., C)`.
        kernel: `(C, D)`.
        bias: `(D,)`, or `None`.
        training: Whether a backward pass will follow.

    Returns:
        `(..., D)`.
    """
    y = ops.matmul(x, kernel)
    return y if bias is None else add_bias(y, bias, training)


def add_bias(y: Tensor, bias: Tensor, training: bool = False) -> Tensor:
    """`y + bias`.

    Args:
        y: `(..., D)`.
        bias: `(D,)`.
        training: Whether a backward pass will follow.
    """
    del training
    return y + bias


def mlp(
    x: Tensor,
    kernel_1: Tensor,
    bias_1: Tensor,
    kernel_2: Tensor,
    bias_2: Tensor,
    training: bool = False,
) -> Tensor:
    """Two dense layers with exact GELU between them.

    Args:
        x: `(..., C)`.
        kernel_1: `(C, D)`.
        bias_1: `(D,)`.
        kernel_2: `(D, E)`.
        bias_2: `(E,)`.
        training: Whether a backward pass will follow.

    Returns:
        `(..., E)`.
    """
    del training
    return dense(gelu(dense(x, kernel_1, bias_1)), kernel_2, bias_2)


def attention(qkv: Tensor, num_heads: int, training: bool = False) -> Tensor:
    """Multi-head softmax attention.

    Args:
        qkv: `(B, N, 3 C)`: queries, keys and values, in this order, each split into heads.
        num_heads: Number of heads h, a divisor of C.
        training: Whether a backward pass will follow.

    Returns:
        `(B, N, C)`, the heads concatenated.
    """
    del training
    queries, keys, values = ops.split(qkv, 3, axis=-1)
    return attend(queries, keys, values, num_heads)


def attend(queries: Tensor, keys: Tensor, values: Tensor, num_heads: int) -> Tensor:
    """As `attention`, of queries, keys and values `(B, N, C)`; without a custom gradient."""
    batch, length, width = ops.shape(queries)
    shape = (batch, length, num_heads, width // num_heads)
    heads = (ops.reshape(x, shape) for x in (queries, keys, values))
    merged = ops.dot_product_attention(*heads, flash_attention=_flash_attention())
    return ops.reshape(merged, (batch, length, width))


def _flash_attention():
    """False on a TPU with JAX, where Keras would let a token see only those before it."""
    if keras.backend.backend() != "jax":
        return None
    import jax

    return False if jax.default_backend() == "tpu" else None


def layer_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, training: bool = False
) -> Tensor:
    """Layer normalisation over the last axis, computed in at least float32.

    Args:
        x: `(..., C)`.
        gamma: `(C,)`, in the dtype to compute in.
        beta: `(C,)`, in the same dtype.
        epsilon: Added to the variance.
        training: Whether a backward pass will follow.

    Returns:
        `(..., C)`, in the dtype of `x`.
    """
    del training
    return ops.layer_normalization(x, gamma, beta, epsilon=epsilon)
