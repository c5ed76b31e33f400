"""Multi-head self-attention."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from keras_crossvit.common.checks import check_divides, check_positive_int
from keras_crossvit.common.typing import Shape, Tensor
from keras_crossvit.layers import kernels
from keras_crossvit.layers.parts import (
    apply_dense,
    attention_weights,
    dense,
    kernel_and_bias,
    tokens_spec,
)
from keras_crossvit.layers.sizes import size

_separate = contextvars.ContextVar("separate_projections", default=False)


@contextlib.contextmanager
def separate_projections() -> Iterator[None]:
    """Within it, models are traced with a product each for queries, keys and values.

    For the converters of other runtimes. These read heads where a product has written them,
    but would copy the parts of a single product to split it.
    """
    token = _separate.set(True)
    try:
        yield
    finally:
        _separate.reset(token)


@keras.saving.register_keras_serializable(package="keras_crossvit")
class SelfAttention(keras.layers.Layer):
    """Multi-head self-attention, MSA of equation 1.

    A single dense layer computes queries, keys and values, in this order, and each is split
    into heads, as in the released code.

    Args:
        num_heads: Number of heads, a divisor of the width C.
        qkv_bias: Whether the projection to queries, keys and values has a bias.

    Call arguments:
        tokens: `(B, N, C)`.
        training: Whether a backward pass will follow. The result is the same either way.

    Returns:
        `(B, N, C)`.

    Raises:
        ValueError: If `num_heads` is not a positive divisor of C.
    """

    def __init__(self, num_heads: int, qkv_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = check_positive_int("num_heads", num_heads)
        self.qkv_bias = qkv_bias
        self.input_spec = tokens_spec()

    def build(self, input_shape: Shape) -> None:
        width = input_shape[-1]
        self.input_spec = tokens_spec(width)
        check_divides(self.num_heads, width)
        self.qkv = dense(3 * width, "qkv", self.dtype_policy, self.qkv_bias)
        self.qkv.build(input_shape)
        self.proj = dense(width, "proj", self.dtype_policy)
        self.proj.build(input_shape)

    def call(self, tokens: Tensor, training: bool = False) -> Tensor:
        if _separate.get() and self.qkv.quantization_mode is None:
            queries, keys, values = self._separately(tokens)
            attended = kernels.attend(queries, keys, values, self.num_heads)
        else:
            qkv = apply_dense(self.qkv, tokens, training)
            attended = kernels.attention(qkv, self.num_heads, training)
        return apply_dense(self.proj, attended, training)

    def _separately(self, tokens):
        """Queries, keys and values, `(B, N, C)` each."""
        kernel, bias = kernel_and_bias(self.qkv)
        biases = [None] * 3 if bias is None else ops.split(bias, 3)
        return map(kernels.dense, [tokens] * 3, ops.split(kernel, 3, axis=-1), biases)

    def attention_map(self, tokens: Tensor) -> Tensor:
        """The attention map `(B, h, N, N)`: a row for each query, which sums to 1."""
        length, width = size(tokens, 1), tokens.shape[2]
        shape = (-1, length, 3, self.num_heads, width // self.num_heads)
        heads = ops.transpose(ops.reshape(apply_dense(self.qkv, tokens), shape), (2, 0, 3, 1, 4))
        scores = ops.matmul(heads[0], ops.transpose(heads[1], (0, 1, 3, 2)))
        return attention_weights(scores * shape[-1] ** -0.5)

    @property
    def projections(self) -> tuple[keras.layers.Dense, ...]:
        """The dense layers that make queries, keys and values, and the output projection."""
        return self.qkv, self.proj

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def macs(self, input_shape: Shape) -> int:
        """Multiply-accumulates for one sample: projections, scores and weighted sum."""
        _, length, width = input_shape
        return 4 * length * width**2 + 2 * length**2 * width

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "qkv_bias": self.qkv_bias,
        }
