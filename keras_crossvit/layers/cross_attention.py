"""Cross-attention with a single query, the class token."""

from typing import Any

import keras
from keras import ops

from keras_crossvit.common.checks import check_divides, check_positive_int
from keras_crossvit.common.typing import Shape, Tensor
from keras_crossvit.layers.parts import attention_weights, dense, tokens_spec


@keras.saving.register_keras_serializable(package="keras_crossvit")
class CrossAttention(keras.layers.Layer):
    """Multi-head cross-attention whose only query is the first token (MCA, equation 6).

    The result is that of the paper's formula, at a lower cost. With one query per head,

    - the scores `q_h K_h^T` equal `(q_h W_k,h^T) x^T`: the query is multiplied by the key
      kernel once, and the keys of the N tokens are never computed;
    - the weighted sum `A_h V_h` equals `(A_h x) W_v,h`: the tokens are averaged first, and
      the values of the N tokens are never computed.

    This costs `2 h N C` instead of `2 N C^2` multiply-accumulates and stores no `(N, C)` keys
    and values for the backward pass. `attention_map` returns the attention map A.

    After `model.quantize(...)` only the dense layers can read their kernels. The layer then
    computes keys and values with them, by the paper's formula.

    Args:
        num_heads: Number of heads h, a divisor of the width C.
        qkv_bias: Whether the projections to query, keys and values have a bias.

    Call arguments:
        tokens: `(B, N, C)`, the query token first.

    Returns:
        `(B, 1, C)`.

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
        self.query = dense(width, "query", self.dtype_policy, self.qkv_bias)
        self.key = dense(width, "key", self.dtype_policy, self.qkv_bias)
        self.value = dense(width, "value", self.dtype_policy, self.qkv_bias)
        self.proj = dense(width, "proj", self.dtype_policy)
        for projection in (self.query, self.key, self.value, self.proj):
            projection.build(input_shape)

    def call(self, tokens: Tensor) -> Tensor:
        attention = self.attention_map(tokens)
        averaged = self._average_values(attention, tokens)  # (B, h, C / h)
        return self.proj(ops.reshape(averaged, (-1, 1, tokens.shape[-1])))

    def attention_map(self, tokens: Tensor) -> Tensor:
        """The attention map of the query, A of equation 6, `(B, h, N)`; rows sum to 1."""
        width = tokens.shape[-1]
        query = self.query(tokens[:, :1]) * (width // self.num_heads) ** -0.5
        query = ops.reshape(query, (-1, self.num_heads, width // self.num_heads))
        return attention_weights(self._scores(query, tokens))

    def _scores(self, query, tokens):
        """Scaled scores `(B, h, N)` of the query `(B, h, d)` against all tokens."""
        if self._has_quantized_projections():
            return ops.einsum("bhd,bnhd->bhn", query, self._split(self.key(tokens)))
        kernel = self._split(self._kernel(self.key))  # (C, h, d)
        projected = ops.einsum("bhd,chd->bhc", query, kernel)
        scores = ops.matmul(projected, ops.transpose(tokens, (0, 2, 1)))
        if self.key.use_bias:
            # A constant per head, which softmax cancels. It is added all the same, so that
            # the variable has a gradient (of zero) and Keras does not warn of a missing one.
            bias = ops.reshape(self._cast(self.key.bias), (self.num_heads, -1))
            scores = scores + ops.sum(query * bias, axis=-1, keepdims=True)
        return scores

    def _average_values(self, attention, tokens):
        """`(B, h, d)`: the values of each head, averaged by its attention `(B, h, N)`."""
        if self._has_quantized_projections():
            return ops.einsum("bhn,bnhd->bhd", attention, self._split(self.value(tokens)))
        kernel = self._split(self._kernel(self.value))
        averaged = ops.einsum("bhc,chd->bhd", ops.matmul(attention, tokens), kernel)
        if self.value.use_bias:
            # The attention of a head sums to 1, so the bias is added unchanged.
            averaged = averaged + ops.reshape(self._cast(self.value.bias), (self.num_heads, -1))
        return averaged

    def _has_quantized_projections(self):
        return self.key.quantization_mode is not None or self.value.quantization_mode is not None

    def _split(self, x):
        """`(..., C)` as `(..., h, C / h)`."""
        return ops.reshape(x, (*ops.shape(x)[:-1], self.num_heads, -1))

    def _kernel(self, dense):
        return self._cast(dense.kernel)  # includes LoRA's product, if enabled

    def _cast(self, variable):
        return ops.cast(variable, self.compute_dtype)

    @property
    def projections(self) -> tuple[keras.layers.Dense, ...]:
        """The dense layers that make query, keys and values, and the output projection."""
        return self.query, self.key, self.value, self.proj

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], 1, input_shape[2])

    def macs(self, input_shape: Shape) -> int:
        """Multiply-accumulates for one sample, counted by the paper's formula."""
        _, length, width = input_shape
        return 2 * width**2 + 2 * length * width**2 + 2 * length * width

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "qkv_bias": self.qkv_bias,
        }
