"""All-attention fusion."""

import keras
from keras import ops

from keras_crossvit.common.typing import Shape, Tensor
from keras_crossvit.layers.attention import SelfAttention
from keras_crossvit.layers.drop_path import DropPath
from keras_crossvit.layers.fusions.base import Fusion, register_fusion
from keras_crossvit.layers.fusions.projection import Projection
from keras_crossvit.layers.parts import layer_norm
from keras_crossvit.layers.sizes import size


@register_fusion("all_attention")
class AllAttentionFusion(Fusion):
    """Self-attention over the tokens of both branches together (equation 2).

    The attention has the width and the number of heads of the large branch. f and g of both
    branches are `Projection`s, including those of the large branch. There is no feed-forward
    network.

    Table 6 lists 27.7 M parameters and 7.6 G multiply-accumulates. This design has 7.58 G but
    26.85 M parameters. No simple design was found that matches both numbers, so the paper's
    design remains unknown (27.7 may be a misprint of 26.7: without position embeddings and
    class tokens this design has 26.70 M). Without the large branch's projections it has 7.41 G.

    Args and call arguments: as in `Fusion`; `depth` must be 1.
    """

    stackable = False

    def build(self, input_shape: list[Shape]) -> None:
        (batch, _, small_width), (_, _, width) = input_shape
        dtype = self.dtype_policy
        self.small_projection = Projection(width, dtype=dtype, name="small_projection")
        self.large_projection = Projection(width, dtype=dtype, name="large_projection")
        self.norm = layer_norm("norm", dtype)
        self.attention = SelfAttention(self.large_num_heads, dtype=dtype, name="attention")
        self.drop_path = DropPath(self.drop_path_rate, self.seed, dtype=dtype, name="drop_path")
        self.small_back = Projection(small_width, dtype=dtype, name="small_back_projection")
        self.large_back = Projection(width, dtype=dtype, name="large_back_projection")
        self.small_projection.build((batch, None, small_width))
        projections = (self.large_projection, self.small_back, self.large_back)
        for layer in (*projections, self.norm, self.attention):
            layer.build((batch, None, width))

    @property
    def attentions(self) -> list[keras.layers.Layer]:
        return [self.attention]

    def call(self, tokens: list[Tensor], training: bool = False) -> list[Tensor]:
        small, large = tokens
        both = ops.concatenate(
            [self.large_projection(large), self.small_projection(small)], axis=1
        )
        attended = self.attention(self.norm(both))
        both = both + self.drop_path(attended, training=training)
        length = size(large, 1)
        return [self.small_back(both[:, length:]), self.large_back(both[:, :length])]

    def macs(self, input_shape: list[Shape]) -> int:
        (_, small_length, small), (_, large_length, large) = input_shape
        projections = 2 * small_length * small * large + 2 * large_length * large**2
        return projections + self.attention.macs((None, small_length + large_length, large))
