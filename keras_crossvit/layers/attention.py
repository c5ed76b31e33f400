"""Multi-head self-attention."""

import keras
from keras import ops

from keras_crossvit.layers.checks import check_divides, check_positive_int
from keras_crossvit.layers.parts import dense


@keras.saving.register_keras_serializable(package="keras_crossvit")
class SelfAttention(keras.layers.Layer):
    """Multi-head self-attention, MSA of equation 1.

    One fused projection makes queries, keys and values, in this order, each split into
    heads, as in the released code.

    Args:
        num_heads: Number of heads, a divisor of the width C.
        qkv_bias: Whether the projection to queries, keys and values has a bias.

    Call arguments:
        tokens: `(B, N, C)`.

    Returns:
        `(B, N, C)`.

    Raises:
        ValueError: If `num_heads` is not a positive divisor of C.
    """

    def __init__(self, num_heads, qkv_bias=True, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = check_positive_int("num_heads", num_heads)
        self.qkv_bias = qkv_bias

    def build(self, input_shape):
        width = input_shape[-1]
        check_divides(self.num_heads, width)
        self.qkv = dense(3 * width, "qkv", self.dtype_policy, self.qkv_bias)
        self.qkv.build(input_shape)
        self.proj = dense(width, "proj", self.dtype_policy)
        self.proj.build(input_shape)

    def call(self, tokens):
        queries, keys, values = self.heads(tokens)
        merged = ops.matmul(self.attend(queries, keys), values)  # (B, h, N, C / h)
        merged = ops.transpose(merged, (0, 2, 1, 3))
        return self.proj(ops.reshape(merged, (-1, *ops.shape(tokens)[1:])))

    def heads(self, tokens):
        """Queries, keys and values of `tokens`, each `(B, h, N, C / h)`."""
        _, length, width = ops.shape(tokens)
        shape = (-1, length, self.num_heads, width // self.num_heads)
        return [
            ops.transpose(ops.reshape(x, shape), (0, 2, 1, 3))
            for x in ops.split(self.qkv(tokens), 3, axis=-1)
        ]

    def attend(self, queries, keys):
        """The attention map, `(B, h, N, N)`, rows sum to 1."""
        scores = ops.matmul(queries * queries.shape[-1] ** -0.5, ops.transpose(keys, (0, 1, 3, 2)))
        return ops.softmax(scores, axis=-1)

    def compute_output_shape(self, input_shape):
        return input_shape

    def macs(self, input_shape):
        """Multiply-accumulates for one sample: projections, scores, weighted sum."""
        _, length, width = input_shape
        return 4 * length * width**2 + 2 * length**2 * width

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "qkv_bias": self.qkv_bias,
        }
