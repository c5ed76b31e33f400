"""The transformer encoder of a single branch."""

from typing import Any

import keras

from keras_crossvit.common.checks import check_positive
from keras_crossvit.common.typing import Shape, Tensor
from keras_crossvit.layers import kernels
from keras_crossvit.layers.activations import gelu
from keras_crossvit.layers.attention import SelfAttention
from keras_crossvit.layers.drop_path import DropPath
from keras_crossvit.layers.parts import (
    dense,
    dense_macs,
    kernel_and_bias,
    layer_norm,
    tokens_spec,
)


@keras.saving.register_keras_serializable(package="keras_crossvit")
class Mlp(keras.layers.Layer):
    """Feed-forward network, FFN of equation 1: two dense layers with exact GELU between them.

    Args:
        mlp_ratio: Hidden width as a multiple of the tokens' width C (r of table 1), positive; the
            product is truncated to an integer.

    Call arguments:
        tokens: `(B, N, C)`.
        training: Whether a backward pass will follow. The result is the same either way.

    Returns:
        `(B, N, C)`.

    Raises:
        ValueError: If `mlp_ratio` is not positive, or too small for a hidden width of 1.
    """

    def __init__(self, mlp_ratio: float = 4.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlp_ratio = check_positive("mlp_ratio", mlp_ratio)
        self.input_spec = tokens_spec()

    def build(self, input_shape: Shape) -> None:
        width = input_shape[-1]
        hidden = int(width * self.mlp_ratio)
        if hidden < 1:
            raise ValueError(
                f"`mlp_ratio` must be at least 1 / {width} for tokens of width {width}. "
                f"Received: mlp_ratio={self.mlp_ratio}"
            )
        self.input_spec = tokens_spec(width)
        self.fc1 = dense(hidden, "fc1", self.dtype_policy)
        self.fc1.build(input_shape)
        self.fc2 = dense(width, "fc2", self.dtype_policy)
        self.fc2.build((*input_shape[:-1], hidden))

    def call(self, tokens: Tensor, training: bool = False) -> Tensor:
        if any(layer.quantization_mode is not None for layer in (self.fc1, self.fc2)):
            return self.fc2(gelu(self.fc1(tokens)))
        return kernels.mlp(
            tokens, *kernel_and_bias(self.fc1), *kernel_and_bias(self.fc2), training
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def macs(self, input_shape: Shape) -> int:
        """Multiply-accumulates for one sample."""
        _, length, width = input_shape
        return dense_macs(length, width, int(width * self.mlp_ratio), width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mlp_ratio": self.mlp_ratio}


@keras.saving.register_keras_serializable(package="keras_crossvit")
class TransformerBlock(keras.layers.Layer):
    """Pre-norm transformer encoder, the second and third lines of equation 1.

    Args:
        num_heads: Number of attention heads, a divisor of the width C.
        mlp_ratio: Hidden width of the feed-forward network as a multiple of C, positive.
        qkv_bias: Whether the projection to queries, keys and values has a bias.
        drop_path_rate: Probability that a sample skips a residual path, in [0, 1).
        gradient_checkpointing: Whether training stores only the block's input and recomputes
            the rest in the backward pass: less memory, about a third more time.
        seed: Integer seed of drop path; `None` takes one from the global Keras seed.

    Call arguments:
        tokens: `(B, N, C)`.
        training: Whether paths are dropped and gradient checkpointing, if on, applies.

    Returns:
        `(B, N, C)`.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        gradient_checkpointing: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mlp_ratio = mlp_ratio
        self.qkv_bias = qkv_bias
        self.drop_path_rate = drop_path_rate
        self.gradient_checkpointing = gradient_checkpointing
        self.seed = seed
        self.norm1 = layer_norm("norm1", self.dtype_policy)
        self.attention = SelfAttention(
            num_heads, qkv_bias, dtype=self.dtype_policy, name="attention"
        )
        self.norm2 = layer_norm("norm2", self.dtype_policy)
        self.mlp = Mlp(mlp_ratio, dtype=self.dtype_policy, name="mlp")
        self.drop_path = DropPath(drop_path_rate, seed, dtype=self.dtype_policy, name="drop_path")
        self.input_spec = tokens_spec()

    def build(self, input_shape: Shape) -> None:
        self.input_spec = tokens_spec(input_shape[-1])
        for layer in (self.norm1, self.attention, self.norm2, self.mlp):
            layer.build(input_shape)

    def call(self, tokens: Tensor, training: bool = False) -> Tensor:
        # Drawn here, outside the part that checkpointing computes twice.
        first, second = (self.drop_path.scale(tokens, training) for _ in range(2))
        if not (self.gradient_checkpointing and training):
            return self._encode(tokens, first, second, store_less=training)
        if first is None:
            return keras.remat(lambda x: self._encode(x, None, None))(tokens)
        return keras.remat(self._encode)(tokens, first, second)

    def _encode(self, tokens, attention_scale, mlp_scale, store_less=False):
        """The two residual paths.

        `attention_scale`, `mlp_scale`: drop path's factors `(B, 1, 1)`, or None. `store_less`:
        whether the layers store little for the backward pass, which checkpointing makes
        unnecessary.
        """
        attended = self.attention(self.norm1(tokens, training=store_less), training=store_less)
        # Not "+=", which would modify the caller's tensor on PyTorch.
        tokens = tokens + (attended if attention_scale is None else attended * attention_scale)
        fed_forward = self.mlp(self.norm2(tokens, training=store_less), training=store_less)
        return tokens + (fed_forward if mlp_scale is None else fed_forward * mlp_scale)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def macs(self, input_shape: Shape) -> int:
        """Multiply-accumulates for one sample."""
        return self.attention.macs(input_shape) + self.mlp.macs(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_ratio": self.mlp_ratio,
            "qkv_bias": self.qkv_bias,
            "drop_path_rate": self.drop_path_rate,
            "gradient_checkpointing": self.gradient_checkpointing,
            "seed": self.seed,
        }
