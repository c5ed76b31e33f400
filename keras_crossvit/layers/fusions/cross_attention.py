"""Cross-attention fusion: the paper's proposal."""

import keras
from keras import ops

from keras_crossvit.layers.activations import gelu
from keras_crossvit.layers.cross_attention import CrossAttention
from keras_crossvit.layers.drop_path import DropPath, child_seeds
from keras_crossvit.layers.fusions.base import Fusion, register_fusion
from keras_crossvit.layers.parts import dense, dense_macs, layer_norm


@keras.saving.register_keras_serializable(package="keras_crossvit")
class Projection(keras.layers.Layer):
    """The projections f and g that align the widths of the branches (equation 5).

    The paper leaves their form open; as in the released code they are layer
    normalisation, GELU and a linear layer.

    Args:
        units: Width of the output, positive.

    Call arguments:
        tokens: `(B, N, C)`.

    Returns:
        `(B, N, units)`.
    """

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.norm = layer_norm("norm", self.dtype_policy)
        self.dense = dense(units, "dense", self.dtype_policy)

    def build(self, input_shape):
        self.norm.build(input_shape)
        self.dense.build(input_shape)

    def call(self, tokens):
        return self.dense(gelu(self.norm(tokens)))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="keras_crossvit")
class CrossAttentionBlock(keras.layers.Layer):
    """Normalised cross-attention with a residual around the query token (equation 7).

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

    def __init__(self, num_heads, drop_path_rate=0.0, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.drop_path_rate = drop_path_rate
        self.seed = seed
        self.norm = layer_norm("norm", self.dtype_policy)
        self.attention = CrossAttention(num_heads, dtype=self.dtype_policy, name="attention")
        self.drop_path = DropPath(drop_path_rate, seed, dtype=self.dtype_policy, name="drop_path")

    def build(self, input_shape):
        self.norm.build(input_shape)
        self.attention.build(input_shape)

    def call(self, tokens, training=False):
        attended = self.attention(self.norm(tokens))
        return tokens[:, :1] + self.drop_path(attended, training=training)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1, input_shape[2])

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "drop_path_rate": self.drop_path_rate,
            "seed": self.seed,
        }


@register_fusion("cross_attention")
class CrossAttentionFusion(Fusion):
    """Each branch's class token reads the other branch's patch tokens (section 3.3, eq. 5-7).

    The class token of a branch is projected to the other branch's width, attends to the
    other branch's patch tokens in that branch's width and number of heads, and is projected
    back. Both directions read the tokens from before the fusion; patch tokens pass through.

    Branches of equal width need no projections and have none (table 7, row B; the released
    code keeps them, but no published checkpoint has equal widths). With `depth` above 1
    the further modules see the class token alone, as in the released code (table 7, row D).

    Args and call arguments: as in `Fusion`.
    """

    def build(self, input_shape):
        small_shape, large_shape = input_shape
        seeds = child_seeds(self.seed)
        self.small_blocks = self._blocks("small", large_shape, self.large_num_heads, seeds)
        self.large_blocks = self._blocks("large", small_shape, self.small_num_heads, seeds)
        small_width, large_width = small_shape[-1], large_shape[-1]
        self.small_projection = self._projection("small_projection", small_width, large_width)
        self.large_projection = self._projection("large_projection", large_width, small_width)
        self.small_back = self._projection("small_back_projection", large_width, small_width)
        self.large_back = self._projection("large_back_projection", small_width, large_width)

    def _blocks(self, branch, other_shape, other_heads, seeds):
        """The attention of one branch's class token, in the other branch's width and heads."""
        batch, length, width = other_shape
        blocks = []
        for index in range(self.depth):
            block = CrossAttentionBlock(
                other_heads,
                self.drop_path_rate,
                next(seeds),
                dtype=self.dtype_policy,
                name=f"{branch}_block_{index}" if self.depth > 1 else f"{branch}_block",
            )
            block.build((batch, length if index == 0 else 1, width))
            blocks.append(block)
        return blocks

    def _projection(self, name, width, units):
        if width == units:
            return keras.layers.Identity(dtype=self.dtype_policy, name=name)
        projection = Projection(units, dtype=self.dtype_policy, name=name)
        projection.build((None, 1, width))
        return projection

    def call(self, tokens, training=False):
        small, large = tokens
        small_class = self.small_projection(small[:, :1])
        large_class = self.large_projection(large[:, :1])
        small_class = self._cross(self.small_blocks, small_class, large[:, 1:], training)
        large_class = self._cross(self.large_blocks, large_class, small[:, 1:], training)
        return [
            ops.concatenate([self.small_back(small_class), small[:, 1:]], axis=1),
            ops.concatenate([self.large_back(large_class), large[:, 1:]], axis=1),
        ]

    def _cross(self, blocks, class_token, other_patches, training):
        tokens = ops.concatenate([class_token, other_patches], axis=1)
        for block in blocks:
            tokens = block(tokens, training=training)
        return tokens

    def macs(self, input_shape):
        (_, _, small_width), (_, _, large_width) = input_shape
        # f and g of both branches, one token each.
        total = 0 if small_width == large_width else dense_macs(4, small_width, large_width)
        for blocks, (_, length, width) in zip(
            (self.large_blocks, self.small_blocks), input_shape, strict=True
        ):
            total += blocks[0].attention.macs((None, length, width))
            total += sum(block.attention.macs((None, 1, width)) for block in blocks[1:])
        return total
