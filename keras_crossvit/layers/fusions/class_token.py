"""Class token fusion."""

from keras import ops

from keras_crossvit.layers.fusions.base import Fusion, register_fusion
from keras_crossvit.layers.fusions.projection import align


@register_fusion("class_token")
class ClassTokenFusion(Fusion):
    """The class tokens of the branches are summed, patch tokens pass through (equation 3).

    The sum has the large branch's width: f^s and g^s are `Projection`s of the small
    branch's class token there and back, f^l and g^l the identity. The paper does not give
    the width of the sum, nor the form of f and g. A sum in the small branch's width has the
    same parameters and multiply-accumulates, and both agree with table 6; projections of
    both branches do not agree.

    Args and call arguments: as in `Fusion`; `depth` must be 1 and `class_token` True.
    """

    stackable = False
    needs_class_token = True

    def build(self, input_shape):
        (_, _, small), (_, _, large) = input_shape
        self.small_projection = align("small_projection", small, large, self.dtype_policy)
        self.small_back = align("small_back_projection", large, small, self.dtype_policy)

    def call(self, tokens, training=False):
        small, large = tokens
        total = self.small_projection(small[:, :1]) + large[:, :1]
        return [
            ops.concatenate([self.small_back(total), small[:, 1:]], axis=1),
            ops.concatenate([total, large[:, 1:]], axis=1),
        ]

    def macs(self, input_shape):
        (_, _, small), (_, _, large) = input_shape
        return 0 if small == large else 2 * small * large
