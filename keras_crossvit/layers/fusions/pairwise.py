"""Pairwise fusion."""

from keras import ops

from keras_crossvit.common.typing import Shape, Tensor
from keras_crossvit.layers.bicubic_resize import BicubicResize
from keras_crossvit.layers.fusions.base import Fusion, register_fusion
from keras_crossvit.layers.fusions.projection import align
from keras_crossvit.layers.parts import tokens_spec


@register_fusion("pairwise")
class PairwiseFusion(Fusion):
    """Tokens at the same position in the image are added, and so are class tokens (equation 4).

    f^s and g^s are `Projection`s of the small branch's tokens to the large branch's width
    and back, shared by class and patch tokens; f^l and g^l are the identity. Each branch
    computes the sum on its own patch grid, to which the other branch's patch tokens are
    interpolated; the small branch then projects its sum back.

    The paper does not specify the width and the grid of the sum, nor the interpolation. This
    choice agrees with table 6 (5.527 G multiply-accumulates, listed as 5.5), and so would a sum
    for both branches on the large grid, or one in the small branch's width on the small grid
    (5.482 G). The interpolation is bicubic, the only one that the paper mentions (section 4.1,
    for position embeddings), with the constant matrices of `BicubicResize`.

    Args and call arguments: as in `Fusion`; `depth` must be 1. Grids that are not given
    are assumed to be square.
    """

    stackable = False

    def build(self, input_shape: list[Shape]) -> None:
        (_, _, small), (_, _, large) = input_shape
        dtype = self.dtype_policy
        self.small_projection = align("small_projection", small, large, dtype)
        self.small_back = align("small_back_projection", large, small, dtype)
        self._grids = self.patch_grids(input_shape)
        self.input_spec = [tokens_spec(*shape[1:]) for shape in input_shape]
        small_grid, large_grid = self._grids
        self.to_small = BicubicResize(*small_grid, dtype=dtype, name="to_small_grid")
        self.to_large = BicubicResize(*large_grid, dtype=dtype, name="to_large_grid")
        # They have no variables, but `model.quantize` wants all layers built.
        self.to_small.build((None, *large_grid, large))
        self.to_large.build((None, *small_grid, large))

    def call(self, tokens: list[Tensor], training: bool = False) -> list[Tensor]:
        small, large = tokens
        small_grid, large_grid = self._grids
        small = self.small_projection(small)
        small_sum = small + self._move(large, large_grid, self.to_small)
        large_sum = large + self._move(small, small_grid, self.to_large)
        return [self.small_back(small_sum), large_sum]

    def _move(self, tokens, grid, resize):
        """Resizes tokens `(B, 1 + N, C)` to the other grid; the class token stays as it is."""
        patches = tokens[:, 1:] if self.class_token else tokens
        width = tokens.shape[-1]
        moved = resize(ops.reshape(patches, (-1, *grid, width)))
        moved = ops.reshape(moved, (-1, resize.height * resize.width, width))
        return ops.concatenate([tokens[:, :1], moved], axis=1) if self.class_token else moved

    def macs(self, input_shape: list[Shape]) -> int:
        (_, small_length, small), (_, _, large) = input_shape
        return 0 if small == large else 2 * small_length * small * large
