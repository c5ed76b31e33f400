"""Class token fusion."""

from keras import ops

from keras_crossvit.common.typing import Shape, Tensor
from keras_crossvit.layers.fusions.base import Fusion, register_fusion
from keras_crossvit.layers.fusions.projection import align


@register_fusion("class_token")
class ClassTokenFusion(Fusion):
    """The class tokens of the branches are added; patch tokens stay as they are (equation 3).

    The sum has the width of the large branch: f^s projects the small branch's class token to
    that width and g^s projects the sum back, both as `Projection`s; f^l and g^l are the
    identity. The paper specifies neither the width of the sum nor the form of f and g. A sum in
    the small branch's width would have just as many parameters and multiply-accumulates; both
    agree with table 6, whereas projections in both branches do not.

    Args and call arguments: as in `Fusion`; `depth` must be 1 and `class_token` True.
    """

    stackable = False
    needs_class_token = True

    def build(self, input_shape: list[Shape]) -> None:
        (_, _, small), (_, _, large) = input_shape
        self.small_projection = align("small_projection", small, large, self.dtype_policy)
        self.small_back = align("small_back_projection", large, small, self.dtype_policy)

    def call(self, tokens: list[Tensor], training: bool = False) -> list[Tensor]:
        small, large = tokens
        total = self.small_projection(small[:, :1]) + large[:, :1]
        return [
            ops.concatenate([self.small_back(total), small[:, 1:]], axis=1),
            ops.concatenate([total, large[:, 1:]], axis=1),
        ]

    def macs(self, input_shape: list[Shape]) -> int:
        (_, _, small), (_, _, large) = input_shape
        return 0 if small == large else 2 * small * large
