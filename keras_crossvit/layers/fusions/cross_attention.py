"""Cross-attention fusion, the paper's proposal."""

from typing import Any

import keras
from keras import ops

from keras_crossvit.common.typing import Shape, Tensor
from keras_crossvit.layers.cross_attention import CrossAttention
from keras_crossvit.layers.drop_path import DropPath, child_seeds
from keras_crossvit.layers.fusions.base import Fusion, register_fusion
from keras_crossvit.layers.fusions.projection import align
from keras_crossvit.layers.parts import dense_macs, layer_norm, track


@keras.saving.register_keras_serializable(package="keras_crossvit")
class CrossAttentionBlock(keras.layers.Layer):
    """Pre-norm cross-attention with a residual connection for the query token (equation 7).

    Args:
        num_heads: Number of heads, a divisor of the width C.
        drop_path_rate: Probability that a sample skips the attention, in [0, 1).
        seed: Integer seed of drop path; `None` takes one from the global Keras seed.

    Call arguments:
        tokens: `(B, 1 + N, C)`, the query token first; N may be 0.
        training: Whether paths are dropped.

    Returns:
        The query token after attention, `(B, 1, C)`.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self, num_heads: int, drop_path_rate: float = 0.0, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.drop_path_rate = drop_path_rate
        self.seed = seed
        self.norm = layer_norm("norm", self.dtype_policy)
        self.attention = CrossAttention(num_heads, dtype=self.dtype_policy, name="attention")
        self.drop_path = DropPath(drop_path_rate, seed, dtype=self.dtype_policy, name="drop_path")

    def build(self, input_shape: Shape) -> None:
        self.norm.build(input_shape)
        self.attention.build(input_shape)

    def call(self, tokens: Tensor, training: bool = False) -> Tensor:
        attended = self.attention(self.norm(tokens))
        return tokens[:, :1] + self.drop_path(attended, training=training)

    def attention_map(self, tokens: Tensor) -> Tensor:
        """The attention map of the query, `(B, h, 1 + N)`; rows sum to 1."""
        return self.attention.attention_map(self.norm(tokens))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], 1, input_shape[2])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "drop_path_rate": self.drop_path_rate,
            "seed": self.seed,
        }


@register_fusion("cross_attention")
class CrossAttentionFusion(Fusion):
    """Each class token attends to the other branch's patch tokens (section 3.3, eq. 5-7).

    The class token of a branch is projected to the other branch's width, attends to the
    other branch's patch tokens with that branch's width and number of heads, and is projected
    back. Both directions use the tokens from before the fusion; patch tokens stay as they are.

    Branches of equal width need no projections and have none (table 7, row B; the released
    code keeps them, but no published checkpoint has equal widths). With `depth` above 1, the
    modules after the first see only the class token, as in the released code (table 7, row D).

    Without class tokens, the query is the average of a branch's patch tokens ("Importance of
    CLS Tokens", section 4.3). The paper does not say how the result returns to the branch. Here
    its difference from the query is added to every patch token, so that after the fusion their
    average is what the class token would have been.

    Args and call arguments: as in `Fusion`.
    """

    def build(self, input_shape: list[Shape]) -> None:
        (_, _, small_width), (_, _, large_width) = input_shape
        seeds = child_seeds(self.seed)
        self.small_blocks = self._blocks("small", large_width, self.large_num_heads, seeds)
        self.large_blocks = self._blocks("large", small_width, self.small_num_heads, seeds)
        track(self, [*self.small_blocks, *self.large_blocks])
        dtype = self.dtype_policy
        self.small_projection = align("small_projection", small_width, large_width, dtype)
        self.large_projection = align("large_projection", large_width, small_width, dtype)
        self.small_back = align("small_back_projection", large_width, small_width, dtype)
        self.large_back = align("large_back_projection", small_width, large_width, dtype)

    def _blocks(self, branch, other_width, other_heads, seeds):
        """The attention blocks of one branch, with the width and heads of the other branch."""
        blocks = []
        for index in range(self.depth):
            block = CrossAttentionBlock(
                other_heads,
                self.drop_path_rate,
                next(seeds),
                dtype=self.dtype_policy,
                name=f"{branch}_block_{index}" if self.depth > 1 else f"{branch}_block",
            )
            block.build((None, None, other_width))
            blocks.append(block)
        return blocks

    @property
    def attentions(self) -> list[keras.layers.Layer]:
        return [block.attention for block in (*self.small_blocks, *self.large_blocks)]

    def call(self, tokens: list[Tensor], training: bool = False) -> list[Tensor]:
        small, large = tokens
        small_agent, small_patches = self._split(small)
        large_agent, large_patches = self._split(large)
        small_query = self.small_projection(small_agent)
        large_query = self.large_projection(large_agent)
        small_result = self._cross(self.small_blocks, small_query, large_patches, training)
        large_result = self._cross(self.large_blocks, large_query, small_patches, training)
        return [
            self._join(small_agent, self.small_back(small_result), small_patches),
            self._join(large_agent, self.large_back(large_result), large_patches),
        ]

    def attention_maps(self, tokens: list[Tensor]) -> list[Tensor]:
        """The attention maps of the class tokens, A of equation 6, in the first module.

        Args:
            tokens: As in `call`.

        Returns:
            `[small, large]`: `(B, h_large, 1 + N_large)`, the small branch's class token over
            itself and the large branch's patches, and `(B, h_small, 1 + N_small)`, the large
            branch's class token over itself and the small branch's patches. Rows sum to 1.
        """
        (small_agent, small_patches), (large_agent, large_patches) = map(self._split, tokens)
        small = ops.concatenate([self.small_projection(small_agent), large_patches], axis=1)
        large = ops.concatenate([self.large_projection(large_agent), small_patches], axis=1)
        return [
            self.small_blocks[0].attention_map(small),
            self.large_blocks[0].attention_map(large),
        ]

    def _split(self, tokens):
        """The token that represents a branch, `(B, 1, C)`, and its patch tokens."""
        if not self.class_token:
            return ops.mean(tokens, axis=1, keepdims=True), tokens
        # `split` needs to know their number, and makes it depend on values in PyTorch's exports.
        if tokens.shape[1] is None or keras.backend.backend() == "torch":
            return tokens[:, :1], tokens[:, 1:]
        return ops.split(tokens, [1], axis=1)  # its gradient is one concatenation

    def _join(self, agent, result, patches):
        if self.class_token:
            return ops.concatenate([result, patches], axis=1)
        return patches + (result - agent)

    def _cross(self, blocks, query, other_patches, training):
        tokens = ops.concatenate([query, other_patches], axis=1)
        for block in blocks:
            tokens = block(tokens, training=training)
        return tokens

    def macs(self, input_shape: list[Shape]) -> int:
        (_, _, small_width), (_, _, large_width) = input_shape
        # f and g of both branches, one token each.
        total = 0 if small_width == large_width else dense_macs(4, small_width, large_width)
        for blocks, (_, length, width) in zip(
            (self.large_blocks, self.small_blocks), input_shape, strict=True
        ):
            keys = length if self.class_token else 1 + length
            total += blocks[0].attention.macs((None, keys, width))
            total += sum(block.attention.macs((None, 1, width)) for block in blocks[1:])
        return total
